"""The mesh in the real Dom0, as its units run it: not root, over /dev/xen/xenbus, in the sandbox; and a real guest from boot to shutdown.

The guest's test leaves one-pv-guest-boots.ndjson and its two expected states in its temporary folder: those of tests/streams were made so
(``--basetemp``).
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest
from rigs.lab import Lab
from rigs.streams import Published, Stream, write_items
from rigs.waiting import wait_until
from rigs.xenstore_ls import Listed, parse

from xenmesh.bus.consumer import Snapshot, ask, follow
from xenmesh.bus.nats import connect
from xenmesh.schemas.store import Node, Perms, PermsOf, Read
from xenmesh.services.store.config import StoreConfig

pytestmark = pytest.mark.lab

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
EACH = ("xenmesh@store.service", "xenmesh@events.service")
ALL = "xenmesh-all.service"
SET_UP = """
set -e
/root/mesh/deploy/install --no-environment
systemd-sysusers
systemd-tmpfiles --create xenmesh.conf
udevadm control --reload
udevadm trigger --name-match=xen/xenbus
udevadm settle
systemctl daemon-reload
systemctl start xenmesh.target xenmesh@store xenmesh@events
"""
TREES = ("/local/domain", *StoreConfig().trees)


class Mesh(NamedTuple):
    """The mesh in Dom0, as it is reached from here."""

    lab: Lab
    url: str
    host: str
    key: Path
    """Of the operator."""

    def snapshot(self) -> Snapshot:
        async def take() -> Snapshot:
            async with (
                connect(self.url, user="operator", host=self.host, seed=self.key) as bus,
                follow(bus, self.host, "store", timeout=30) as items,
            ):
                async for item in items:
                    if isinstance(item, Snapshot):
                        return item
            raise AssertionError

        return anyio.run(take)

    def asked(self, paths: list[str]) -> dict[str, Listed]:
        """Each node's value and permissions, as the service answers when it is asked many questions at once."""
        found: dict[str, Listed] = {}

        async def look() -> None:
            turns = anyio.CapacityLimiter(8)
            async with (
                connect(self.url, user="operator", host=self.host, seed=self.key) as bus,
                anyio.create_task_group() as all_,
            ):

                async def one(path: str) -> None:
                    async with turns:
                        node = await ask(bus, self.host, "store", "read", Read(path=path), Node, timeout=60)
                        perms = await ask(bus, self.host, "store", "perms", PermsOf(path=path), Perms, timeout=60)
                    found[path] = Listed(node.raw if node.raw is not None else (node.value or "").encode(), perms.perms)

                for path in paths:
                    all_.start_soon(one, path)

        anyio.run(look)
        return found


