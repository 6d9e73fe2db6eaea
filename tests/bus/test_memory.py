"""What the in-memory bus has of its own; `test_conformance` holds what every bus promises."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from xenmesh.bus.errors import BusLost, NotKept
from xenmesh.bus.memory import MemoryBus, MemoryServer
from xenmesh.bus.message import BusState, Message


async def test_who_does_not_keep_up_is_cut_once_and_hears_nothing_more() -> None:
    server = MemoryServer()
    bus, heard, cuts = MemoryBus(server), list[Message](), list[int]()
    await bus.subscribe("many", heard.append, on_cut=lambda: cuts.append(1))
    await bus.subscribe("big", heard.append, on_cut=lambda: cuts.append(2))
    await bus.subscribe("big", heard.append)  # need not be told
    for _ in range(1002):
        server.route(Message("many", b""))
    for _ in range(6):
        server.route(Message("big", b"x" * (1 << 20)))
    await bus.settle()
    assert cuts == [1, 2]
    assert heard == []  # never a part with a hole in it


async def test_a_publisher_in_a_tight_loop_cuts_nobody() -> None:
    bus, heard = MemoryBus(MemoryServer()), list[Message]()
    await bus.subscribe("a", heard.append)
    for _ in range(3000):
        await bus.publish("a", b"")
    await bus.settle()
    assert len(heard) == 3000


async def test_one_user_may_be_cut_off_alone() -> None:
    server = MemoryServer()
    one, other = MemoryBus(server, user="one"), MemoryBus(server, user="other")
    server.cut("one")
    assert (one.state, other.state) == (BusState.LOST, BusState.UP)
    for call in (
        one.ping(),
        one.settle(),
        one.keys(),
        one.put("domain.a", b""),
        one.purge("domain.a"),
        one.request("a", b"", timeout=1),
    ):
        with pytest.raises(BusLost):
            await call
    with pytest.raises(NotKept):
        await one.keep("xen.v1.h.evt.host.up", b"", identity="1")


async def test_a_restart_empties_the_bucket_and_keeps_the_history() -> None:
    server = MemoryServer()
    bus = MemoryBus(server, host="h")
    states: list[BusState] = []
    bus.on_state(states.append)
    await bus.put("domain.a", b"1")
    await bus.publish("xen.v1.h.evt.host.up", b"1")
    server.restart()
    assert states == [BusState.LOST, BusState.UP]
    assert await bus.keys() == []
    assert len([kept async for kept in bus.history("xen.v1.h.evt.>")]) == 1


async def test_hosts_do_not_meet_in_the_bucket() -> None:
    server = MemoryServer()
    one, other = MemoryBus(server, host="one"), MemoryBus(server, host="other")
    await one.put("domain.a", b"1")
    await other.purge("domain.a")
    assert (await one.keys(), await other.keys()) == (["domain.a"], [])


async def test_what_no_stream_takes_is_not_kept() -> None:
    with pytest.raises(NotKept, match="no stream"):
        await MemoryBus(MemoryServer()).keep("xen.v1.h.tele.host", b"", identity="1")


async def test_a_handlers_bug_is_reported_and_costs_nobody_a_message() -> None:
    bus, heard, reported = MemoryBus(MemoryServer()), list[bytes](), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def handler(message: Message) -> None:
        heard.append(message.data)
        if message.data == b"1":
            raise ValueError

    await bus.subscribe("a", handler)
    for number in range(3):
        await bus.publish("a", str(number).encode())
    await bus.settle()
    assert heard == [b"0", b"1", b"2"]
    assert [type(each["exception"]) for each in reported] == [ValueError]


async def test_a_handler_may_end_its_own_subscription() -> None:
    bus, heard = MemoryBus(MemoryServer()), list[bytes]()

    def handler(message: Message) -> None:
        heard.append(message.data)
        subscription._end()  # type: ignore[attr-defined]

    subscription = await bus.subscribe("a", handler)
    for number in range(3):
        await bus.publish("a", str(number).encode())
    await bus.settle()
    assert heard == [b"0"]
