"""The xenstore client over the real device of Dom0."""

from pathlib import Path

import pytest
from rigs.lab import VENV, Lab

pytestmark = pytest.mark.lab


def test_the_client_over_the_device(dom0_mesh: Lab):
    dom0_mesh.push(Path(__file__).with_name("device.py"), to="/root")
    said = dom0_mesh.ssh(f"timeout 200 {VENV}/bin/python /root/device.py", timeout=240).stdout.split()
    assert said[-1] == "all"
    assert dom0_mesh.ssh("xenstore-exists /tool/xenmesh-lab", check=False).returncode == 1
