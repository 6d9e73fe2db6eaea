"""A NATS server that misbehaves on request; the well-behaved one is the real one."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

__all__ = ["FakeServer", "fake_server"]


class FakeServer:
    """Greets, notes each command, answers pings; ``writers`` are its connections, the newest last."""

    def __init__(self) -> None:
        self.port = 0
        self.commands: list[str] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.mute = False
        """Answer no ping but the first of each connection."""
        self.refuse = b""
        """What a connection gets instead of its first pong."""

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def names(self) -> list[str]:
        return [command.split()[0] for command in self.commands]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "x", "version": "2.15.1", "max_payload": 1048576, "headers": True, "proto": 1}
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        self.writers.append(writer)
        first = True
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                command = line.decode().strip()
                self.commands.append(command)
                name = command.split(" ")[0]
                if name in {"PUB", "HPUB"}:
                    await reader.readexactly(int(command.split()[-1]) + 2)
                if name == "PING" and (first or not self.mute):
                    writer.write(self.refuse if first and self.refuse else b"PONG\r\n")
                    first = False
        writer.close()

    def say(self, raw: bytes) -> None:
        """To the newest connection."""
        self.writers[-1].write(raw)


@contextlib.asynccontextmanager
async def fake_server() -> AsyncIterator[FakeServer]:
    fake = FakeServer()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()
        for writer in fake.writers:
            writer.close()
        await asyncio.sleep(0)
