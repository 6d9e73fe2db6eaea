"""The descriptors: a socket pair, and a stand-in for the xenbus device with the kernel's manners."""

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from rigs.waiting import eventually
from rigs.xenstored import Xenstored

from xenmesh.xen.xenstore import transport as transport_module
from xenmesh.xen.xenstore.transport import (
    DEVICES,
    SOCKETS,
    DeviceTransport,
    SocketTransport,
    Transport,
    endpoints,
    open_transport,
)
from xenmesh.xenstore.client import Event, Failure, Reply
from xenmesh.xenstore.errors import LinkError, UnreachableError
from xenmesh.xenstore.messages import Read, Unwatch, Watch, WatchEvent, Write
from xenmesh.xenstore.packets import HEADER_SIZE, Op, Packet, Parser, encode


class Ends:
    """What a transport told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.losses: list[LinkError] = []


@pytest.fixture
def ends() -> Ends:
    return Ends()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def received(sock: socket.socket) -> bytes:
    data = b""
    try:
        while chunk := sock.recv(1 << 20):
            data += chunk
    except BlockingIOError:
        pass
    return data


# -- where


def test_endpoints_are_those_of_libxenstore() -> None:
    assert endpoints({"XENSTORED_PATH": "/p", "XENSTORED_RUNDIR": "/r"}) == ("/p",)
    assert endpoints({"XENSTORED_RUNDIR": "/r"}) == ("/r/socket", *DEVICES)
    assert endpoints({}) == (*SOCKETS, *DEVICES)
    assert SOCKETS == ("/run/xenstored/socket", "/var/run/xenstored/socket")
    assert DEVICES[0] == "/dev/xen/xenbus"


async def test_nothing_there_names_what_was_tried(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XENSTORED_PATH", str(short_dir / "socket"))

    with pytest.raises(UnreachableError, match="No such file") as caught:
        await open_transport()
    assert caught.value.facts["tried"] == str(short_dir / "socket")


async def test_a_dead_socket_is_unreachable(short_dir: Path) -> None:
    path = short_dir / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    with pytest.raises(UnreachableError, match="refused"):
        await open_transport(str(path))


async def test_a_full_backlog_is_waited_for(short_dir: Path) -> None:
    # C xenstored listens with a backlog of one: two clients that start together meet it
    path = short_dir / "socket"
    opened: list[Transport] = []
    accepted: list[socket.socket] = []

    async def open_one() -> None:
        opened.append(await open_transport(str(path)))

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(open_one)
            await eventually(lambda: opened, "the first")
            assert len(opened) < 8
            while len(accepted) < 8:
                accepted.append(server.accept()[0])
                await eventually(lambda: len(opened) > len(accepted) or len(opened) == 8, "the next")
    for end in (*opened, *accepted):
        end.close()


async def test_a_backlog_that_stays_full_is_unreachable(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "BACKLOG_PATIENCE", 0.01)
    path = short_dir / "socket"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(str(path))
        server.listen(0)
        first.connect(str(path))

        with pytest.raises(UnreachableError, match="temporarily"):
            await open_transport(str(path))


async def test_a_socket_is_taken_for_a_socket(xenstored: Xenstored, monkeypatch: pytest.MonkeyPatch, ends: Ends) -> None:
    monkeypatch.setenv("XENSTORED_PATH", str(xenstored.socket))
    transport = await open_transport()
    transport.start(ends.events.extend, ends.losses.append)

    transport.connection.request(Read("/nope"))
    transport.flush()

    await eventually(lambda: ends.events, "an answer")
    assert isinstance(ends.events[0], Failure)
    transport.close()


async def test_anything_else_is_taken_for_the_device(short_dir: Path) -> None:
    os.mkfifo(short_dir / "xenbus")

    transport = await open_transport(str(short_dir / "xenbus"), portable=True)

    assert isinstance(transport, DeviceTransport)
    assert transport.connection.portable
    assert transport.connection.link.kernel
    os.close(transport._fd)


# -- the socket


async def test_what_the_socket_does_not_take_at_once_follows(pair: tuple[socket.socket, socket.socket], ends: Ends) -> None:
    ours, theirs = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    transport = SocketTransport(ours)
    transport.start(ends.events.extend, ends.losses.append)
    for _ in range(300):
        transport.connection.request(Write("/a", b"x" * 4000))
        transport.flush()
    parser = Parser()
    packets: list[Packet] = []

    def more() -> bool:
        for packet in parser.feed(received(theirs)):
            packets.append(packet)
            theirs.sendall(encode(Packet(packet.op, packet.req_id, 0, b"OK\0")))
        transport.flush()
        return len(ends.events) == 300

    await eventually(more, "all answers")

    assert [packet.req_id for packet in packets] == list(range(1, 301))
    transport.close()


async def test_the_end_of_the_socket(pair: tuple[socket.socket, socket.socket], ends: Ends) -> None:
    ours, theirs = pair
    transport = SocketTransport(ours)
    transport.start(ends.events.extend, ends.losses.append)
    theirs.close()

    await eventually(lambda: ends.losses, "the loss")
    transport.flush()
    transport.close()

    assert [error.facts["reason"] for error in ends.losses] == ["closed by xenstored"]


async def test_a_write_to_a_socket_that_is_gone(pair: tuple[socket.socket, socket.socket], ends: Ends) -> None:
    ours, theirs = pair
    transport = SocketTransport(ours)
    transport.start(ends.events.extend, ends.losses.append)
    theirs.close()
    transport.connection.request(Read("/a"))

    transport.flush()

    assert len(ends.losses) == 1


# -- the device


class Device:
    """The kernel's end: one message a write, WATCH and UNWATCH answered here, refusals by errno of the write.

    One buffer holds the payload of the last write; other requests are sent, from that buffer, by a thread of the kernel's own, later.
    """

    def __init__(self, *, old: bool = False) -> None:
        self.ours, self._kernel = socket.socketpair()
        self._kernel.setblocking(False)
        self.old = old
        self.writes: list[bytes] = []
        self.failing: OSError | None = None
        self._buffer = b""

    def write(self, fd: int, data: bytes) -> int:
        assert fd == self.ours.fileno()
        self.writes.append(data)
        if self.failing:
            raise self.failing
        if len(data) > 4096:
            raise OSError(errno.E2BIG, "too big")
        op, req_id = data[0], int.from_bytes(data[4:8], "little")
        # Anything after the first message would be lost.
        assert len(data) == HEADER_SIZE + int.from_bytes(data[12:16], "little")
        if op == Op.WATCH:
            path, token, _ = data[HEADER_SIZE:].split(b"\0")
            if path == b"/secret":
                raise OSError(errno.EACCES, "refused")
            # The event overtakes the OK, and its header is garbage.
            self.say(Packet(Op.WATCH_EVENT, 0xDEAD, 0xBEEF, path + b"\0" + token + b"\0"))
        if op in (Op.WATCH, Op.UNWATCH):
            self.say(Packet(op, 0 if self.old else req_id, 0, b"OK\0"))
        else:
            asyncio.get_running_loop().call_later(0.001, self._send, op, req_id)
        self._buffer = data[HEADER_SIZE:]
        return len(data)

    def _send(self, op: int, req_id: int) -> None:
        if self._kernel.fileno() >= 0:
            self.say(Packet(op, req_id, 0, b"value of " + self._buffer.rstrip(b"\0")))

    def say(self, packet: Packet) -> None:
        self._kernel.send(encode(packet))

    def close(self) -> None:
        self._kernel.close()
        self.ours.detach()


@pytest.fixture(params=[False, True], ids=["new", "old"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    device = Device(old=request.param)
    yield device
    device.close()


@pytest.fixture
async def transport(device: Device) -> DeviceTransport:
    transport = DeviceTransport(os.dup(device.ours.fileno()), write=lambda _, d: device.write(device.ours.fileno(), d))
    os.set_blocking(transport._fd, False)
    return transport


async def test_watch_and_unwatch_through_the_device(device: Device, transport: DeviceTransport, ends: Ends) -> None:
    transport.start(ends.events.extend, ends.losses.append)
    watch, unwatch = Watch("/a", b"t"), Unwatch("/a", b"t")
    first = transport.connection.request(watch)
    transport.flush()
    await eventually(lambda: len(ends.events) == 2, "event and OK")
    assert ends.events == [WatchEvent("/a", b"t"), Reply(first, watch, b"OK\0")]

    second = transport.connection.request(unwatch)
    transport.flush()
    await eventually(lambda: len(ends.events) == 3, "OK")
    assert ends.events[2] == Reply(second, unwatch, b"OK\0")
    transport.close()


async def test_a_watch_refused_by_errno(device: Device, transport: DeviceTransport, ends: Ends) -> None:
    transport.start(ends.events.extend, ends.losses.append)
    refused = transport.connection.request(Watch("/secret", b"t"))
    read = transport.connection.request(Read("/a"))
    transport.flush()
    assert ends.events == [], "not within the call that makes the request"

    def done() -> bool:
        transport.flush()
        return len(ends.events) == 2

    await eventually(done, "both outcomes")

    by_id = {event.req_id: event for event in ends.events if isinstance(event, Reply | Failure)}
    failure = by_id[refused]
    assert isinstance(failure, Failure)
    assert failure.error.code == "EACCES"
    assert by_id[read] == Reply(read, Read("/a"), b"value of /a")
    assert len(device.writes) == 2
    transport.close()


async def test_each_request_on_the_device_gets_its_own_answer(transport: DeviceTransport, ends: Ends) -> None:
    transport.start(ends.events.extend, ends.losses.append)
    asked = [transport.connection.request(Read(f"/{n}")) for n in range(20)]
    transport.flush()

    def done() -> bool:
        transport.flush()
        return len(ends.events) == 20

    await eventually(done, "all answers")

    assert ends.events == [Reply(req_id, Read(f"/{n}"), b"value of /%d" % n) for n, req_id in enumerate(asked)]
    transport.close()


async def test_the_device_is_never_polled_for_writing(
    device: Device, transport: DeviceTransport, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the kernel never reports it writable
    monkeypatch.setattr(transport._loop, "add_writer", lambda *_: pytest.fail("would never fire"), raising=False)
    transport.start(ends.events.extend, ends.losses.append)
    transport.connection.request(Read("/a"))
    transport.flush()
    await eventually(lambda: ends.events, "an answer")
    transport.close()


async def test_the_device_goes(device: Device, transport: DeviceTransport, ends: Ends) -> None:
    transport.start(ends.events.extend, ends.losses.append)
    device.failing = OSError(errno.ENODEV, "gone")
    transport.connection.request(Read("/a"))

    transport.flush()
    transport.close()

    assert [error.facts["reason"] for error in ends.losses] == ["gone"]


async def test_the_end_of_the_devices_file(device: Device, transport: DeviceTransport, ends: Ends) -> None:
    transport.start(ends.events.extend, ends.losses.append)
    device._kernel.close()

    await eventually(lambda: ends.losses, "the loss")
    assert ends.losses[0].facts["reason"] == "end of file"


async def test_a_refusal_that_comes_after_the_end(device: Device, transport: DeviceTransport, ends: Ends) -> None:
    transport.start(ends.events.extend, ends.losses.append)
    transport.connection.request(Watch("/secret", b"t"))
    transport.flush()
    transport.close()
    transport._refused(1, "EACCES")

    assert ends.events == []


async def test_a_plain_file_is_no_device(short_dir: Path, ends: Ends) -> None:
    (short_dir / "file").touch()
    transport = await open_transport(str(short_dir / "file"))

    with pytest.raises(UnreachableError):
        transport.start(ends.events.extend, ends.losses.append)


async def test_reads_that_find_nothing(
    pair: tuple[socket.socket, socket.socket], transport: DeviceTransport, ends: Ends
) -> None:
    # epoll may wake for nothing
    plain = SocketTransport(pair[0])
    for either in (plain, transport):
        either.start(ends.events.extend, ends.losses.append)
        either._readable()
        either.close()

    assert not ends.losses


async def test_errors_of_reading_are_losses(pair: tuple[socket.socket, socket.socket], device: Device, ends: Ends) -> None:
    plain = SocketTransport(pair[0])
    plain.start(ends.events.extend, ends.losses.append)
    plain.connection.request(Read("/a"))
    plain.flush()
    pair[1].close()  # with our request unread: ECONNRESET, as of a killed xenstored
    await eventually(lambda: ends.losses, "the reset")

    reader, writer = os.pipe()
    os.close(reader)
    blind = DeviceTransport(writer)
    blind.start(ends.events.extend, ends.losses.append)
    blind._readable()

    assert [error.facts["reason"] for error in ends.losses] == ["Connection reset by peer", "Bad file descriptor"]
