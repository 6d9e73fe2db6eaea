"""The whole mesh for a test: nothing in it is mocked."""

from collections.abc import AsyncIterator

import pytest
from mesh.running import Mesh, run_mesh
from rigs.xenstored import Xenstored, run_xenstored


@pytest.fixture
async def mesh(xenstored: Xenstored) -> AsyncIterator[Mesh]:
    """A mesh over a real xenstored, once C's and once OCaml's, whose budgets no test writer exceeds."""
    async with run_mesh(xenstored.socket, "[store]\nguest_burst = 1000000\n") as mesh:
        yield mesh


@pytest.fixture(scope="module")
async def shared_mesh() -> AsyncIterator[Mesh]:
    """One mesh over C's xenstored for all tests of a module; they leave it well (rig xenstored)."""
    with run_xenstored("c") as xenstored:
        async with run_mesh(xenstored.socket) as mesh:
            yield mesh
