"""The rigs for every test; see tests/rigs/README.md."""

import sys
from pathlib import Path

# Test files are not importable by name (--import-mode=importlib); the rigs are.
sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = [
    "pytester",
    "rigs.bookkeeping",
    "rigs.fixtures",
    "rigs.nats_server",
    "rigs.xenstored",
]
