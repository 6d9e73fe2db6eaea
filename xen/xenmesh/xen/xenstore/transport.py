"""How bytes reach xenstored: the unix socket, or /dev/xen/xenbus.

A transport moves bytes between a descriptor and a `ClientConnection`, and hands on what came out of it. Reading is a
callback of the event loop's; writing happens at once, in the caller: a task in between would cost more than the request.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import anyio

from xenmesh.xenstore.client import DEVICE, SOCKET, ClientConnection, Event
from xenmesh.xenstore.errors import LinkError, UnreachableError

__all__ = ["DeviceTransport", "SocketTransport", "Transport", "endpoints", "open_transport"]

_READ_SIZE = 64 * 1024
"""Above 128 KiB malloc would map and unmap memory at each read."""

SOCKETS = ("/run/xenstored/socket", "/var/run/xenstored/socket")
DEVICES = ("/dev/xen/xenbus", "/proc/xen/xenbus", "/dev/xen/xenstore", "/kern/xen/xenbus")
"""Linux, older Linux, FreeBSD, NetBSD."""

BACKLOG_PAUSE = 0.002
BACKLOG_PATIENCE = 2.0
"""Seconds between attempts, and in all, while the server has yet to accept others."""

OnEvents = Callable[[list[Event]], None]
OnLost = Callable[[LinkError], None]


class Transport(Protocol):
    """Carries one connection. Both callbacks come from the event loop or from within `flush`."""

    connection: ClientConnection

    def start(self, on_events: OnEvents, on_lost: OnLost) -> None:
        """Begin to read; `on_lost` is called once at most, and not after `close`."""

    def flush(self) -> None:
        """Send what the connection has to send."""

    def close(self) -> None:
        """Let go of the descriptor."""


def endpoints(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return where xenstored may be found, in the order of libxenstore's: its variables, its sockets, the devices."""
    environment = os.environ if environment is None else environment
    if path := environment.get("XENSTORED_PATH"):
        return (path,)
    if rundir := environment.get("XENSTORED_RUNDIR"):
        return (f"{rundir}/socket", *DEVICES)
    return (*SOCKETS, *DEVICES)


async def open_transport(path: str | None = None, *, portable: bool = False) -> Transport:
    """Connect to `path`, a socket or a device, or to the first of `endpoints()` that answers.

    Raises UnreachableError, which names what was tried.
    """
    tried = (path,) if path is not None else endpoints()
    reasons = []
    for candidate in tried:
        try:
            if _is_socket(candidate):
                return SocketTransport(await _connected(candidate), portable=portable)
            fd = os.open(candidate, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            return DeviceTransport(fd, portable=portable)
        except OSError as error:
            reasons.append(f"{candidate}: {error.strerror or error}")
    raise UnreachableError(f"no xenstored can be reached ({'; '.join(reasons)})", tried=" ".join(tried))


def _is_socket(path: str) -> bool:
    return stat.S_ISSOCK(Path(path).stat().st_mode)


async def _connected(path: str) -> socket.socket:
    # A unix socket connects at once, or says EAGAIN while the server's backlog is full; C xenstored's holds one or two.
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        patience = BACKLOG_PATIENCE
        while True:
            try:
                sock.connect(path)
            except BlockingIOError:
                if patience <= 0:
                    raise
                await anyio.sleep(BACKLOG_PAUSE)
                patience -= BACKLOG_PAUSE
            else:
                return sock
    except BaseException:
        sock.close()
        raise


class SocketTransport:
    """The unix socket: a plain byte stream."""

    def __init__(self, sock: socket.socket, *, portable: bool = False) -> None:
        sock.setblocking(False)
        self.connection = ClientConnection(SOCKET, portable=portable)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._unsent = b""
        self._open = True

    def start(self, on_events: OnEvents, on_lost: OnLost) -> None:
        """Begin to read."""
        self._on_events, self._on_lost = on_events, on_lost
        self._loop.add_reader(self._sock.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        if not data:
            self._lose("closed by xenstored")
            return
        self._on_events(self.connection.receive_data(data))

    def flush(self) -> None:
        """Send at once what the socket takes, the rest when it can take more."""
        if not self._open or self._unsent:
            return
        data = self.connection.data_to_send()
        if data:
            self._send(data)

    def _send(self, data: bytes) -> None:
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        if sent < len(data):
            if not self._unsent:
                self._loop.add_writer(self._sock.fileno(), self._writable)
            self._unsent = data[sent:]
        elif self._unsent:
            self._loop.remove_writer(self._sock.fileno())
            self._unsent = b""
            self.flush()

    def _writable(self) -> None:
        self._send(self._unsent)

    def _lose(self, reason: str) -> None:
        self.close()
        self._on_lost(LinkError(f"connection to xenstored lost: {reason}", reason=reason))

    def close(self) -> None:
        """Close the socket; xenstored drops its watches and transactions."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()


class DeviceTransport:
    """Linux's xenbus device, which is no plain pipe.

    One message a write, else the kernel drops the rest; never polled for writing, since it is never reported writable; a
    WATCH that xenstored refuses comes back as the errno of the write. Source: xenbus_dev_frontend.c.
    `write` stands in for os.write in tests.
    """

    def __init__(
        self,
        fd: int,
        *,
        portable: bool = False,
        write: Callable[[int, bytes], int] = os.write,
    ) -> None:
        self.connection = ClientConnection(DEVICE, portable=portable)
        self._fd = fd
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._open = True

    def start(self, on_events: OnEvents, on_lost: OnLost) -> None:
        """Begin to read. Raises UnreachableError for a file that is no device."""
        self._on_events, self._on_lost = on_events, on_lost
        try:
            self._loop.add_reader(self._fd, self._readable)
        except PermissionError:
            os.close(self._fd)
            raise UnreachableError("neither a socket nor a device that can be polled") from None

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, _READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        if not data:
            self._lose("end of file")
            return
        self._on_events(self.connection.receive_data(data))

    def flush(self) -> None:
        """Write the messages that are due, each by itself."""
        while self._open and (frame := self.connection.next_frame()):
            req_id, data = frame
            try:
                self._write(self._fd, data)
            except OSError as error:
                if error.errno in (errno.EBADF, errno.ENODEV, errno.ENXIO):
                    self._lose(error.strerror or str(error))
                    return
                code = errno.errorcode.get(error.errno or 0, "EIO")
                # Not from within the caller's own request: it has yet to learn its req_id.
                self._loop.call_soon(self._refused, req_id, code)

    def _refused(self, req_id: int, code: str) -> None:
        if self._open:
            self._on_events(self.connection.refused(req_id, code))

    def _lose(self, reason: str) -> None:
        self.close()
        self._on_lost(LinkError(f"connection to the xenbus device lost: {reason}", reason=reason))

    def close(self) -> None:
        """Close the device; the kernel drops our watches and transactions."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
