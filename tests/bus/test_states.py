"""Last values reach the bucket, in the end, whatever the bus did meanwhile."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest

from xenmesh.bus.errors import BusLost
from xenmesh.bus.memory import MemoryBus, MemoryServer
from xenmesh.bus.states import States
from xenmesh.schemas.subjects import declaration


def made(server: MemoryServer) -> tuple[States, Counter[str]]:
    counters = Counter[str]()
    return States(MemoryBus(server, host="h"), declaration("domains"), counters), counters


async def test_the_newest_value_wins_and_what_is_gone_is_purged() -> None:
    server = MemoryServer()
    states, counters = made(server)
    states.note("domain.a", b"1")
    states.note("domain.a", b"2")
    states.note("domain.b", b"3")
    await states.flush()
    assert server.values == {("h", "domain.a"): b"2", ("h", "domain.b"): b"3"}
    states.note("domain.b", None)
    await states.flush()
    assert server.values == {("h", "domain.a"): b"2"}
    assert counters == {"states": 3}


async def test_what_was_not_taken_stays_due() -> None:
    server = MemoryServer()
    states, counters = made(server)
    server.cut()
    states.note("domain.a", b"1")
    await states.flush()
    assert states.due
    assert counters["states.late"] == 1
    server.mend()
    states.note("domain.a", b"2")
    await states.flush()
    assert not states.due
    assert server.values == {("h", "domain.a"): b"2"}


async def test_after_a_restart_of_the_server_all_is_put_again() -> None:
    server = MemoryServer()
    states, _ = made(server)
    for key in "abc":
        states.note(f"domain.{key}", key.encode())
    await states.flush()
    server.restart()
    assert not server.values
    states.again()
    await states.flush()
    assert len(server.values) == 3


async def test_many_may_flush_at_once() -> None:
    server = MemoryServer()
    states, counters = made(server)
    async with anyio.create_task_group() as tasks:
        for number in range(30):
            states.note("domain.a", str(number).encode())
            tasks.start_soon(states.flush)
    assert server.values == {("h", "domain.a"): b"29"}
    assert counters["states"] <= 30


async def test_ghosts_are_this_services_own_keys_that_it_knows_nothing_of() -> None:
    server = MemoryServer()
    states, _ = made(server)
    bus = MemoryBus(server, host="h")
    for key in ("domain.ghost", "domain.kept", "domain.mine", "guest.other", "service.store", "service.domains"):
        await bus.put(key, b"old")
    states.note("domain.mine", b"new")
    assert await states.ghosts({"domain.kept", "service.domains"}) == ["domain.ghost"]
    server.cut()
    with pytest.raises(BusLost):
        await states.ghosts(set())
