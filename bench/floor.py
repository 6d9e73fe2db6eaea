"""The floors, as small programs of their own: what the same work costs with nothing of ours between.

``watch SOCKET PATH`` sets one watch on a raw socket; for each event it reads the node and prints when it had the value.
``hop URL SUBJECT`` publishes its clock on a bare NATS connection for each line it is given.
``client SOCKET COUNT ROOT...`` watches the roots with our own client alone and ends when it has read COUNT different nodes.

Clocks are ``time.monotonic_ns``, one for all processes of a machine.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
import time

HEADER = struct.Struct("=IIII")
READ, WATCH, WATCH_EVENT = 2, 4, 15


def frame(op: int, payload: bytes) -> bytes:
    """One request of the protocol."""
    return HEADER.pack(op, 1, 0, len(payload)) + payload


def exactly(connection: socket.socket, size: int) -> bytes:
    """That many bytes."""
    data = connection.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise SystemExit("xenstored went away")
    return data


def receive(connection: socket.socket) -> tuple[int, bytes]:
    """The next frame: its type and payload."""
    op, _, _, size = HEADER.unpack(exactly(connection, HEADER.size))
    return op, exactly(connection, size) if size else b""


def watch(path: str, node: str) -> None:
    """Print the clock after each event and the read that follows it."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.sendall(frame(WATCH, node.encode() + b"\0t\0"))
    while True:
        op, payload = receive(connection)
        if op != WATCH_EVENT:
            continue
        connection.sendall(frame(READ, payload.split(b"\0")[0] + b"\0"))
        while op != READ:
            op, payload = receive(connection)
        os.write(1, b"%d\n" % time.monotonic_ns())


async def hop(url: str, subject: str) -> None:
    """Publish the clock for each line of standard input."""
    import nats

    connection = await nats.connect(url)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    os.write(1, b"ready\n")
    while await lines.readline():
        await connection.publish(subject, b"%d" % time.monotonic_ns())


async def client(path: str, count: int, roots: list[str]) -> None:
    """Read every node that changes below ``roots`` until ``count`` different ones were read; print the clock then."""
    from xenmesh.xen.xenstore.client import Xenstore
    from xenmesh.xen.xenstore.watches import WatchSet

    seen: set[str] = set()
    async with Xenstore.connect(path) as store:
        watches: WatchSet[str] = store.watches()
        for root in roots:
            await watches.add(root, root)
        os.write(1, b"ready\n")
        while len(seen) < count:
            _, dirty = await anext(watches)
            paths = [found for found in dirty.paths if found not in roots]
            for found, value in zip(paths, await store.read_many(paths), strict=True):
                if isinstance(value, bytes) and value:
                    seen.add(found)
    os.write(1, b"%d\n" % time.monotonic_ns())


def main(argv: list[str]) -> None:
    """Run the floor that is named."""
    match argv:
        case ["watch", path, node]:
            watch(path, node)
        case ["hop", url, subject]:
            asyncio.run(hop(url, subject))
        case ["client", path, count, *roots]:
            asyncio.run(client(path, int(count), roots))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
