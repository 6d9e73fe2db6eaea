"""The rigs for every test; see tests/rigs/README.md."""

import os
import sys
from pathlib import Path

from hypothesis import settings

# Test files are not importable by name (--import-mode=importlib); the rigs are.
sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = [
    "pytester",
    "rigs.bookkeeping",
    "rigs.fixtures",
    "rigs.nats_server",
    "rigs.xenstored",
]

# The same examples each time, however slow the machine; XENMESH_EXPLORE=1 looks for new ones, and many more of them.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("explore" if os.environ.get("XENMESH_EXPLORE") else "same")
