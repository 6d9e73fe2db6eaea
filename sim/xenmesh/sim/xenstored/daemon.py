"""The engine on real sockets: DIR/socket speaks for dom0, DIR/socket.<domid> for a guest.

async with Daemon(directory, dialect=OCAML) as daemon:
    ...                                # XENSTORED_PATH=DIR/socket xenstore-ls
"""

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Self, cast

from xenmesh.sim.errors import PathTooLong, SocketInUse, SocketRefused
from xenmesh.sim.xenstored.control import Control
from xenmesh.sim.xenstored.dialect import C, Dialect
from xenmesh.sim.xenstored.faults import Faults
from xenmesh.sim.xenstored.store import Client, Store
from xenmesh.xenstore.errors import FramingError
from xenmesh.xenstore.server import Incoming

__all__ = ["Daemon", "claim"]

_PATH_MAX = 107
_ROUNDS = 8
_DOM0_BUFFER = 1 << 20


class Daemon:
    """A xenstored in this event loop. `store` is its engine, `faults` what it does wrong."""

    def __init__(self, directory: Path, dialect: Dialect = C, exists: Callable[[int], bool] = lambda _: True) -> None:
        self.directory = directory
        self.store = Store(dialect, exists)
        self.faults = Faults()
        self.control = Control(self.store, self.faults, self.cut)
        self.store.control = self.control.answer
        self.store.on_busy = self._flush_soon
        self.store.on_drop = self._drop
        self._links: dict[Client, _Link] = {}
        self._servers: list[tuple[Path, asyncio.Server]] = []
        self._flush_due = False
        self.closed = False

    @property
    def path(self) -> Path:
        """Of the socket of dom0."""
        return self.directory / "socket"

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def listen(self, domid: int = 0) -> Path:
        """Open the socket of a domain, and return its path. Raises PathTooLong, SocketInUse, SocketRefused."""
        self.closed = False
        path = self.path if domid == 0 else self.directory / f"socket.{domid}"
        loop = asyncio.get_running_loop()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            claim(path)
            server = await loop.create_unix_server(lambda: _Link(self, domid), str(path), backlog=1024)
            path.chmod(0o600)
        except OSError as error:
            raise SocketRefused(str(path), error.strerror or str(error)) from error
        self._servers.append((path, server))
        return path

    async def connect(self, domid: int) -> socket.socket:
        """Return the client's end of a new connection of domain `domid`."""
        ours, theirs = socket.socketpair()
        await asyncio.get_running_loop().connect_accepted_socket(lambda: _Link(self, domid), ours)
        return theirs

    async def close(self) -> None:
        """End every connection, and take the sockets away."""
        self.closed = True
        servers, self._servers = self._servers, []
        for _ in range(_ROUNDS):  # a connection that is just being accepted is ended as it is made
            await asyncio.sleep(0)
        for path, server in servers:
            server.close()
            path.unlink(missing_ok=True)
        self.cut(None)
        for _, server in servers:
            await server.wait_closed()
        # Transports close in the loop's next rounds.
        for _ in range(_ROUNDS):
            await asyncio.sleep(0)

    def cut(self, domid: int | None) -> None:
        """End the connections of one domain, or of all."""
        for client in list(self._links):
            if domid is None or client.domid == domid:
                self._drop(client)

    def _drop(self, client: Client) -> None:
        link = self._links.get(client)
        if link is not None:
            link.abort()

    def _flush_soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_due = False
        self.flush()

    def flush(self) -> None:
        """Write what waits, to whoever takes it."""
        if self.faults.stall:
            return
        busy = self.store.busy
        while busy:
            client = busy.pop()
            link = self._links.get(client)
            if link is not None:
                link.send()


