"""What `bus.abc.Bus` promises, of every bus that there is: in memory, and over a real nats-server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Protocol

import anyio
import pytest
from rigs.nats_server import NatsServer
from rigs.waiting import eventually

from xenmesh.bus.abc import Bus
from xenmesh.bus.consumer import Snapshot, ask, follow
from xenmesh.bus.errors import BadSubject, BusClosed, BusLost, NoHistory, NoResponders, NotKept, Timeout, TooLarge
from xenmesh.bus.memory import MemoryBus, MemoryServer
from xenmesh.bus.message import BusState, Message
from xenmesh.bus.nats import connect
from xenmesh.bus.provision import provision
from xenmesh.bus.service import Limits, Service
from xenmesh.schemas.envelope import Envelope
from xenmesh.schemas.request import Health, HealthReport
from xenmesh.schemas.store import Changed
from xenmesh.schemas.subjects import declaration, prefix

HOST = "h1"
P = prefix(HOST)


class Net(Protocol):
    """A server that buses join, and that can go and come back."""

    async def join(self, user: str = "tester") -> Bus: ...
    async def cut(self) -> None: ...
    async def mend(self) -> None: ...


class MemoryNet:
    def __init__(self, *, history: bool = True) -> None:
        self.server = MemoryServer(history=history)

    async def join(self, user: str = "tester") -> Bus:
        return MemoryBus(self.server, user=user, host=HOST)

    async def cut(self) -> None:
        self.server.cut()

    async def mend(self) -> None:
        self.server.mend()


class NatsNet:
    def __init__(self, server: NatsServer, stack: AsyncExitStack) -> None:
        self.server = server
        self.stack = stack

    async def join(self, user: str = "tester") -> Bus:
        return await self.stack.enter_async_context(connect(self.server.url, user=user, host=HOST))

    async def cut(self) -> None:
        self.server.kill()

    async def mend(self) -> None:
        self.server.start()


@pytest.fixture(params=["memory", "nats"])
async def net(request: pytest.FixtureRequest, nats_server: Callable[..., NatsServer]) -> AsyncIterator[Net]:
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            yield MemoryNet()
        else:
            made = NatsNet(nats_server(), stack)
            bus = await made.join("provision")
            await provision(bus, HOST)
            yield made


@pytest.fixture(params=["memory", "nats"])
async def bare(request: pytest.FixtureRequest, nats_server: Callable[..., NatsServer]) -> AsyncIterator[Net]:
    """Without a history."""
    async with AsyncExitStack() as stack:
        yield MemoryNet(history=False) if request.param == "memory" else NatsNet(nats_server(jetstream=False), stack)


async def test_messages_arrive_whole_and_in_order(net: Net) -> None:
    one, other = await net.join(), await net.join()
    heard: list[Message] = []
    await other.subscribe("a.>", heard.append)
    await other.settle()
    for number in range(500):
        await one.publish("a.b", str(number).encode(), reply="r", headers={"X-Y": "z"})
    await one.settle()
    await eventually(lambda: len(heard) == 500, "all")
    assert [int(message.data) for message in heard] == list(range(500))
    assert (heard[0].subject, heard[0].reply, dict(heard[0].headers or {})) == ("a.b", "r", {"X-Y": "z"})


@pytest.mark.parametrize(
    ("pattern", "subject", "heard"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*.c", "a.b.c", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "x", True),
    ],
)
async def test_patterns(net: Net, pattern: str, subject: str, heard: bool) -> None:
    bus, got = await net.join(), list[Message]()
    await bus.subscribe(pattern, got.append)
    await bus.publish(subject, b"1")
    await bus.settle()
    assert bool([message for message in got if message.subject == subject]) is heard


async def test_settled_means_heard_by_others_and_delivered(net: Net) -> None:
    one, other = await net.join(), await net.join()
    for number in range(20):
        heard: list[Message] = []
        subscription = await other.subscribe(f"s.{number}", heard.append)
        await other.settle()
        await one.publish(f"s.{number}", b"1")
        await one.settle()
        await other.settle()
        assert len(heard) == 1
        await subscription.close()
        await subscription.close()
        await other.settle()
        await one.publish(f"s.{number}", b"2")
        await one.settle()
        await other.settle()
        assert len(heard) == 1


async def test_a_ping_comes_back_behind_what_was_said(net: Net) -> None:
    one, other = await net.join(), await net.join()
    heard: list[Message] = []
    await other.subscribe("s", heard.append)
    await other.ping()
    await one.publish("s", b"1")
    await one.ping()
    await other.settle()
    assert len(heard) == 1
    await net.cut()
    await eventually(lambda: one.state is BusState.LOST, "the loss")
    with pytest.raises(BusLost):
        await one.ping()
    await one.close()
    with pytest.raises(BusClosed):
        await one.ping()


async def test_of_a_queue_one_hears(net: Net) -> None:
    one, other = await net.join(), await net.join()
    groups: list[list[str]] = [[], [], []]
    await one.subscribe("w.x", lambda message: groups[0].append(message.subject), queue="q")
    await other.subscribe("w.*", lambda message: groups[1].append(message.subject), queue="q")
    await other.subscribe("w.x", lambda message: groups[2].append(message.subject))
    await one.settle()
    await other.settle()
    for _ in range(60):
        await one.publish("w.x", b"1")
    await one.settle()
    await eventually(lambda: len(groups[2]) == 60 and len(groups[0]) + len(groups[1]) == 60, "all, once")
    assert groups[0]
    assert groups[1]


async def test_requests(net: Net) -> None:
    client, service = await net.join(), await net.join()

    async with anyio.create_task_group() as tasks:
        await service.subscribe(
            "q.x",
            lambda message: tasks.start_soon(service.publish, message.reply, message.data + b"!"),  # type: ignore[arg-type]
        )
        await service.subscribe("q.deaf", lambda _: None)
        await service.settle()
        assert (await client.request("q.x", b"hi", timeout=5)).data == b"hi!"
        with pytest.raises(NoResponders):
            await client.request("q.none", b"", timeout=5)
        with pytest.raises(Timeout):
            await client.request("q.deaf", b"", timeout=0.05)


async def test_what_may_not_be_sent_is_refused(net: Net) -> None:
    bus = await net.join()
    with pytest.raises(TooLarge):
        await bus.publish("a", b"x" * (bus.max_payload + 1))
    for subject in ("", "a..b", "a b", "a\r\nb", "a.*", "a.>"):
        with pytest.raises(BadSubject):
            await bus.publish(subject, b"")
    for pattern in ("a..b", "a.b*", "a.>.b"):
        with pytest.raises(BadSubject):
            await bus.subscribe(pattern, lambda _: None)


async def test_lost_and_found(net: Net) -> None:
    bus = await net.join()
    states: list[BusState] = []
    end = bus.on_state(states.append)
    heard: list[Message] = []
    await bus.subscribe("a.b", heard.append)
    await bus.settle()
    await net.cut()
    await eventually(lambda: bus.state is BusState.LOST, "the loss")
    await bus.publish("a.b", b"held back")
    with pytest.raises(BusLost):  # noqa: PT012
        for _ in range(4):
            await bus.publish("a.b", b"x" * 600_000)
    with pytest.raises((BusLost, Timeout)):
        await bus.request("a.c", b"", timeout=0.05)
    await net.mend()
    await eventually(lambda: bus.state is BusState.UP, "the return")
    await eventually(lambda: heard and heard[0].data == b"held back", "what was held back")
    assert states == [BusState.LOST, BusState.UP]
    end()
    end()


async def test_a_closed_bus_says_so(net: Net) -> None:
    bus = await net.join()
    await bus.close()
    await bus.close()
    assert bus.state is BusState.CLOSED
    with pytest.raises(BusClosed):
        await bus.publish("a", b"")
    with pytest.raises(BusClosed):
        await bus.subscribe("a", lambda _: None)
    with pytest.raises(BusClosed):
        await bus.request("a", b"", timeout=1)
    with pytest.raises(BusClosed):
        await bus.settle()


async def test_history_holds_each_identity_once_and_reads_on_from_a_number(net: Net) -> None:
    bus = await net.join()
    for number in range(5):
        for _ in range(2):
            await bus.keep(f"{P}.evt.domain.u{number % 2}.x", str(number).encode(), identity=f"id-{number}")
    await bus.publish(f"{P}.evt.host.up", b"said")  # taken in, too
    await bus.settle()
    every = [kept async for kept in bus.history(f"{P}.evt.>")]
    assert [kept.data for kept in every] == [b"0", b"1", b"2", b"3", b"4", b"said"]
    assert [kept.number for kept in every] == sorted({kept.number for kept in every})
    assert [kept.data async for kept in bus.history(f"{P}.evt.domain.u1.>", number=every[1].number)] == [b"3"]
    assert [kept.data async for kept in bus.history(f"{P}.evt.>", time=every[2].time)][-1] == b"said"
    assert [kept async for kept in bus.history(f"{P}.evt.>", time=every[-1].time + 60)] == []
    await bus.keep(f"{P}.audit.store.x", b"a", identity="a")
    assert [kept.data async for kept in bus.history(f"{P}.audit.>")] == [b"a"]


async def test_the_last_value_of_a_key(net: Net) -> None:
    bus = await net.join()
    heard: list[Message] = []
    await bus.subscribe(f"{P}.state.>", heard.append)
    await bus.settle()
    await bus.put("domain.a", b"1")
    await bus.put("domain.a", b"2")
    await bus.put("domain.b", b"3")
    await bus.purge("domain.b")
    await bus.settle()
    await eventually(lambda: len(heard) == 4, "all")
    assert [(message.subject.removeprefix(f"{P}.state."), message.data) for message in heard] == [
        ("domain.a", b"1"),
        ("domain.a", b"2"),
        ("domain.b", b"3"),
        ("domain.b", b""),
    ]
    assert await bus.keys() == ["domain.a"]


async def test_without_a_history_the_living_hear_all_the_same(bare: Net) -> None:
    bus = await bare.join()
    heard: list[Message] = []
    await bus.subscribe(f"{P}.>", heard.append)
    await bus.settle()
    with pytest.raises(NotKept):
        await bus.keep(f"{P}.evt.host.up", b"1", identity="1")
    await bus.put("domain.a", b"2")
    await eventually(lambda: [message.data for message in heard] == [b"1", b"2"], "both")
    with pytest.raises(NoHistory):
        [kept async for kept in bus.history(f"{P}.evt.>")]


async def test_a_service_and_a_follower_over_it(net: Net) -> None:
    values: dict[str, Changed] = {}

    def change(domid: int, value: str) -> Changed:
        said = Changed(domid=domid, uuid=None, path=f"/local/domain/{domid}/data/x", value=value)
        values[said.path] = said
        return said

    service = Service(await net.join("store"), declaration("store"), HOST, version="1.0.0", limits=Limits(heartbeat=0.1))
    service.snapshot_from(lambda: {"store.1": tuple(values.values())})
    consumer = await net.join("guests")
    async with service.serve(), follow(consumer, HOST, "store") as items:
        await service.ready()
        await service.emit(change(1, "a"))
        with anyio.fail_after(20):
            first = await anext(items)
            assert isinstance(first, Snapshot)
            assert len(first.items) == 1
            await service.emit(change(1, "b"))
            said = await anext(items)
            assert isinstance(said, Envelope)
            assert said.seq == first.seq + 1
            await net.cut()
            await service.emit(change(2, "while it was away"))
            await net.mend()
            while not (isinstance(item := await anext(items), Snapshot) and len(item.items) == 2):
                pass
            assert (await ask(consumer, HOST, "store", "health", Health(), HealthReport)).ready
            info = await consumer.request("$SRV.INFO.store", b"", timeout=5)
            assert b"io.nats.micro.v1.info_response" in info.data
            await eventually(lambda: service.counters["states"] >= 2, "the state to be put again")
