"""The bus over NATS, against the real server, and against a fake one where a server must misbehave."""

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from rigs.fake_nats import fake_server
from rigs.nats_server import NatsServer
from rigs.waiting import eventually

from xenmesh.bus import nats as nats_module
from xenmesh.bus.errors import (
    BadSubject,
    BusClosed,
    BusLost,
    ConnectFailed,
    Forbidden,
    KeyFileError,
    NoHistory,
    NoResponders,
    NotKept,
    Timeout,
    TooLarge,
)
from xenmesh.bus.message import BusState, Message
from xenmesh.bus.nats import NatsBus, connect
from xenmesh.bus.provision import provision

Start = Callable[..., NatsServer]
HOST = "h1"


def join(server: Any, user: str = "tester", **options: Any) -> Any:
    return connect(server.url, user=user, host=HOST, **options)


@pytest.fixture
def server(nats_server: Start) -> NatsServer:
    return nats_server()


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[NatsBus]:
    async with join(server) as joined:
        yield joined


@pytest.fixture
async def kept(bus: NatsBus) -> NatsBus:
    """With streams and bucket."""
    await provision(bus, HOST)
    return bus


@contextmanager
def raw_client(port: int) -> Iterator[Callable[[bytes], None]]:
    """Sends any bytes as a client that is not ours; returns when the server has taken them in."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client, client.makefile("rb") as answers:
        answers.readline()
        client.sendall(b'CONNECT {"verbose":false,"headers":true}\r\n')

        def say(raw: bytes) -> None:
            client.sendall(raw + b"PING\r\n")
            while (line := answers.readline()) != b"PONG\r\n":
                assert line, "the server hung up"

        yield say


def hpub(subject: bytes, block: bytes, data: bytes = b"") -> bytes:
    return b"HPUB %b %d %d\r\n%b%b\r\n" % (subject, len(block), len(block) + len(data), block, data)


# Saying and hearing.


async def test_what_is_said_is_heard_whole_and_in_order(bus: NatsBus) -> None:
    heard: list[Message] = []
    await bus.subscribe("a.>", heard.append)
    await bus.publish("a.1", b"x", reply="r", headers={"K": "ü: v"})
    for number in range(2, 1000):
        await bus.publish(f"a.{number}", b"")
    await bus.settle()
    assert heard[0] == Message("a.1", b"x", "r", {"K": "ü: v"})
    assert [message.subject for message in heard] == [f"a.{number}" for number in range(1, 1000)]
    assert (bus.counters.published, bus.counters.received) == (999, 999)


async def test_a_closed_subscription_hears_nothing_more(bus: NatsBus) -> None:
    heard: list[Message] = []
    subscription = await bus.subscribe("a", heard.append)
    await bus.publish("a", b"1")
    await bus.settle()
    await subscription.close()
    await subscription.close()
    await bus.publish("a", b"2")
    await bus.settle()
    assert [message.data for message in heard] == [b"1"]


async def test_a_queue_shares_the_messages(server: NatsServer) -> None:
    heard: list[Message] = []
    async with join(server) as one, join(server) as two:
        for member in (one, two):
            await member.subscribe("a", heard.append, queue="q")
            await member.settle()
        for _ in range(20):
            await one.publish("a", b"")
        await one.settle()
        await two.settle()
    assert len(heard) == 20


async def test_what_may_not_be_said_is_refused_before_anything_is_sent(bus: NatsBus) -> None:
    with pytest.raises(BadSubject):
        await bus.publish("a\r\nPUB b 0\r\n\r\n", b"")
    with pytest.raises(BadSubject):
        await bus.publish("a", b"", reply="b c")
    with pytest.raises(BadSubject):
        await bus.subscribe("a.>.b", lambda _: None)
    with pytest.raises(TooLarge) as error:
        await bus.publish("a", bytes(bus.max_payload + 1))
    assert error.value.facts["limit"] == bus.max_payload == 1 << 20
    await bus.publish("a", bytes(bus.max_payload))
    await bus.settle()


async def test_a_tight_loop_of_publishes_lets_others_run(bus: NatsBus) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(count)
        for _ in range(20_000):  # 600 KB: less than what is held back
            await bus.publish("a", b"0123456789")
        group.cancel_scope.cancel()
    assert turns >= 100


async def test_request(bus: NatsBus) -> None:
    tasks: set[asyncio.Task[None]] = set()

    def answer(message: Message) -> None:
        tasks.add(asyncio.create_task(bus.publish(message.reply, message.data * 2, headers={"H": "v"})))

    await bus.subscribe("q", answer)
    replies: list[Message] = []

    async def ask(number: int) -> None:
        replies.append(await bus.request("q", b"%d" % number, timeout=5))

    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(ask, number)
    assert sorted(reply.data for reply in replies) == sorted(b"%d%d" % (number, number) for number in range(50))
    assert replies[0].headers == {"H": "v"}
    assert replies[0].subject.startswith("_INBOX.tester.")


async def test_request_without_an_answer(bus: NatsBus) -> None:
    with pytest.raises(NoResponders):
        await bus.request("nobody", b"", timeout=5)
    await bus.subscribe("mute", lambda _: None)
    with pytest.raises(Timeout):
        await bus.request("mute", b"", timeout=0.05)
    assert bus._answers == {}


async def test_cancellation_ends_every_wait_at_once(kept: NatsBus) -> None:
    await kept.subscribe("mute", lambda _: None)
    began = time.monotonic()
    for waits in (
        lambda: kept.request("mute", b"", timeout=30),
        lambda: kept.keep("mute", b"", identity="1"),
    ):
        with anyio.move_on_after(0.05) as scope:
            await waits()
        assert scope.cancelled_caught
    assert kept._answers == {}
    assert time.monotonic() - began < 1


# What nats-py gets wrong (reference 2.3), and that it is mended.

MALFORMED = {
    "8-byte header": hpub(b"a.b", b"NATS/1.0"),
    "non-ASCII status": hpub(b"a.b", b"NATS/1.0 \xff\xfe\xfd\r\n\r\n"),
    "non-UTF-8 description": hpub(b"a.b", b"NATS/1.0 503 \xff\xfe\r\n\r\n"),
    "non-UTF-8 subject": b"PUB a.\xff\xfe 1\r\nx\r\n",
    "non-UTF-8 reply": b"PUB a.b r.\xff 1\r\nx\r\n",
    "header without colon": hpub(b"a.b", b"NATS/1.0\r\nnothing\r\n\r\n"),
    "non-ASCII name": hpub(b"a.b", b"NATS/1.0\r\n\xff: x\r\n\r\n"),
}


@pytest.mark.parametrize("kind", MALFORMED)
async def test_hazard_1_a_malformed_message_makes_nobody_deaf(server: NatsServer, bus: NatsBus, kind: str) -> None:
    heard: list[bytes] = []
    await bus.subscribe("a.>", lambda message: heard.append(message.data))
    await bus.settle()
    with raw_client(server.port) as say:
        say(MALFORMED[kind] + b"PUB a.c 4\r\nnext\r\n")
    await eventually(lambda: b"next" in heard, "the message after it", within=1)
    assert (bus.counters.lost, bus.counters.revived) == (0, 0)
    assert bus.counters.malformed == (1 if "UTF-8 subject" in kind or "reply" in kind else 0)


@pytest.mark.parametrize("poison", [b"INFO {bad json\r\n", b"-ERR \r\n", b"-ERR '\xff'\r\n"])
async def test_hazard_1_a_dead_reader_is_replaced_within_a_second(poison: bytes) -> None:
    async with fake_server() as fake, join(fake) as bus:
        states: list[BusState] = []
        bus.on_state(states.append)
        await bus.subscribe("a.b", lambda _: None)
        await bus.settle()
        fake.commands.clear()
        began = time.monotonic()
        fake.say(poison)
        await eventually(lambda: states == [BusState.LOST, BusState.UP], "a new connection", within=1)
        assert time.monotonic() - began < 1
        await bus.settle()
        assert any(command.startswith("SUB a.b") for command in fake.commands)
        assert bus.counters.revived == 1


async def test_hazard_2_settle_keeps_its_place_behind_what_was_said() -> None:
    async with fake_server() as fake, join(fake) as bus:
        fake.commands.clear()
        for number in range(300):
            await bus.publish(f"p.{number}", bytes(3000))
        await bus.subscribe("a.b", lambda _: None)
        await bus.publish("last", b"")
        await bus.settle()
        names = fake.names()
        assert names.index("PING") > names.index("SUB")
        assert names.count("PUB") == 301
        assert names.index("PING") == len(names) - 1


async def test_a_settle_that_was_cancelled_does_not_kill_the_reader() -> None:
    async with fake_server() as fake, join(fake) as bus:
        fake.mute = True
        with anyio.move_on_after(0.05) as scope:
            await bus.settle()
        assert scope.cancelled_caught
        with anyio.move_on_after(0.05):
            await bus._link.flush()  # as nats-py does itself when it reconnects
        fake.say(b"PONG\r\nPONG\r\n")
        fake.mute = False
        await bus.settle()
        assert (bus.counters.revived, bus.counters.lost) == (0, 0)


async def test_hazard_6_every_keep_in_flight_at_a_kill_ends(server: NatsServer, kept: NatsBus) -> None:
    ended: list[str] = []

    async def keep(number: int) -> None:
        try:
            await kept.keep(f"xen.v1.{HOST}.evt.domain.a.{number}", b"", identity=str(number))
            ended.append("kept")
        except NotKept:
            ended.append("not kept")

    async with anyio.create_task_group() as group:
        for number in range(200):
            group.start_soon(keep, number)
        await anyio.lowlevel.checkpoint()
        server.kill()
        server.start()
    assert len(ended) == 200
    numbers = [k.subject async for k in kept.history(f"xen.v1.{HOST}.evt.>")]
    assert len(numbers) == len(set(numbers)) >= ended.count("kept")


async def test_hazard_10_a_forbidden_request_is_told_as_such(nats_server: Start) -> None:
    server = nats_server(
        'authorization { users: [ { user: t, password: p, permissions: { publish: "ok.>", subscribe: "_INBOX.>" } } ] }'
    )
    url = server.url.replace("//", "//t:p@")
    async with connect(url, user="t", host=HOST) as bus:
        began = time.monotonic()
        with pytest.raises(Forbidden) as error:
            await bus.request("Secret.x", b"", timeout=10)
        assert time.monotonic() - began < 2
        assert error.value.subject == "Secret.x"
        cuts: list[bool] = []
        await bus.subscribe("Other.>", lambda _: None, on_cut=lambda: cuts.append(True))
        await bus.ping()  # takes nothing away from settle
        assert cuts == [True]
        with pytest.raises(Forbidden, match=r"t may not hear Other\.>"):
            await bus.settle()
        await bus.settle()
        assert cuts == [True]
        assert bus.counters.refused == 2


async def test_a_refusal_is_told_to_the_task_that_subscribed(nats_server: Start) -> None:
    server = nats_server(
        'authorization { users: [ { user: t, password: p, permissions: { subscribe: ["_INBOX.>", "ok.*"] } } ] }'
    )
    async with connect(server.url.replace("//", "//t:p@"), user="t", host=HOST) as bus:
        told: list[str] = []

        async def hear(pattern: str) -> None:
            await bus.subscribe(pattern, lambda _: None)
            try:
                await bus.settle()
            except Forbidden as error:
                told.append(f"{pattern}: {error.subject}")

        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(hear, f"ok.{number}")
                group.start_soon(hear, f"secret.{number}")
        assert sorted(told) == [f"secret.{number}: secret.{number}" for number in range(5)]
        assert bus._refused == []


async def test_hazard_11_keys_are_never_fewer_than_there_are(kept: NatsBus) -> None:
    for number in range(300):
        await kept.put(f"domain.{number}", b"x")
    for _ in range(20):
        assert len(await kept.keys()) == 300


async def test_hazard_15_keep_waits_for_a_stream_that_is_being_made(bus: NatsBus) -> None:
    async with anyio.create_task_group() as group:

        async def late() -> None:
            await anyio.sleep(0.1)
            await provision(bus, HOST)

        group.start_soon(late)
        await bus.keep(f"xen.v1.{HOST}.evt.host.a", b"1", identity="1")
    assert [k.data async for k in bus.history(f"xen.v1.{HOST}.evt.>")] == [b"1"]


async def test_hazard_16_a_lost_server_makes_few_lines(
    server: NatsServer, bus: NatsBus, caplog: pytest.LogCaptureFixture
) -> None:
    server.kill()
    await eventually(lambda: bus.state is BusState.LOST, "the loss")
    await anyio.sleep(1.5)  # several attempts in vain
    assert len([record for record in caplog.records if record.levelname != "DEBUG"]) <= 4
    server.start()
    await eventually(lambda: bus.state is BusState.UP, "the return")


@pytest.mark.parametrize(
    "error", [b"-ERR 'Slow Consumer'\r\n", b"-ERR 'maximum connections exceeded'\r\n", b"-ERR 'Stale Connection'\r\n"]
)
async def test_an_error_of_the_server_never_closes_the_bus_for_good(error: bytes) -> None:
    async with fake_server() as fake, join(fake) as bus:
        states: list[BusState] = []
        bus.on_state(states.append)
        fake.say(error)
        await eventually(lambda: states == [BusState.LOST, BusState.UP], "a new connection", within=2)
        assert bus.state is BusState.UP


async def test_a_reconnecting_that_died_is_begun_again(server: NatsServer, bus: NatsBus) -> None:
    server.kill()
    await eventually(lambda: bus._link.is_reconnecting, "the reconnecting")
    task = bus._link._reconnection_task
    assert task is not None
    task.cancel()
    server.start()
    await eventually(lambda: bus.state is BusState.UP, "a new connection", within=2)
    await bus.settle()


async def test_a_connection_that_nats_py_closed_is_opened_again(bus: NatsBus) -> None:
    heard: list[Message] = []
    await bus.subscribe("a", heard.append)
    await bus.settle()
    await bus._link._close(bus._link.CLOSED)
    await eventually(lambda: bus.counters.reconnected == 1, "a new connection", within=2)
    await bus.publish("a", b"")
    await bus.settle()
    assert len(heard) == 1


async def test_a_mute_server_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert nats_module._PING_INTERVAL == 5
    monkeypatch.setattr(nats_module, "_PING_INTERVAL", 0.05)
    async with fake_server() as fake, join(fake) as bus:
        fake.mute = True
        await eventually(lambda: len(fake.writers) > 1, "a second attempt", within=2)
        fake.mute = False
        await eventually(lambda: bus.state is BusState.UP and bus.counters.lost > 0, "the new connection")


# Whoever does not keep up.


async def test_a_slow_subscriber_is_cut_once_without_a_gap_and_its_neighbours_hear_all(
    server: NatsServer, bus: NatsBus
) -> None:
    slow: list[int] = []
    quick: list[int] = []
    cuts: list[bool] = []

    def dawdle(message: Message) -> None:
        time.sleep(0.001)
        slow.append(int(message.data))

    await bus.subscribe("a", dawdle, on_cut=lambda: cuts.append(True))
    await bus.subscribe("a", lambda message: quick.append(int(message.data)))
    await bus.settle()
    async with join(server) as publisher:
        for number in range(4000):
            await publisher.publish("a", b"%d" % number)
        await publisher.settle()
    await eventually(lambda: len(quick) == 4000, "the neighbour to hear all")
    assert cuts == [True]
    assert quick == list(range(4000))
    assert slow == list(range(len(slow)))
    assert len(slow) < 4000
    heard = len(slow)
    await bus.settle()
    await bus.publish("a", b"-1")
    await bus.settle()
    assert len(slow) == heard
    assert bus.counters.cut == 1


async def test_a_flood_of_small_messages_cuts_nobody_who_is_quick(server: NatsServer, bus: NatsBus) -> None:
    heard: list[bytes] = []
    await bus.subscribe("a", lambda message: heard.append(message.data), on_cut=lambda: pytest.fail("it was cut"))
    await bus.settle()
    with raw_client(server.port) as say:
        await anyio.to_thread.run_sync(say, b"".join(b"PUB a 5\r\n%05d\r\n" % number for number in range(50_000)))
    await eventually(lambda: len(heard) == 50_000, "all of them")
    assert heard == [b"%05d" % number for number in range(50_000)]


async def test_a_process_that_does_not_read_is_cut_by_the_server_and_told(nats_server: Start) -> None:
    server = nats_server('max_pending: 1MB\nwrite_deadline: "1s"')
    async with join(server) as bus:
        heard: list[int | BusState] = []
        bus.on_state(heard.append)

        def take(message: Message) -> None:
            heard.append(int(message.data[:8]))

        await bus.subscribe("a", take)
        await bus.settle()
        with raw_client(server.port) as say:
            flood = b"".join(b"PUB a 1024\r\n%08d%b\r\n" % (number, bytes(1016)) for number in range(20_000))
            sender = threading.Thread(target=say, args=(flood,))
            sender.start()
            time.sleep(1.5)  # noqa: ASYNC251 - the loop is held up on purpose
            await anyio.to_thread.run_sync(sender.join)
        await eventually(lambda: bus.counters.reconnected >= 1, "the return")
        before = heard[: heard.index(BusState.LOST)]
        assert before == list(range(len(before)))
        assert bus.state is BusState.UP
        await bus.publish("a", b"00099999")
        await eventually(lambda: heard[-1] == 99999, "the subscription to stand")


# A lost bus.


async def test_a_kill_of_the_server_in_a_stream_of_publishes(server: NatsServer, bus: NatsBus) -> None:
    """Reconnect under a second after the server is back; subscriptions stand; what was said meanwhile is delivered, in order."""
    heard: list[int] = []
    states: list[tuple[BusState, float]] = []
    bus.on_state(lambda state: states.append((state, time.monotonic())))
    await bus.subscribe("n", lambda message: heard.append(int(message.data)))
    await bus.settle()
    said_while_lost: list[int] = []
    running = True

    async def talk() -> None:
        number = 0
        while running:
            if bus.state is BusState.LOST:
                said_while_lost.append(number)
            await bus.publish("n", b"%d" % number)
            number += 1
            await anyio.sleep(0.001)

    async with anyio.create_task_group() as group:
        group.start_soon(talk)
        await eventually(lambda: len(heard) > 100, "the stream")
        os.kill(server.pid, signal.SIGKILL)
        server.kill()
        await eventually(lambda: len(said_while_lost) > 100, "the outage")
        await anyio.to_thread.run_sync(server.start)
        back = time.monotonic()
        await eventually(lambda: bus.state is BusState.UP, "the return")
        assert states[-1][1] - back < 1
        await eventually(lambda: heard[-1] > said_while_lost[-1] + 100, "the stream to go on")
        running = False
    assert [state for state, _ in states] == [BusState.LOST, BusState.UP]
    assert heard == sorted(heard)
    assert set(said_while_lost) <= set(heard)


async def test_held_back_only_as_far_as_memory_allows(server: NatsServer, bus: NatsBus) -> None:
    server.kill()
    await eventually(lambda: bus.state is BusState.LOST, "the loss")
    for _ in range(100):
        await bus.publish("a", bytes(10_000))
    with pytest.raises(BusLost, match="held back already"):
        await bus.publish("a", bytes(100_000))
    assert bus.counters.published == 100
    assert bus.counters.held_back_full == 1


async def test_requests_of_a_lost_bus(server: NatsServer, bus: NatsBus) -> None:
    await bus.subscribe("mute", lambda _: None)
    await bus.settle()
    async with anyio.create_task_group() as group:

        async def ask() -> None:
            with pytest.raises(BusLost):
                await bus.request("mute", b"", timeout=30)

        group.start_soon(ask)
        await eventually(lambda: bus._answers, "the question")
        server.kill()
    with pytest.raises(BusLost):
        await bus.request("mute", b"", timeout=0.1)
    with pytest.raises(BusLost):
        await bus.settle()
    async with anyio.create_task_group() as group:

        async def ask_early() -> None:
            with pytest.raises(NoResponders):
                await bus.request("nobody", b"", timeout=10)

        group.start_soon(ask_early)
        await anyio.to_thread.run_sync(server.start)


async def test_subscriptions_made_and_ended_while_lost(server: NatsServer, bus: NatsBus) -> None:
    first: list[Message] = []
    second: list[Message] = []
    old = await bus.subscribe("a", first.append)
    server.kill()
    await eventually(lambda: bus.state is BusState.LOST, "the loss")
    await old.close()
    await bus.subscribe("a", second.append)
    await anyio.to_thread.run_sync(server.start)
    await eventually(lambda: bus.state is BusState.UP, "the return")
    await bus.publish("a", b"")
    await bus.settle()
    assert (first, len(second)) == ([], 1)


async def test_a_listener_that_fails_stops_no_reconnecting(server: NatsServer, bus: NatsBus) -> None:
    def fail(_: BusState) -> None:
        raise ValueError

    end = bus.on_state(fail)
    server.kill()
    await eventually(lambda: bus.state is BusState.LOST, "the loss")
    end()
    end()
    await anyio.to_thread.run_sync(server.start)
    await eventually(lambda: bus.state is BusState.UP, "the return")


# The history and the last values.


async def test_keep_is_once_for_each_identity(kept: NatsBus) -> None:
    where = f"xen.v1.{HOST}.evt.domain.a.lifecycle"
    for identity in ("1", "2", "1", "2"):
        await kept.keep(where, identity.encode(), identity=identity)
    history = [k async for k in kept.history(f"xen.v1.{HOST}.evt.>")]
    assert [(k.number, k.subject, k.data) for k in history] == [(1, where, b"1"), (2, where, b"2")]
    assert abs(history[0].time - time.time()) < 60


async def test_keep_without_a_stream_for_it(bus: NatsBus) -> None:
    with pytest.raises(NotKept, match="Nobody answers"):
        await bus.keep(f"xen.v1.{HOST}.evt.host.a", b"", identity="1")
    assert bus.counters.not_kept == 1


async def test_keep_that_the_stream_refuses(nats_server: Start) -> None:
    server = nats_server()
    async with join(server) as bus:
        await bus.request(
            "$JS.API.STREAM.CREATE.T",
            b'{"name":"T","subjects":["t"],"storage":"memory","max_bytes":200,"discard":"new"}',
            timeout=5,
        )
        with pytest.raises(NotKept, match="maximum bytes exceeded"):
            await bus.keep("t", bytes(1000), identity="1")


async def test_history_from_a_number_or_a_time_over_many_batches(kept: NatsBus) -> None:
    for number in range(600):
        await kept.publish(f"xen.v1.{HOST}.evt.domain.{number % 2}.x", b"%d" % number)
    await kept.settle()
    pattern = f"xen.v1.{HOST}.evt.domain.1.*"
    everything = [k async for k in kept.history(pattern)]
    assert [int(k.data) for k in everything] == list(range(1, 600, 2))
    assert [k async for k in kept.history(pattern, number=everything[9].number)] == everything[10:]
    assert [k async for k in kept.history(pattern, time=everything[0].time - 60)] == everything
    assert [k async for k in kept.history(pattern, time=time.time() + 60)] == []
    assert [k async for k in kept.history("xen.v1.other.evt.>")] == []


async def test_history_of_what_was_audited(kept: NatsBus) -> None:
    await kept.keep(f"xen.v1.{HOST}.audit.domains.start", b"a", identity="1")
    assert [k.data async for k in kept.history(f"xen.v1.{HOST}.audit.>")] == [b"a"]
    assert [k async for k in kept.history(f"xen.v1.{HOST}.evt.>")] == []


async def test_history_ends_though_the_stream_grows(kept: NatsBus) -> None:
    subject = f"xen.v1.{HOST}.evt.host.a"
    for _ in range(299):
        await kept.publish(subject, b"")
    await kept.keep(
        subject, b"", identity="the last"
    )  # once it is kept, those before it are: settle says nothing of the stream
    count = 0
    async for _ in kept.history(subject):
        await kept.publish(subject, b"")
        count += 1
    assert 300 <= count < 1000


async def test_history_where_none_is_kept(bus: NatsBus) -> None:
    with pytest.raises(NoHistory):
        await anext(bus.history("xen.v1.h1.evt.>"))
    assert await bus.keys() == []


async def test_put_and_purge_are_heard_and_kept(kept: NatsBus) -> None:
    heard: list[tuple[str, bytes]] = []
    await kept.subscribe(f"xen.v1.{HOST}.state.>", lambda message: heard.append((message.subject, message.data)))
    await kept.put("domain.a", b"1")
    await kept.put("domain.b", b"2")
    await kept.put("domain.a", b"3")
    assert sorted(await kept.keys()) == ["domain.a", "domain.b"]
    await kept.purge("domain.a")
    assert await kept.keys() == ["domain.b"]
    await kept.settle()
    where = f"xen.v1.{HOST}.state"
    assert heard == [
        (f"{where}.domain.a", b"1"),
        (f"{where}.domain.b", b"2"),
        (f"{where}.domain.a", b"3"),
        (f"{where}.domain.a", b""),
    ]


async def test_without_jetstream_only_history_is_missing(nats_server: Start) -> None:
    async with join(nats_server(jetstream=False)) as bus:
        heard: list[tuple[str, bytes]] = []
        await bus.subscribe(f"xen.v1.{HOST}.>", lambda message: heard.append((message.subject, message.data)))
        await bus.put("domain.a", b"1")
        await bus.purge("domain.a")
        with pytest.raises(NotKept):
            await bus.keep(f"xen.v1.{HOST}.evt.host.a", b"2", identity="1")
        await bus.settle()
        assert heard == [
            (f"xen.v1.{HOST}.state.domain.a", b"1"),
            (f"xen.v1.{HOST}.state.domain.a", b""),
            (f"xen.v1.{HOST}.evt.host.a", b"2"),
        ]
        assert bus.counters.not_kept == 1
        assert await bus.keys() == []
        with pytest.raises(NoHistory):
            await anext(bus.history("xen.v1.h1.evt.>"))


# Connecting and closing.


async def test_no_server_before_the_deadline() -> None:
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConnectFailed) as error:
        async with connect(f"nats://127.0.0.1:{port}", user="t", host=HOST, deadline=0.3):
            pass
    assert 0.2 < time.monotonic() - began < 2
    assert "refused" in error.value.sentence.lower() or "connect" in error.value.sentence.lower()


async def test_a_server_that_comes_late_is_met(server: NatsServer) -> None:
    server.kill()
    async with anyio.create_task_group() as group:

        async def late() -> None:
            await anyio.sleep(0.3)
            await anyio.to_thread.run_sync(server.start)

        group.start_soon(late)
        async with join(server) as bus:
            await bus.settle()


async def test_a_server_that_refuses_us_is_told_at_once() -> None:
    async with fake_server() as fake:
        fake.refuse = b"-ERR 'Authorization Violation'\r\n"
        began = time.monotonic()
        with pytest.raises(ConnectFailed, match="does not know this user's key"):
            async with join(fake, deadline=30):
                pass
        assert time.monotonic() - began < 5


async def test_a_seed_that_is_none(tmp_path: Any) -> None:
    with pytest.raises(KeyFileError):
        async with connect("nats://127.0.0.1:1", user="t", host=HOST, seed=b"nonsense"):
            pass
    with pytest.raises(KeyFileError, match="absent"):
        async with connect("nats://127.0.0.1:1", user="t", host=HOST, seed=tmp_path / "absent"):
            pass


async def test_the_callers_own_error_comes_out_as_it_is(server: NatsServer) -> None:
    with pytest.raises(LookupError):
        async with join(server):
            raise LookupError


async def test_closed(server: NatsServer) -> None:
    async with join(server) as other:
        heard: list[bytes] = []
        await other.subscribe("a", lambda message: heard.append(message.data))
        await other.settle()
        async with join(server) as bus:
            states: list[BusState] = []
            bus.on_state(states.append)
            for number in range(100):
                await bus.publish("a", b"%d" % number)
        assert bus.state is BusState.CLOSED
        assert states == [BusState.CLOSED]
        await other.settle()
        assert len(heard) == 100
        for refused in (
            lambda: bus.publish("a", b""),
            lambda: bus.subscribe("a", lambda _: None),
            lambda: bus.request("a", b"", timeout=1),
            bus.settle,
            lambda: bus.keep("a", b"", identity="1"),
            lambda: bus.put("a", b""),
            bus.keys,
        ):
            with pytest.raises(BusClosed):
                await refused()
        await bus.close()


async def test_close_is_bounded_and_cannot_be_cancelled_halfway(server: NatsServer) -> None:
    async with join(server) as bus:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with anyio.move_on_after(0.1):
                await bus.close()
            assert bus.state is BusState.CLOSED
            assert time.monotonic() - began < 7
        finally:
            os.kill(server.pid, signal.SIGCONT)