class _Link(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, daemon: Daemon, domid: int) -> None:
        self._daemon = daemon
        self._domid = domid
        self._client: Client | None = None
        self._transport: asyncio.Transport | None = None
        self._blocked = False
        self._deadline: asyncio.TimerHandle | None = None
        self._delayed = 0
        self._requests: deque[Incoming] = deque()
        """Read, and not yet done: the client has as many answers outstanding as it may."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        daemon = self._daemon
        self._transport = transport = cast("asyncio.Transport", transport)
        if daemon.faults.refuse or daemon.closed:
            transport.abort()
            return
        self._client = client = daemon.store.connect(self._domid)
        # What a guest does not take stays with us, where it is counted.
        transport.set_write_buffer_limits(0 if client.domid else _DOM0_BUFFER)
        daemon._links[client] = self  # noqa: SLF001 - the two are one thing

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._deadline is not None:
            self._deadline.cancel()
        if self._client is not None:
            self._daemon._links.pop(self._client, None)  # noqa: SLF001
            self._daemon.store.disconnect(self._client)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        client = self._client
        if client is None or self._transport is None or self._transport.is_closing():
            return
        try:
            self._requests += client.wire.receive_data(data)
        except FramingError:
            self.abort()
            return
        self._work()

    def _work(self) -> None:
        """Do the requests that wait, as far as the client takes their answers; then read on."""
        client, store, transport = self._client, self._daemon.store, self._transport
        while self._requests:
            if client is None or transport is None or transport.is_closing() or client not in store.clients:
                return
            most = store.limit(client, "outstanding")
            if most is not None and client.wire.queued >= most:
                self._daemon.flush()
                if client.wire.queued >= most:
                    transport.pause_reading()
                    return
            store.handle(client, self._requests.popleft())
        self._daemon.flush()
        if client is not None and client.wire.closed:
            self.abort()
        elif transport is not None and not transport.is_closing():
            transport.resume_reading()

    def _go_on(self) -> None:
        if self._requests:
            asyncio.get_running_loop().call_soon(self._work)

    def send(self) -> None:
        """Write what waits, unless the client does not take it: then it stays, and counts against its quotas."""
        client, transport = self._client, self._transport
        if client is None or transport is None or self._blocked or transport.is_closing():
            return
        faults = self._daemon.faults
        if not faults.delay and not self._delayed:
            self._write()
        else:
            self._delayed += 1
            asyncio.get_running_loop().call_later(faults.delay, self._write_delayed)

    def _write_delayed(self) -> None:
        self._delayed -= 1
        if not self._daemon.faults.stall:
            self._write()
        elif self._client is not None:
            self._daemon.store.busy.add(self._client)

    def _write(self) -> None:
        client, transport = self._client, self._transport
        if client is None or transport is None or transport.is_closing():
            return
        faults = self._daemon.faults
        if not faults.any:
            data = client.wire.data_to_send()
            if data:
                transport.write(data)
                self._go_on()
            return
        frames = client.wire.frames_to_send()
        if not frames:
            return
        pieces, cut = faults.shape(frames)
        for piece in pieces:
            transport.write(piece)
        if cut:
            transport.close()
        self._go_on()

    def abort(self) -> None:
        """End the connection now, with what could still be written."""
        if self._transport is not None:
            if self._client is not None and not self._daemon.faults.stall:
                self._write()
            self._transport.close()

    def pause_writing(self) -> None:
        self._blocked = True
        if self._transport is None or self._client is None:
            return
        unread = self._daemon.store.limit(self._client, "unread")
        if unread is not None:
            self._deadline = asyncio.get_running_loop().call_later(unread, self._transport.abort)

    def resume_writing(self) -> None:
        self._blocked = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._transport is not None and not self._transport.is_closing():
            self.send()
            self._work()


def claim(path: Path) -> None:
    """Make room for a socket: a dead server's is removed, any other file is not.

    Raises PathTooLong, SocketInUse, SocketRefused; OSError if the file cannot be looked at.
    """
    length = len(os.fsencode(path))
    if length > _PATH_MAX:
        raise PathTooLong(str(path), length, _PATH_MAX)
    if not path.exists():
        return
    if not path.is_socket():
        raise SocketRefused(str(path), "a file that is no socket is in its place")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        else:
            raise SocketInUse(str(path))
