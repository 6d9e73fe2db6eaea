"""Small fixtures that tests of every room use."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from rigs.catalogue import find_python39

__all__ = ["anyio_backend", "python39", "short_dir"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asyncio alone: the daemons run on nothing else."""
    return "asyncio"


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder with a short path, for unix sockets (their paths end at 107 bytes)."""
    directory = Path(tempfile.mkdtemp(prefix="xm-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def python39() -> str:
    """The path of a Python 3.9, for rooms that promise to run on it (rig python3.9)."""
    found = find_python39()
    assert found is not None, "the rig was not asked for"
    return found
