import asyncio
import os
import socket
import subprocess
from pathlib import Path

import pytest

from xenmesh.sim.errors import PathTooLong, SocketInUse, SocketRefused
from xenmesh.sim.guests.life import Kind, guest, live
from xenmesh.sim.guests.population import Population
from xenmesh.sim.host import Host, Status
from xenmesh.sim.xenstored.dialect import DIALECTS
from xenmesh.sim.xenstored.session import Session
from xenmesh.sim.xenstored.store import Store


async def tool(host: Host, *command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "XENSTORED_PATH": str(host.socket)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 0, out
    return out.decode()


@pytest.mark.rig("xenstore-utils")
@pytest.mark.parametrize("server", ["c", "ocaml"])
async def test_libxenstores_tools_work(short_dir: Path, server: str) -> None:
    async with Host(short_dir, server=server) as host:  # type: ignore[arg-type]
        await tool(host, "xenstore-write", "/a/b", "c d")
        assert await tool(host, "xenstore-read", "/a/b") == "c d\n"
        await tool(host, "xenstore-exists", "/a/b")
        await tool(host, "xenstore-chmod", "/a", "n0", "r7")
        assert "(n0,r7)" in await tool(host, "xenstore-ls", "-p", "/")
        assert await tool(host, "xenstore-watch", "-n", "1", "/a") == "/a\n"
        assert await tool(host, "xenstore-list", "/local/domain") == "0\n"


async def test_a_living_socket_is_not_taken(short_dir: Path) -> None:
    async with Host(short_dir):
        with pytest.raises(SocketInUse):
            async with Host(short_dir):
                pass


async def test_a_dead_socket_is_replaced(short_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(short_dir / "socket"))
    async with Host(short_dir) as host:
        assert host.socket.is_socket()
    assert not host.socket.exists()


async def test_a_path_too_long_is_named(short_dir: Path) -> None:
    with pytest.raises(PathTooLong, match="shorter directory"):
        async with Host(short_dir / ("x" * 120)):
            pass


async def test_a_file_in_the_sockets_place_is_kept_and_named(short_dir: Path) -> None:
    (short_dir / "socket").write_text("mine")
    with pytest.raises(SocketRefused, match="no socket"):
        async with Host(short_dir):
            pass
    assert (short_dir / "socket").read_text() == "mine"


async def test_a_directory_that_cannot_be_is_named(short_dir: Path) -> None:
    (short_dir / "file").touch()
    with pytest.raises(SocketRefused, match="Not a directory") as caught:
        async with Host(short_dir / "file" / "below"):
            pass
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("wrong", [{"guests": -1}, {"speed": 0.0}, {"server": "nope"}])
def test_what_cannot_be_is_refused_at_once(short_dir: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must"):
        Host(short_dir, **wrong)  # type: ignore[arg-type]


async def test_a_fault_of_ours_ends_the_block(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(speed: float) -> None:
        raise ZeroDivisionError

    host = Host(short_dir, guests=1)
    monkeypatch.setattr(host.population, "run", broken)
    with pytest.raises(ExceptionGroup) as caught:
        async with host:
            await asyncio.sleep(60)
    assert caught.group_contains(ZeroDivisionError)
    assert not host.socket.exists()


async def test_reports_come_while_it_runs(short_dir: Path) -> None:
    host, reports = Host(short_dir, guests=1, speed=100.0), []
    with pytest.raises(RuntimeError):
        await host.run_forever()

    class Enough(Exception):  # noqa: N818
        pass

    def report(status: Status) -> None:
        reports.append(status)
        if status.alive and len(reports) > 1:
            raise Enough

    async with asyncio.timeout(20):
        with pytest.raises(Enough):
            async with host:
                await host.run_forever(report, every=0.01)
    assert reports[-1].requests > 0
    assert reports[-1].guests == 1


async def test_guests_appear(short_dir: Path) -> None:
    async with Host(short_dir, guests=3, speed=1000.0, seed=1) as host:
        async with asyncio.timeout(10):
            while host.population.now < 30:  # noqa: ASYNC110
                await asyncio.sleep(0)
        status = host.status()
        assert status.alive > 0
        assert "of 3 guests" in str(status)


def test_a_life_repeats_and_is_in_order() -> None:
    def actions(seed: int) -> list[object]:
        life = live(guest(0, seed), seed)
        return [next(life) for _ in range(300)]

    assert actions(1) == actions(1)
    assert actions(1) != actions(2)
    times = [action.at for action in actions(3)]  # type: ignore[attr-defined]
    assert times == sorted(times)


@pytest.mark.parametrize("server", ["c", "ocaml"])
def test_a_population_repeats(server: str) -> None:
    def nodes() -> list[tuple[str, bytes, object]]:
        store = Store(DIALECTS[server])
        population = Population(store, 5, seed=7)
        population.advance(2000)
        assert population.refused == 0
        return [(path, node.value, node.perms.entries) for path, node in store.tree.walk()]

    assert nodes() == nodes()


def test_every_kind_of_action_happens_and_two_domids_share_a_uuid() -> None:
    store = Store()
    seen: set[Kind] = set()
    shared = False
    population = Population(store, 4, seed=3)
    while population.now < 20000:
        seen.add(population.step().kind)
        uuids = [domain.guest.uuid for domain in population.toolstack.domains.values()]
        shared = shared or len(set(uuids)) < len(uuids)
    assert seen == set(Kind)
    assert shared
    assert population.refused == 0


def test_births_and_deaths_are_told() -> None:
    store = Store()
    watcher = Session(store)
    watcher.watch("@introduceDomain", "in")
    watcher.watch("@releaseDomain", "out")
    watcher.events()
    population = Population(store, 1, seed=0)
    while population.step().kind is not Kind.DESTROY:
        pass
    told = [event.token for event in watcher.events()]
    assert told[0] == b"in"
    assert b"out" in told
    assert not watcher.exists("/local/domain/1/name")
