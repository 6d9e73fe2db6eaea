"""The mesh in the real Dom0, as its units run it: not root, over /dev/xen/xenbus, in the sandbox; and a real guest's boot on its stream.

A recording for tests/streams is made the same way: `xenmesh record --snapshot` while a guest is created, boots and is destroyed.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rigs.lab import Lab
from rigs.waiting import wait_until

pytestmark = pytest.mark.lab

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNIT = "xenmesh-all.service"
SET_UP = f"""
set -e
/root/mesh/deploy/install --no-environment
systemd-sysusers
systemd-tmpfiles --create xenmesh.conf
udevadm control --reload
udevadm trigger --name-match=xen/xenbus
udevadm settle
systemctl daemon-reload
systemctl start xenmesh.target {UNIT}
"""


@pytest.fixture(scope="module")
def mesh(dom0_mesh: Lab) -> Iterator[Lab]:
    """Dom0 with the mesh running; `systemctl start` returns when it is ready."""
    dom0_mesh.push(DEPLOY, to="/root/mesh")
    dom0_mesh.ssh(SET_UP, timeout=600)
    yield dom0_mesh
    dom0_mesh.ssh(f"systemctl stop {UNIT} xenmesh-bus xenmesh-host", timeout=120)


def show(lab: Lab, what: str) -> str:
    return lab.ssh(f"systemctl show -P {what} {UNIT}").stdout.strip()


def test_it_is_not_root_and_has_the_device(mesh: Lab):
    pid = show(mesh, "MainPID")
    status = dict(line.split(":", 1) for line in mesh.ssh(f"cat /proc/{pid}/status").stdout.splitlines())
    assert "0" not in status["Uid"].split()
    assert int(status["CapEff"], 16) == 0
    assert int(status["NoNewPrivs"]) == 1
    assert int(status["Seccomp"]) == 2
    assert "/dev/xen/xenbus" in mesh.ssh(f"ls -l /proc/{pid}/fd").stdout
    assert mesh.ssh("stat -c '%G %a' /dev/xen/xenbus").stdout == "xenbus 660\n"


def test_it_tells_its_story(mesh: Lab):
    assert "bus up" in show(mesh, "StatusText")
    said = mesh.ssh(f"journalctl -o json --no-pager SERVICE=store _SYSTEMD_UNIT={UNIT}").stdout.splitlines()
    assert any(json.loads(line)["MESSAGE"] == "ready" for line in said)


def test_a_guests_boot_is_on_the_stream(mesh: Lab, tmp_path):
    mesh.ssh("systemd-run -q --unit=xm-record --collect /usr/bin/xenmesh record --snapshot /root/boot.ndjson")
    wait_until(lambda: "store.domain" in mesh.ssh("cat /root/boot.ndjson", check=False).stdout, "the snapshot", within=300)
    domid = mesh.guest("vm1", disk=16)
    uuid = mesh.ssh(f"xenstore-read /local/domain/{domid}/vm").stdout.strip().removeprefix("/vm/")
    mesh.destroy("vm1")
    wait_until(lambda: '"store.gone"' in mesh.ssh("cat /root/boot.ndjson").stdout, "the end on the stream", within=120)
    mesh.ssh("systemctl stop xm-record")
    mesh.pull("/root/boot.ndjson", tmp_path / "boot.ndjson")
    records = [json.loads(line) for line in (tmp_path / "boot.ndjson").read_text().splitlines()]
    said = [record["event"] for record in records if f".store.{domid}." in record["subject"]]
    events = [envelope["event"] for envelope in said]
    values = {event["path"]: event["value"] for event in events if event["type"] == "store.changed"}
    home = f"/local/domain/{domid}"
    assert values[f"{home}/name"] == "vm1"
    assert values[f"{home}/vm"] == f"/vm/{uuid}"
    assert values[f"{home}/device/vbd/51712/state"] == "4"
    assert values[f"{home}/device/vif/0/state"] == "4"
    assert events[-1]["type"] == "store.gone"
    assert [envelope["seq"] for envelope in said] == sorted(envelope["seq"] for envelope in said)
    assert [envelope["prev"] for envelope in said[1:]] == [envelope["seq"] for envelope in said[:-1]], "no gap"


def test_one_that_is_killed_comes_back(mesh: Lab):
    before = show(mesh, "MainPID")
    mesh.ssh(f"kill -9 {before}")
    wait_until(lambda: show(mesh, "ActiveState") == "active" and show(mesh, "MainPID") != before, "a new process", within=400)
    assert "bus up" in show(mesh, "StatusText")
