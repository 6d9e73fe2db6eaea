"""The life of a service on a bus: ready, heard, found, shown, stopped."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest
from rigs.waiting import eventually

from xenmesh.bus.consumer import ask
from xenmesh.bus.errors import BusClosed, NoResponders, Refused
from xenmesh.bus.memory import MemoryBus, MemoryServer
from xenmesh.bus.message import Message
from xenmesh.bus.service import Limits, Service
from xenmesh.schemas.domain import Domain
from xenmesh.schemas.envelope import Event
from xenmesh.schemas.request import Barrier, Health, HealthReport, Position, Snapshot, SnapshotPage
from xenmesh.schemas.store import Changed
from xenmesh.schemas.subjects import Declaration, declaration

STORE, DOMAINS = declaration("store"), declaration("domains")


def changed(domid: int, value: str = "v") -> Changed:
    return Changed(domid=domid, uuid=None, path=f"/local/domain/{domid}/data/x", value=value)


class World:
    def __init__(self, server: MemoryServer, service: Service) -> None:
        self.server = server
        self.service = service
        self.client = MemoryBus(server, user="client", host="h")
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def hear(self, message: Message) -> None:
        self.heard.append((message.subject.removeprefix("xen.v1.h."), json.loads(message.data or b"{}")))

    def said(self, beginning: str) -> list[dict[str, Any]]:
        return [data for subject, data in self.heard if subject.startswith(beginning)]

    async def page(self, **asked: Any) -> SnapshotPage:
        return await ask(self.client, "h", "store", "snapshot", Snapshot(**asked), SnapshotPage)


@asynccontextmanager
async def world_of(declared: Declaration = STORE, *, ready: bool = True, **limits: Any) -> AsyncIterator[World]:
    server = MemoryServer()
    service = Service(MemoryBus(server, host="h"), declared, "h", version="1.2.3", clock=lambda: 50.0, limits=Limits(**limits))
    world = World(server, service)
    for kind in ("evt", "store", "hb", "state"):
        await world.client.subscribe(f"xen.v1.h.{kind}.>", world.hear)
    async with service.serve():
        if ready:
            await service.ready()
        yield world


async def test_it_says_started_when_ready_and_stopping_last() -> None:
    async with world_of(ready=False) as world:
        service = world.service
        assert not service.is_ready
        await world.client.settle()
        assert world.said("evt") == []
        await service.ready()
        await service.ready()
        assert service.is_ready
        assert await service.emit(changed(1)) == 2
        assert await service.emit_all([changed(1), changed(2)], time=7.0) == 4
    await world.client.settle()
    said = sorted((*world.said("evt"), *world.said("store")), key=lambda each: int(each["seq"]))
    assert [(each["seq"], each["prev"], each["time"], each["event"]["type"]) for each in said] == [
        (1, 0, 50.0, "service.started"),
        (2, 0, 50.0, "store.changed"),
        (3, 2, 7.0, "store.changed"),
        (4, 0, 7.0, "store.changed"),
        (5, 1, 50.0, "service.stopping"),
    ]
    assert service.lame_duck
    assert not service.is_ready
    with pytest.raises(NoResponders):
        await ask(world.client, "h", "store", "health", Health(), HealthReport)
    with pytest.raises(RuntimeError, match="served once"):
        async with service.serve():
            pass


async def test_it_beats_and_its_last_beat_is_a_lame_ducks() -> None:
    async with world_of(heartbeat=0.02) as world:
        await eventually(lambda: len(world.said("hb.store")) >= 3, "three heartbeats")
        await world.service.drain("upgrade")
    beats = [msgspec.convert(each, type=dict[str, Any]) for each in world.said("hb.store")]
    assert {(each["boot"], each["version"], each["period"]) for each in beats} == {(world.service.boot, "1.2.3", 0.02)}
    assert beats[0]["lame_duck"] is False
    assert beats[-1]["lame_duck"] is True
    assert world.said("evt.service.store.stopping")[0]["event"]["reason"] == "upgrade"


async def test_its_state_is_shown_and_shown_again_when_the_bucket_was_lost() -> None:
    async with world_of(ready=False) as world:
        await eventually(lambda: world.said("state.service.store"), "the first state")
        world.service.status("reading /local/domain")
        await eventually(
            lambda: world.said("state.service.store")[-1]["state"]["status"] == "reading /local/domain", "the status"
        )
        world.service.status("reading /local/domain")
        await world.service.ready()
        await eventually(lambda: world.said("state.service.store")[-1]["state"]["ready"], "ready")
        world.server.restart()
        await eventually(lambda: ("h", "service.store") in world.server.values, "the state to be put again")
    shown = world.said("state.service.store")[-1]
    assert (shown["boot"], shown["state"]["lame_duck"], shown["state"]["ready"]) == (world.service.boot, True, False)


async def test_states_of_things_and_ghosts() -> None:
    async with world_of(DOMAINS) as world:
        ghost, kept = (f"domain.{name}" for name in ("ghost", "kept"))
        for key in (ghost, kept, "guest.other"):
            await world.client.put(key, b"{}")
        domain = minimal(Domain, uuid="u1")
        await world.service.put(domain)
        await world.service.purge_ghosts({kept})
        assert await world.client.keys() == [
            key for key in ("domain.kept", "domain.u1", "guest.other", "service.domains") if key in await world.client.keys()
        ]
        assert ghost not in await world.client.keys()
        assert world.said("state.domain.u1")[0]["seq"] == world.service.seq
        await world.service.purge("domain.u1")
        assert "domain.u1" not in await world.client.keys()
        world.server.cut()
        await world.service.put(domain)  # the bus is lost: no concern of the service
        await world.service.purge_ghosts(set())
        world.server.mend()
        await eventually(lambda: ("h", "domain.u1") in world.server.values, "the state to be put")
        assert ("h", kept) in world.server.values  # an empty answer proves nothing
        with pytest.raises(TypeError):
            await world.service.put(changed(1))


async def test_health_tells_what_is_counted() -> None:
    async with world_of() as world:
        world.service.counters["floods"] += 3
        report = await ask(world.client, "h", "store", "health", Health(request_id="x"), HealthReport)
        assert (report.ready, report.version, report.since, report.lame_duck, report.status) == (
            True,
            "1.2.3",
            50.0,
            False,
            "ready",
        )
        assert report.counters["floods"] == 3
        assert report.counters["events"] == 1


async def test_the_barrier_waits_for_the_source_and_holds_up_nobody() -> None:
    gate = anyio.Event()
    async with world_of(handlers=1) as world, anyio.create_task_group() as tasks:
        passed: list[Position] = []

        async def read_source() -> None:
            await gate.wait()
            await world.service.emit(changed(5))

        async def pass_barrier(owner: str | None) -> None:
            passed.append(await ask(world.client, "h", "store", "barrier", Barrier(owner=owner), Position))

        world.service.barrier_by(read_source)
        world.service.snapshot_from(dict)
        tasks.start_soon(pass_barrier, "store.5")
        tasks.start_soon(pass_barrier, "store.9")
        await eventually(lambda: world.service.counters["requests"] == 2, "both to wait")
        assert (await world.page()).items == []
        assert passed == []
        gate.set()
        await eventually(lambda: len(passed) == 2, "both to pass")
        assert {each.boot for each in passed} == {world.service.boot}
        assert min(each.newest for each in passed) == 0
        assert max(each.newest for each in passed) >= 2

        async def lost() -> None:
            raise Refused.of("store-lost")

        world.service.barrier_by(lost)
        with pytest.raises(Refused, match="xenstored does not answer"):
            await ask(world.client, "h", "store", "barrier", Barrier(), Position)


async def test_a_snapshot_is_of_one_moment_though_the_model_goes_on() -> None:
    model: dict[str, tuple[Event, ...]] = {f"store.{n}": (changed(n, "old" + "x" * 200),) for n in range(10)}
    async with world_of(page=700) as world:
        world.service.snapshot_from(lambda: dict(model))
        first = await world.page()
        for number in range(10):
            model[f"store.{number}"] = (changed(number, "new"),)
            await world.service.emit(changed(number, "new"))
        items, page = list(first.items), first
        while page.next is not None:
            page = await world.page(cut=first.cut, page=page.next)
            assert (page.seq, page.boot) == (first.seq, world.service.boot)
            items += page.items
        assert len(items) == 10
        assert all(b'"old' in bytes(item) for item in items)
        fresh = await world.page(owner="store.3")
        assert [b'"new' in bytes(item) for item in fresh.items] == [True]
        for asked, code in (
            ({"cut": "x" * 5000}, "stale-cut"),
            ({"cut": first.cut, "page": 99}, "bad-request"),
            ({"page": -1}, "bad-request"),
        ):
            with pytest.raises(Refused) as refused:
                await world.page(**asked)
            assert refused.value.code == code


async def test_when_all_cuts_are_read_the_next_is_shared_by_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xenmesh.bus.snapshot._IDLE", 0.2)
    async with world_of(cuts=2, handlers=2) as world, anyio.create_task_group() as tasks:
        world.service.snapshot_from(dict)
        for number in range(2):
            await world.page()
            await world.service.emit(changed(number))
        pages: list[SnapshotPage] = []

        async def one() -> None:
            pages.append(await world.page())

        for _ in range(30):
            tasks.start_soon(one)
        await eventually(lambda: world.service.counters["requests"] >= 32, "all to wait")
        await eventually(lambda: len(pages) == 30, "all")
        assert {page.cut for page in pages} == {pages[0].cut}
        assert world.service.counters["cuts"] == 3


async def test_discovery() -> None:
    async with world_of(ready=False) as world:
        for which in ("", ".store", f".store.{world.service.boot}"):
            for verb in ("PING", "INFO", "STATS"):
                answer = json.loads((await world.client.request(f"$SRV.{verb}{which}", b"", timeout=5)).data)
                assert (answer["name"], answer["id"], answer["version"]) == ("store", world.service.boot, "1.2.3")
        await ask(world.client, "h", "store", "health", Health(), HealthReport)
        stats = json.loads((await world.client.request("$SRV.STATS.store", b"", timeout=5)).data)
        assert {each["name"]: each["num_requests"] for each in stats["endpoints"]}["health"] == 1
        await world.client.publish("$SRV.PING", b"")  # nobody to answer to


async def test_a_subscription_that_was_cut_is_made_again() -> None:
    async with world_of() as world:
        for _ in range(1001):
            world.server.route(Message("xen.v1.h.q.store.health", b"", "nobody"))
        await eventually(lambda: world.service.counters["resubscribed"] == 1, "a new subscription")
        assert (await ask(world.client, "h", "store", "health", Health(), HealthReport)).ready


async def test_it_starts_while_the_bus_is_lost_and_is_there_when_it_is_back() -> None:
    server = MemoryServer()
    service = Service(MemoryBus(server, user="s", host="h"), STORE, "h", version="1")
    server.cut()
    async with service.serve():
        await service.ready()
        server.mend()
        assert (await ask(MemoryBus(server, host="h"), "h", "store", "health", Health(), HealthReport)).ready
        await eventually(lambda: ("h", "service.store") in server.values, "its state")


async def test_what_goes_wrong_inside_comes_out_as_it_is() -> None:
    server = MemoryServer()
    with pytest.raises(ZeroDivisionError):
        async with Service(MemoryBus(server), STORE, "h", version="1").serve():
            raise ZeroDivisionError
    bus = MemoryBus(server)
    await bus.close()
    with pytest.raises(BusClosed):
        async with Service(bus, STORE, "h", version="1").serve():
            raise AssertionError


async def test_a_cancelled_service_still_drains() -> None:
    server = MemoryServer()
    heard: list[str] = []
    await MemoryBus(server).subscribe("xen.v1.h.evt.>", lambda message: heard.append(message.subject))
    with anyio.move_on_after(0.05):
        async with Service(MemoryBus(server), STORE, "h", version="1").serve() as service:
            await service.ready()
            await anyio.sleep_forever()
    await eventually(lambda: heard[-1:] == ["xen.v1.h.evt.service.store.stopping"], "the last word")


def test_only_declared_verbs_are_answered() -> None:
    service = Service(MemoryBus(MemoryServer()), STORE, "h", version="1")
    with pytest.raises(KeyError, match="declares no verb"):
        service.answer("write", service._barrier)


def minimal(kind: type[Any], **known: Any) -> Any:
    """One of ``kind`` with the plainest values its fields allow."""
    import enum

    plain: dict[Any, Any] = {str: "x", int: 0, float: 0.0, bool: False}
    values = {}
    for field in msgspec.structs.fields(kind):
        if field.required:
            wanted = field.type
            if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
                values[field.name] = next(iter(wanted))
            else:
                values[field.name] = plain.get(wanted)
    return kind(**{**values, **known})
