"""One connection: batching, cancellation and the end, against a server side made of the same protocol."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import anyio
import pytest
from rigs.waiting import eventually

from xenmesh.xen.xenstore.session import Session
from xenmesh.xen.xenstore.transport import SocketTransport
from xenmesh.xenstore.errors import (
    NotFoundError,
    OutcomeUnknown,
    PathError,
    ProtocolError,
    ServerError,
    XenstoreError,
)
from xenmesh.xenstore.messages import Read, TransactionStart, Watch, WatchEvent
from xenmesh.xenstore.packets import Op, Packet, Parser, encode


class Peer:
    """The other end of a socket pair, answering by hand."""

    def __init__(self) -> None:
        ours, self.sock = socket.socketpair()
        self.sock.setblocking(False)
        self._parser = Parser()
        self.packets: list[Packet] = []
        self.events: list[WatchEvent] = []
        self.losses: list[XenstoreError] = []
        self.session = Session(SocketTransport(ours), self.events.append, lambda _, error: self.losses.append(error))

    def receive(self) -> list[Packet]:
        with suppress(BlockingIOError):
            self.packets += self._parser.feed(self.sock.recv(1 << 20))
        return self.packets

    async def packet(self) -> Packet:
        await eventually(self.receive, "a request")
        return self.packets.pop(0)

    def say(self, *packets: Packet) -> None:
        self.sock.sendall(b"".join(map(encode, packets)))


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    yield peer
    peer.session.lose(XenstoreError("the test is over"))
    peer.sock.close()


async def test_the_first_request_leaves_at_once(peer: Peer) -> None:
    future = peer.session.send(Read("/a"))

    (packet,) = peer.receive()
    peer.say(Packet(Op.READ, packet.req_id, 0, b"v"))
    assert await future == b"v"


async def test_requests_of_one_turn_leave_in_one_write(peer: Peer) -> None:
    futures = [peer.session.send(Read("/a")) for _ in range(5)]
    assert len(peer.receive()) == 1

    await asyncio.sleep(0)

    assert len(peer.receive()) == 5
    peer.say(*(Packet(Op.READ, packet.req_id, 0, b"v") for packet in reversed(peer.packets)))
    assert await asyncio.gather(*futures) == [b"v"] * 5


async def test_many_answers_in_order_with_their_refusals(peer: Peer) -> None:
    async with anyio.create_task_group() as group:
        answers: list[bytes | ServerError] = []

        async def ask() -> None:
            answers.extend(await peer.session.answers([Read("/a"), Read("/b"), Read("/c")]))

        group.start_soon(ask)
        await eventually(lambda: len(peer.receive()) == 3, "the requests")
        first, second, third = (packet.req_id for packet in peer.packets)
        peer.say(
            Packet(Op.READ, third, 0, b"3"),
            Packet(Op.ERROR, second, 0, b"ENOENT\0"),
            Packet(Op.READ, first, 0, b"1"),
        )

    assert answers[0] == b"1"
    assert isinstance(answers[1], NotFoundError)
    assert answers[2] == b"3"
    assert await peer.session.answers([]) == []


async def test_one_bad_message_among_many(peer: Peer) -> None:
    with pytest.raises(PathError):
        await peer.session.answers([Read("/a"), Read("no good")])

    packet = await peer.packet()
    peer.say(Packet(Op.READ, packet.req_id, 0, b""))


async def test_an_answer_to_a_task_that_left(peer: Peer) -> None:
    with anyio.move_on_after(0.01):
        await peer.session.send(Read("/a"))
    late = await peer.packet()
    future = peer.session.send(Read("/b"))
    packet = await peer.packet()

    peer.say(Packet(Op.READ, late.req_id, 0, b"late"), Packet(Op.READ, packet.req_id, 0, b"v"))

    assert await future == b"v"


async def test_a_refusal_to_a_task_that_left(peer: Peer) -> None:
    with anyio.move_on_after(0.01):
        await peer.session.answers([Read("/a")])
    with anyio.move_on_after(0.01):
        await peer.session.send(Read("/a"))
    ids = [(await peer.packet()).req_id for _ in range(2)]

    peer.say(*(Packet(Op.ERROR, req_id, 0, b"ENOENT\0") for req_id in ids))

    await eventually(lambda: not peer.session._waiters, "the answers")


async def test_a_transaction_whose_task_left_is_ended(peer: Peer) -> None:
    # else the id would stay open: ten of them are a guest's quota
    with anyio.move_on_after(0.01):
        await peer.session.send(TransactionStart())
    start = await peer.packet()

    peer.say(Packet(Op.TRANSACTION_START, start.req_id, 0, b"17\0"))

    end = await peer.packet()
    assert (end.op, end.tx_id, end.payload) == (Op.TRANSACTION_END, 17, b"F\0")
    peer.say(Packet(Op.TRANSACTION_END, end.req_id, 0, b"OK\0"))


async def test_the_window_moves_on(peer: Peer) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(peer.session.answers, [Read("/a")] * 300)
        done = 0
        while done < 300:
            packet = await peer.packet()
            assert len(peer.packets) < 128
            peer.say(Packet(Op.READ, packet.req_id, 0, b""))
            done += 1


async def test_watch_events_go_their_own_way(peer: Peer) -> None:
    future = peer.session.send(Watch("/a", b"t"))
    packet = await peer.packet()
    peer.say(Packet(Op.WATCH_EVENT, 0, 0, b"/a\0t\0"), Packet(Op.WATCH, packet.req_id, 0, b"OK\0"))

    await future
    assert peer.events == [WatchEvent("/a", b"t")]
    assert peer.session.stray_events == 0


async def test_the_end_fails_all_that_is_under_way(peer: Peer) -> None:
    future = peer.session.send(Read("/a"))
    peer.sock.close()

    with pytest.raises(OutcomeUnknown):
        await future
    assert not peer.session.open
    assert len(peer.losses) == 1
    peer.session.post(Read("/a"))


async def test_a_peer_out_of_step_is_left(peer: Peer) -> None:
    future = peer.session.send(Read("/a"))
    peer.say(Packet(Op.READ, 4711, 0, b""))

    with pytest.raises(OutcomeUnknown):
        await future
    assert isinstance(peer.losses[0], ProtocolError)
    await peer.packet()
    assert peer.sock.recv(1) == b""