@pytest.fixture(scope="module")
def mesh(dom0_mesh: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """One unit a service; `systemctl start` returns when they are ready."""
    dom0_mesh.push(DEPLOY, to="/root/mesh")
    dom0_mesh.ssh(SET_UP, timeout=600)
    key = tmp_path_factory.mktemp("key") / "operator.nk"
    dom0_mesh.pull("/run/xenmesh/operator.nk", key)
    told = json.loads(dom0_mesh.ssh("cat /run/xenmesh/mesh.json").stdout)
    assert told["url"] == "nats://127.0.0.1:4222"
    with dom0_mesh.tunnel(4222) as port:
        yield Mesh(dom0_mesh, f"nats://127.0.0.1:{port}", told["host"], key)
    dom0_mesh.ssh(f"systemctl stop {' '.join(EACH)} {ALL} xenmesh-bus xenmesh-host", timeout=200)


@pytest.fixture(scope="module")
def in_one(mesh: Mesh) -> Mesh:
    """The same with all services in one process, which ends the others."""
    mesh.lab.ssh(f"systemctl start {ALL}", timeout=400)
    return mesh


def show(lab: Lab, unit: str, what: str) -> str:
    return lab.ssh(f"systemctl show -P {what} {unit}").stdout.strip()


def listed(lab: Lab) -> dict[str, Listed]:
    """What xenstore-ls says of the trees that the store service watches."""
    nodes = parse(lab.ssh("xenstore-ls -fp /").stdout)
    # Of /local/domain each domain by itself is watched, and not the node above them.
    return {
        path: node
        for path, node in nodes.items()
        if path != "/local/domain" and any(f"{path}/".startswith(f"{tree}/") for tree in TREES)
    }


def agreed(mesh: Mesh) -> tuple[Snapshot, dict[str, Listed]]:
    """A snapshot between two listings that say the same, when it says so too.

    A second may pass until what was written has been read and told; a difference that stays is shown.
    """
    differences: dict[str, object] = {"nothing": "listed"}
    before = listed(mesh.lab)

    def agree() -> tuple[Snapshot, dict[str, Listed]] | None:
        nonlocal differences, before
        snapshot = mesh.snapshot()
        published = Published(snapshot.items).values()
        earlier, before = before, listed(mesh.lab)
        # A secret is told to be there, and no more.
        secret = {path for path, value in published.items() if value is None}
        values = {path: None if path in secret else node.value for path, node in before.items()}
        differences = {
            path: (published.get(path, "not there"), values.get(path, "not there"))
            for path in published.keys() | values.keys()
            if published.get(path, "not there") != values.get(path, "not there")
        }
        return (snapshot, before) if before == earlier and not differences else None

    try:
        return wait_until(agree, "the published state to be xenstore's", within=90)
    except TimeoutError:
        raise AssertionError(f"published and listed differ: {differences}") from None


@pytest.mark.parametrize("unit", EACH)
def test_a_service_is_not_root_and_only_the_store_has_the_device(mesh: Mesh, unit: str):
    pid = show(mesh.lab, unit, "MainPID")
    status = dict(line.split(":", 1) for line in mesh.lab.ssh(f"cat /proc/{pid}/status").stdout.splitlines())
    assert "0" not in status["Uid"].split()
    assert int(status["CapEff"], 16) == 0
    assert int(status["NoNewPrivs"]) == 1
    assert int(status["Seccomp"]) == 2
    assert ("/dev/xen/xenbus" in mesh.lab.ssh(f"ls -l /proc/{pid}/fd").stdout) == (unit == EACH[0])
    assert mesh.lab.ssh("stat -c '%G %a' /dev/xen/xenbus").stdout == "xenbus 660\n"
    assert "bus up" in show(mesh.lab, unit, "StatusText")


def test_it_tells_its_story(mesh: Mesh):
    said = mesh.lab.ssh(f"journalctl -o json --no-pager SERVICE=store _SYSTEMD_UNIT={EACH[0]}").stdout.splitlines()
    assert any(json.loads(line)["MESSAGE"] == "ready" for line in said)


WHO_FINDS_IT = """
for name in looker stranger; do id -u $name >/dev/null 2>&1 || useradd $name; done
usermod -aG xenmesh-view looker
cd /
xenmesh services -o json >/tmp/root.out 2>&1 &
xenmesh watch --snapshot --for 10 -o json >/tmp/watch.out 2>/tmp/watch.err &
runuser -u looker -- xenmesh services -o json >/tmp/looker.out 2>&1 &
runuser -u stranger -- xenmesh services >/tmp/stranger.out 2>&1
test $? -ne 0 && wait
"""


def test_root_and_the_group_find_the_mesh_and_others_do_not(mesh: Mesh):
    lab = mesh.lab
    lab.ssh(WHO_FINDS_IT, timeout=300)  # at once: Python starts slowly there
    for who in ("root", "looker"):
        said = lab.ssh(f"cat /tmp/{who}.out").stdout
        assert {json.loads(line)["name"] for line in said.splitlines()} == {"store", "events"}
    assert "may read neither operator.nk nor view.nk" in lab.ssh("cat /tmp/stranger.out").stdout
    watched = [json.loads(line)["subject"] for line in lab.ssh("cat /tmp/watch.out").stdout.splitlines()]
    assert "xenmesh.snapshot" in watched, lab.ssh("cat /tmp/watch.err").stdout


def test_a_guest_from_boot_to_shutdown_is_on_the_stream_as_xenstore_has_it(mesh: Mesh, tmp_path):
    lab, file = mesh.lab, tmp_path / "one-pv-guest-boots.ndjson"
    program = [str(Path(sys.executable).with_name("xenmesh")), "record", "--snapshot", str(file)]
    where = ["--url", mesh.url, "--creds", str(mesh.key), "--user", "operator", "--host", mesh.host]
    with (tmp_path / "record.err").open("w") as said:
        recorder = subprocess.Popen([*program, *where], stderr=said, stdout=said)
    try:
        wait_until(lambda: "recording to" in (tmp_path / "record.err").read_text(), "the recorder", within=60)
        domid = lab.guest("vm1", disk=16)
        up, nodes = agreed(mesh)
        home = f"/local/domain/{domid}"
        assert nodes[f"{home}/name"].value == b"vm1"
        assert nodes[f"{home}/device/vbd/51712/state"].value == b"4"  # connected
        assert nodes[f"{home}/device/vif/0/state"].value == b"4"
        assert mesh.asked(sorted(nodes)) == nodes, "each question its own answer"
        lab.ssh("xl shutdown -w vm1", timeout=300)
        wait_until(lambda: lab.ssh("xl domid vm1", check=False).returncode, "the guest to be gone", within=120)
        end, after = agreed(mesh)
        assert home not in after
        wait_until(lambda: Stream.load(file).said[-1].seq >= end.seq, "the end on the stream", within=60)
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.wait(30)
        lab.destroy("vm1")
    stream = Stream.load(file)
    assert [envelope.seq for envelope in stream.said] == list(range(stream.seq + 1, end.seq + 1)), "no gap"
    for name, snapshot in (("up.expected", up), ("expected", end)):
        assert stream.state(snapshot.seq).facts() == Published(snapshot.items).facts()
        write_items(
            file.with_suffix(f".{name}.ndjson"), Published(snapshot.items).items(), boot=snapshot.boot, seq=snapshot.seq
        )


def test_all_in_one_process_says_what_xenstore_has(in_one: Mesh):
    assert [show(in_one.lab, unit, "ActiveState") for unit in (ALL, *EACH)] == ["active", "inactive", "inactive"]
    assert "bus up" in show(in_one.lab, ALL, "StatusText")
    in_one.lab.guest("vm2", disk=16)
    agreed(in_one)
    in_one.lab.destroy("vm2")
    agreed(in_one)


def test_one_that_is_killed_comes_back(in_one: Mesh):
    lab = in_one.lab
    before = show(lab, ALL, "MainPID")
    lab.ssh(f"kill -9 {before}")
    wait_until(
        lambda: show(lab, ALL, "ActiveState") == "active" and show(lab, ALL, "MainPID") != before, "a new process", within=300
    )
    assert "bus up" in show(lab, ALL, "StatusText")
    agreed(in_one)
