"""Fixtures of the tests marked ``lab``; see README.md."""

import os
from collections.abc import Iterator

import pytest
from rigs.lab import Lab, own_wheels


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The running Dom0; booted where it does not run, and then stopped at the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.fail("the tests of the lab share one Dom0: run them with -n0")
    dom0 = Lab()
    started = dom0.start()
    yield dom0
    dom0.destroy_all()
    if started:
        dom0.stop()


@pytest.fixture(scope="session")
def dom0_mesh(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The Dom0 with this checkout's wheels installed in `rigs.lab.VENV`."""
    lab.install(own_wheels(tmp_path_factory.mktemp("wheels")))
    return lab
