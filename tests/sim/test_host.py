import asyncio
import os
import socket
import subprocess
from pathlib import Path

import pytest

from xenmesh.sim.errors import PathTooLong, SocketInUse
from xenmesh.sim.guests.life import Kind, guest, live
from xenmesh.sim.guests.population import Population
from xenmesh.sim.host import Host
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
