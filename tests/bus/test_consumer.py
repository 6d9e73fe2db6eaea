"""Following a service: hand-over, resync, and who is told what."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest
from rigs.waiting import eventually

from xenmesh.bus.consumer import Away, Followed, Follower, Snapshot, follow
from xenmesh.bus.errors import BusClosed
from xenmesh.bus.memory import MemoryBus, MemoryServer
from xenmesh.bus.message import Message
from xenmesh.bus.service import Limits, Service
from xenmesh.schemas import subjects
from xenmesh.schemas.envelope import Envelope, Event, encode
from xenmesh.schemas.store import Changed, Flooding

STORE = subjects.declaration("store")


class Model:
    """A small store: owner -> path -> value, as a service keeps it and as a consumer rebuilds it."""

    def __init__(self) -> None:
        self.values: dict[str, str | None] = {}

    def set(self, domid: int, key: str, value: str) -> Changed:
        path = f"/local/domain/{domid}/data/{key}"
        self.values[path] = value
        return changed(path, value)

    def cut(self) -> dict[str, tuple[Event, ...]]:
        owners: dict[str, list[Event]] = {}
        for path, value in self.values.items():
            owners.setdefault(f"store.{path.split('/')[3]}", []).append(changed(path, value))
        return {owner: tuple(items) for owner, items in owners.items()}

    def apply(self, item: Followed) -> None:
        if isinstance(item, Snapshot):
            self.values = {each.path: each.value for each in item.items if isinstance(each, Changed)}
        elif isinstance(item, Envelope) and isinstance(item.event, Changed):
            self.values[item.event.path] = item.event.value


def changed(path: str, value: str | None) -> Changed:
    return Changed(domid=int(path.split("/")[3]), uuid=None, path=path, value=value)


@asynccontextmanager
async def serving(server: MemoryServer, model: Model, **limits: Any) -> AsyncIterator[Service]:
    bus = MemoryBus(server, user="store", host="h")
    service = Service(bus, STORE, "h", version="1.0.0", limits=Limits(**{"heartbeat": 0.05, **limits}))
    service.snapshot_from(model.cut)
    async with service.serve():
        await service.ready()
        yield service
    await bus.close()


def following(server: MemoryServer, **more: Any) -> Follower:
    return follow(MemoryBus(server, user="view", host="h"), "h", "store", rng=random.Random(1), **more)


async def next_of(follower: Follower, wanted: Callable[[Followed], bool] = lambda _: True) -> Followed:
    with anyio.fail_after(10):
        while True:
            item = await anext(follower)
            if wanted(item):
                return item


def is_snapshot(item: Followed) -> bool:
    return isinstance(item, Snapshot)


async def test_a_snapshot_comes_first_and_then_each_event() -> None:
    server, model = MemoryServer(), Model()
    async with serving(server, model) as service, following(server) as items:
        model.set(1, "a", "old")
        await service.emit(model.set(1, "b", "old"))
        first = await next_of(items)
        assert isinstance(first, Snapshot)
        assert (first.boot, first.seq, first.why, len(first.items)) == (service.boot, 2, "first", 2)

        for number in range(5):
            await service.emit(model.set(number, "a", "new"))
        seen = [await next_of(items) for _ in range(5)]
        assert [item.seq for item in seen if isinstance(item, Envelope)] == [3, 4, 5, 6, 7]
        assert items.counters["events"] == 5


async def test_events_said_while_the_snapshot_is_read_are_applied_once() -> None:
    server, model, copy = MemoryServer(), Model(), Model()
    for number in range(50):
        model.set(number, "a", "x" * 100)
    async with serving(server, model, page=1000) as service, following(server) as items, anyio.create_task_group() as tasks:

        async def busy() -> None:
            for number in range(200):
                await service.emit(model.set(number % 60, "a", f"new {number}"))
                await anyio.lowlevel.checkpoint()

        tasks.start_soon(busy)
        while copy.values != model.values or service.seq < 201:
            copy.apply(await next_of(items))
        assert items.counters["snapshots"] == 1
        assert items.counters["events"] > 0


async def test_a_lost_event_is_a_gap() -> None:
    server, model, copy = MemoryServer(), Model(), Model()
    async with serving(server, model) as service, following(server) as items:
        copy.apply(await next_of(items))
        lose(server, service, model.set(3, "a", "lost"))
        await service.emit(model.set(3, "b", "heard"))
        item = await next_of(items)
        assert isinstance(item, Snapshot)
        assert item.why == "gap"
        copy.apply(item)
        assert copy.values == model.values


async def test_a_lost_last_event_is_told_by_the_heartbeat_though_others_spoke_since() -> None:
    server, model, copy = MemoryServer(), Model(), Model()
    async with serving(server, model) as service, following(server) as items:
        copy.apply(await next_of(items))
        lose(server, service, model.set(3, "a", "lost"))
        await service.emit(model.set(4, "a", "heard"))
        assert isinstance(await next_of(items), Envelope)
        item = await next_of(items)
        assert isinstance(item, Snapshot)
        assert item.why == "heartbeat"
        copy.apply(item)
        assert copy.values == model.values


async def test_what_the_service_says_elsewhere_is_not_missed() -> None:
    server, model = MemoryServer(), Model()
    async with serving(server, model) as service, following(server) as items:
        await next_of(items)
        for _ in range(3):
            await service.emit(Flooding(domid=1, uuid=None, active=True, dropped=1))
        await beats(service, server, 3, items)
        assert items.counters["snapshots"] == 1


async def test_one_owner_is_followed_alone_and_told_of_its_own_losses_only() -> None:
    server, model = MemoryServer(), Model()
    async with serving(server, model) as service, following(server, owner="store.5") as items:
        model.set(5, "a", "1")
        model.set(6, "a", "1")
        first = await next_of(items)
        assert isinstance(first, Snapshot)
        assert len(first.items) == 1
        lose(server, service, model.set(6, "a", "2"))
        await service.emit(model.set(6, "a", "3"))
        await beats(service, server, 3, items)
        assert items.counters["snapshots"] == 1

        lose(server, service, model.set(5, "a", "2"))
        assert is_snapshot(await next_of(items))


async def test_a_new_boot_gives_a_new_snapshot_and_an_absence_is_told_once() -> None:
    server, model, copy = MemoryServer(), Model(), Model()
    async with following(server) as items:
        async with serving(server, model) as service:
            await service.emit(model.set(1, "a", "1"))
            copy.apply(await next_of(items))
        gone = await next_of(items, lambda item: not isinstance(item, Envelope))
        assert isinstance(gone, Away | Snapshot)
        again = Model()
        async with serving(server, again) as service:
            await service.emit(again.set(2, "a", "1"))
            while copy.values != again.values:
                copy.apply(await next_of(items))
    assert items.counters["away"] <= 1


async def test_nobody_there_is_told_and_waited_for() -> None:
    server, model = MemoryServer(), Model()
    async with following(server) as items:
        item = await next_of(items)
        assert isinstance(item, Away)
        assert "Nobody answers" in item.why
        with anyio.move_on_after(0.3) as waited:
            await anext(items)
        assert waited.cancelled_caught
        async with serving(server, model):
            item = await next_of(items)
            assert isinstance(item, Snapshot)
            assert item.why == "first"


async def test_a_lost_bus_is_told_and_followed_by_a_snapshot() -> None:
    server, model, copy = MemoryServer(), Model(), Model()
    async with serving(server, model) as service, following(server) as items:
        copy.apply(await next_of(items))
        server.cut("view")
        assert isinstance(await next_of(items), Away)
        await service.emit(model.set(1, "a", "meanwhile"))
        server.mend("view")
        item = await next_of(items)
        assert isinstance(item, Snapshot)
        copy.apply(item)
        assert copy.values == model.values


async def test_a_reconnect_that_nobody_waited_through_still_resyncs() -> None:
    server, model = MemoryServer(), Model()
    async with serving(server, model) as service, following(server) as items:
        await next_of(items)
        server.cut("view")
        await service.emit(model.set(1, "a", "meanwhile"))
        server.mend("view")
        item = await next_of(items)
        assert isinstance(item, Snapshot)
        assert item.why == "reconnect"


async def test_a_slow_consumer_is_cut_told_and_resynced() -> None:
    server, model, copy = MemoryServer(), Model(), Model()
    async with serving(server, model) as service, following(server) as items:
        copy.apply(await next_of(items))
        for number in range(10_500):
            await service.emit(model.set(number % 7, "a", str(number)))
        await items._bus.settle()
        item = await next_of(items)
        assert isinstance(item, Snapshot)
        assert item.why == "slow"
        assert items.counters["slow"] == 1
        copy.apply(item)
        assert copy.values == model.values


async def test_a_subscription_that_the_bus_cut_is_made_again() -> None:
    server, model = MemoryServer(), Model()
    async with serving(server, model) as service, following(server) as items:
        await next_of(items)
        for number in range(1200):  # in one turn of the loop: more than a subscription holds
            service._emission.stamp(model.set(1, "a", str(number)), 0.0)
        for subject, data in service._emission._leaving:
            server.route(Message(subject, data))
        service._emission._leaving.clear()
        item = await next_of(items, is_snapshot)
        assert isinstance(item, Snapshot)
        assert item.why == "slow"
        await service.emit(model.set(2, "a", "after"))
        assert isinstance(await next_of(items), Envelope)


async def test_unknown_and_malformed_events_are_counted_and_keep_the_order() -> None:
    server, model = MemoryServer(), Model()
    bus = MemoryBus(server, host="h")
    async with serving(server, model, heartbeat=60) as service, following(server) as items:
        first = await next_of(items)
        assert isinstance(first, Snapshot)
        said = {"host": "h", "service": "store", "boot": first.boot, "time": 0.0, "prev": 0}
        await bus.publish("xen.v1.h.store.1.data", b"\xff not an envelope")
        await bus.publish("xen.v1.h.store.1.data.more", msgspec.json.encode({**said, "seq": 2, "event": {}}))
        await bus.publish("xen.v1.h.store.1.data", msgspec.json.encode({**said, "seq": 2, "event": {"type": "store.new"}}))
        await bus.publish("xen.v1.h.hb.store", b"[]")
        service._emission.seq = 2
        service._emission._newest["store.1"] = 2
        unknown = await next_of(items)
        assert isinstance(unknown, Envelope)
        assert unknown.event.type == "store.new"  # type: ignore[union-attr]
        await service.emit(model.set(1, "a", "1"))
        assert isinstance(await next_of(items), Envelope)
        assert (items.counters["unknown"], items.counters["malformed"]) == (1, 3)


async def test_two_hundred_consumers_at_once_share_one_cut() -> None:
    server, model = MemoryServer(), Model()
    for number in range(20):
        for key in range(20):
            model.set(number, f"k{key}", "v" * 50)
    async with serving(server, model, page=16 << 10, heartbeat=5.0) as service, anyio.create_task_group() as tasks:
        got: list[int] = []

        async def consumer() -> None:
            async with following(server, timeout=30.0) as items:
                item = await anext(items)
                assert isinstance(item, Snapshot)
                got.append(len(item.items))

        for _ in range(200):
            tasks.start_soon(consumer)
        await eventually(lambda: len(got) == 200, "all to have it", within=50)
        assert set(got) == {400}
        assert service.counters["cuts"] == 1


async def test_a_stale_cut_is_begun_again() -> None:
    server, model = MemoryServer(), Model()
    for number in range(20):
        model.set(number, "a", "x" * 50)
    async with serving(server, model, page=500) as service, following(server) as items:
        real, asked = service._cuts.find, 0

        def find(name: str, now: float) -> Any:
            nonlocal asked
            asked += 1
            return None if asked == 2 else real(name, now)

        service._cuts.find = find  # type: ignore[method-assign]
        item = await next_of(items)
        assert isinstance(item, Snapshot)
        assert len(item.items) == 20
        assert asked > 2


async def test_a_cancelled_wait_loses_nothing() -> None:
    server, model, copy = MemoryServer(), Model(), Model()
    async with serving(server, model) as service, following(server) as items:
        for number in range(40):
            await service.emit(model.set(number % 3, "a", str(number)))
            with anyio.move_on_after(0 if number % 2 else 0.002):
                copy.apply(await anext(items))
        while copy.values != model.values:
            copy.apply(await next_of(items))
        assert items.counters["gap"] == 0


async def test_without_heartbeats_the_barrier_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xenmesh.bus.consumer._QUIET", 0.05)
    server, model, copy = MemoryServer(), Model(), Model()
    async with serving(server, model, heartbeat=60) as service, following(server) as items:
        copy.apply(await next_of(items))
        lose(server, service, model.set(3, "a", "lost"))
        copy.apply(await next_of(items))
        assert copy.values == model.values
    item = await next_of(following(server))
    assert isinstance(item, Away)


async def test_it_ends_when_it_is_closed_and_when_the_bus_is() -> None:
    server, model = MemoryServer(), Model()
    async with serving(server, model):
        items = following(server)
        await next_of(items)
        await items.aclose()
        await items.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(items)
        assert not items._bus.subscriptions  # type: ignore[attr-defined]
        items = following(server)
        await next_of(items)
        await items._bus.close()
        with pytest.raises(BusClosed):
            await next_of(items)


def test_what_answers_no_snapshot_cannot_be_followed() -> None:
    with pytest.raises(ValueError, match="answers no snapshot"):
        follow(MemoryBus(MemoryServer()), "h", "events")
    with pytest.raises(KeyError, match="there are: store"):
        follow(MemoryBus(MemoryServer()), "h", "stores")


def lose(server: MemoryServer, service: Service, event: Event) -> None:
    """The service says it and nobody hears it: as when a link in between was cut."""
    service._emission.stamp(event, 0.0)
    service._emission._leaving.clear()


async def beats(service: Service, server: MemoryServer, count: int, items: Follower) -> None:
    """Wait for so many heartbeats while the follower takes them in; it must have nothing else to tell but events."""
    heard: list[Message] = []
    subscription = await MemoryBus(server, host="h").subscribe("xen.v1.h.hb.store", heard.append)
    with anyio.fail_after(10):
        while len(heard) < count:
            with anyio.move_on_after(0.02):
                assert isinstance(await anext(items), Envelope)
    await subscription.close()
    assert encode(service._health())
