import os
import socket
from pathlib import Path

import pytest
from cli.house import HOST, House

from xenmesh.bus.errors import ConnectFailed
from xenmesh.bus.keys import ensure_keys
from xenmesh.cli import checks
from xenmesh.cli.checks import Finding, Level
from xenmesh.cli.context import Running, Target
from xenmesh.cli.discovery import Found, discover


def target(key: Path | None = None, user: str = "operator", host: str | None = HOST) -> Target:
    return Target("nats://127.0.0.1:1", user, key, host, "/d")


def wrong(finding: Finding) -> bool:
    """It is wrong, and says why and what to do."""
    return finding.level is Level.WRONG and bool(finding.why) and bool(finding.mend)


def test_the_binary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert checks.binary().level is Level.OK

    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    assert wrong(checks.binary())


def test_keys(tmp_path: Path) -> None:
    ensure_keys(tmp_path / "keys", ["operator"])
    file = tmp_path / "keys/operator.nk"
    assert checks.key(target(file)).level is Level.OK

    file.chmod(0o444)
    finding = checks.key(target(file))
    assert wrong(finding)
    assert finding.mend == f"chmod 0400 {file}"

    (tmp_path / "bad.nk").write_text("nonsense")
    (tmp_path / "bad.nk").chmod(0o400)
    assert wrong(checks.key(target(tmp_path / "bad.nk")))
    assert wrong(checks.key(target(tmp_path / "nope.nk")))
    assert checks.key(target()).level is Level.NOTE


def test_a_lost_bus_tells_whose_it_was() -> None:
    error = ConnectFailed(url="u", user="o", seconds=1, why="refused")
    dead = Running(url="u", host=HOST, keys="/d/bus/keys", pid=2**22 + 1)
    alive = Running(url="u", host=HOST, keys="/d/bus/keys", pid=os.getpid())

    assert checks.bus_lost(target(), error, dead).mend == "xenmesh up --dir /d"
    assert checks.bus_lost(target(), error, alive).mend == "tail /d/bus/nats-server.log"
    assert wrong(checks.bus_lost(target(), error, None))


def test_host_ids() -> None:
    def found(*hosts: str) -> list[Found]:
        return [Found(name="store", id="1", version="1", metadata={"host": host}) for host in hosts]

    assert checks.host_ids(target(), found(HOST)).level is Level.OK
    assert checks.host_ids(target(), []).level is Level.OK
    assert wrong(checks.host_ids(target(), found("other")))
    assert checks.host_ids(target(host=None), found("a", "b")).level is Level.NOTE


def test_xenstore_as_a_socket(short_dir: Path) -> None:
    path = short_dir / "s"
    running = Running(url="u", host=HOST, keys="k", xenstore=str(path))
    assert wrong(checks.xenstore(running))

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert wrong(checks.xenstore(running))  # nobody listens
        server.listen()
        assert checks.xenstore(running).level is Level.OK


def test_xenstore_where_there_is_none(tmp_path: Path) -> None:
    assert checks.xenstore(None, {}, tmp_path).level is Level.NOTE

    (tmp_path / "proc/xen").mkdir(parents=True)
    assert "mount" in checks.xenstore(None, {}, tmp_path).mend
    (tmp_path / "proc/xen/capabilities").write_text("control_d\n")
    assert "xenstored" in checks.xenstore(None, {}, tmp_path).mend


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = Running(url="u", host=HOST, keys=str(tmp_path / "keys"))
    assert checks.disk(running).level is Level.OK

    monkeypatch.setattr(checks, "LITTLE_DISK", 1 << 62)
    assert wrong(checks.disk(running))
    assert checks.disk(Running(url="u", host=HOST, keys="/nope/at/all/keys")).level is Level.NOTE


def test_clocks() -> None:
    assert checks.clock(0.1).level is Level.OK
    assert wrong(checks.clock(-60))


async def test_services_and_permissions(house: House) -> None:
    async with house.serve():
        house.nodes["/local/domain/5/name"] = "web-1"
        mesh = house.mesh()
        found = await discover(mesh.bus, more=0.05)
        store, events = await checks.services(mesh, found)

        assert store.level is Level.OK
        assert wrong(events)
        assert (await checks.reading(mesh)).level is Level.OK
        assert wrong(await checks.reading(house.mesh("view")))  # on this bus nobody is refused
        twice = (await checks.services(mesh, [*found, *found]))[0]
        assert wrong(twice)
    assert wrong(await checks.reading(house.mesh()))
    assert (await checks.reading(house.mesh("view"))).level is Level.OK


async def test_a_service_that_is_not_ready(house: House) -> None:
    async with house.serve(ready=False):
        mesh = house.mesh()
        assert wrong((await checks.services(mesh, await discover(mesh.bus, more=0.05)))[0])


async def test_hearts(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "BEAT", 0.3)
    mesh = house.mesh()
    async with checks.listening(mesh) as hearts, house.serve():
        findings = await hearts.findings()

    assert [(each.what, each.level) for each in findings] == [
        ("heartbeat", Level.WRONG),  # events is not there
        ("heartbeat", Level.OK),
        ("clock", Level.OK),
    ]
    assert abs(next(iter(hearts.off.values()))) < 5


async def test_no_history(house: House) -> None:
    (finding,) = await checks.history(house.mesh())
    assert wrong(finding)


async def test_the_round_trip(house: House) -> None:
    assert (await checks.round_trip(house.mesh().bus, target())).level is Level.OK
