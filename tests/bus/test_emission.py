"""Events leave in the order of their places, whoever waits, and what cannot leave is counted."""

from __future__ import annotations

from collections import Counter

import anyio
import msgspec
import pytest
from rigs.waiting import eventually

from xenmesh.bus.emission import Emission
from xenmesh.bus.memory import MemoryBus, MemoryServer
from xenmesh.bus.message import Message
from xenmesh.schemas.envelope import Event
from xenmesh.schemas.service import Audit, Source, SourceState, Started
from xenmesh.schemas.store import Changed, DomainGone


class SlowBus(MemoryBus):
    """Each publish waits for its turn, as a full socket would make it."""

    async def publish(self, *given: object, **more: object) -> None:
        await super().publish(*given, **more)  # type: ignore[arg-type]
        await anyio.sleep(0.001)


def changed(domid: int, value: str = "v") -> Changed:
    return Changed(domid=domid, uuid=None, path=f"/local/domain/{domid}/data/x", value=value)


def emission(bus: MemoryBus, counters: Counter[str] | None = None) -> Emission:
    return Emission(bus, "h", "store", "boot", Counter() if counters is None else counters)


async def test_places_subjects_and_owners() -> None:
    bus, heard = MemoryBus(MemoryServer()), list[Message]()
    await bus.subscribe("xen.v1.h.>", heard.append)
    out = emission(bus)
    source = Source(source="xenstored", state=SourceState.LOST, why="x", lost=1)
    for event in (
        changed(1),
        changed(2),
        changed(1),
        Started(version="1"),
        source,
        DomainGone(domid=2, uuid=None, generation=1),
    ):
        out.stamp(event, 7.0)
    await out.flush()
    await bus.settle()
    said = [(message.subject.removeprefix("xen.v1.h."), msgspec.json.decode(message.data)) for message in heard]
    assert [(subject, each["seq"], each["prev"]) for subject, each in said] == [
        ("store.1.data", 1, 0),
        ("store.2.data", 2, 0),
        ("store.1.data", 3, 1),
        ("evt.service.store.started", 4, 0),
        ("evt.service.store.source", 5, 4),
        ("store.2.domain", 6, 2),
    ]
    assert {(each["host"], each["service"], each["boot"], each["time"]) for _, each in said} == {("h", "store", "boot", 7.0)}
    assert [out.newest(pattern) for pattern in (None, "store.1", "store.>", "store.*", "evt.>", "evt.service.store.>", "store.9")] == [
        6, 3, 6, 6, 5, 5, 0,
    ]  # fmt: skip


async def test_what_has_no_place_takes_none() -> None:
    out = emission(MemoryBus(MemoryServer()))
    with pytest.raises(TypeError):
        out.stamp(Audit(user="u", verb="v", request_id="1", code="ok", seconds=0.0), 0.0)
    assert out.seq == 0


async def test_the_order_holds_though_many_emit_and_some_are_cancelled() -> None:
    server = MemoryServer()
    out, heard = emission(SlowBus(server)), list[int]()
    await MemoryBus(server).subscribe(
        "xen.v1.h.store.>", lambda message: heard.append(msgspec.json.decode(message.data)["seq"])
    )

    async def emit(number: int) -> None:
        with anyio.move_on_after(0.003 if number % 3 else 5):
            out.stamp(changed(number), 0.0)
            await out.flush()

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(emit, number)
    await out.flush()
    await eventually(lambda: len(heard) == 40, "all")
    assert heard == list(range(1, 41))


async def test_what_the_bus_does_not_take_is_counted_and_leaves_a_gap() -> None:
    server, counters = MemoryServer(), Counter[str]()
    bus = MemoryBus(server)
    out = emission(bus, counters)
    event: Event = changed(1, "x" * 700_000)
    server.cut()
    for _ in range(3):
        out.stamp(event, 0.0)
    await out.flush()  # one is held back, for the rest there is no room
    assert (counters["events"], counters["events.lost"]) == (3, 2)
    server.mend()
    out.stamp(changed(1, "x" * (1 << 20)), 0.0)
    await out.flush()
    assert counters["events.lost"] == 3
    assert out.seq == 4
