"""Consumers that are not ours, as VIEW on the real server: a C program with libnats, and a bare socket that signs the nonce itself."""

import asyncio
import base64
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import nkeys
import pytest
from rigs.waiting import eventually

from xenmesh.bus.config import Settings
from xenmesh.bus.keys import key_file, read_public_keys
from xenmesh.bus.message import Message
from xenmesh.bus.nats import NatsBus, connect
from xenmesh.bus.server import Server

X = "xen.v1.h1"
REFUSED_TO_HEAR = [f"{X}.store.>", f"{X}.cmd.>", f"{X}.audit.>", "_INBOX.domains.>", "_INBOX.>", ">", "$JS.>"]
REFUSED_TO_SAY = [
    f"{X}.cmd.view.domains.start",
    f"{X}.evt.domain.u.lifecycle",
    f"{X}.q.store.read",
    "$JS.API.INFO",
    "$KV.xen_state.domain.u",
]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with Server(Settings(directory=str(tmp_path), host="h1", port=0)) as running:
        yield running


@pytest.fixture
async def domains(server: Server, tmp_path: Path) -> AsyncIterator[NatsBus]:
    """The service, which answers its snapshot."""
    answers: set[asyncio.Task[None]] = set()
    async with connect(server.url, user="domains", host="h1", seed=key_file(tmp_path / "keys", "domains")) as bus:

        def answer(message: Message) -> None:
            answers.add(asyncio.create_task(bus.publish(message.reply, b"page")))

        await bus.subscribe(f"{X}.q.domains.*", answer, queue="q")
        await bus.settle()
        yield bus


class Viewer:
    """Something that takes orders and prints what it saw, line by line."""

    def __init__(self, order: Callable[[str], None]) -> None:
        self.lines: list[str] = []
        self._order = order

    async def do(self, order: str, *, done: str) -> str:
        """Give it an order; returns the line that begins with ``done``."""
        seen = len(self.lines)
        self._order(order)
        return await eventually(
            lambda: next((line for line in self.lines[seen:] if line.startswith(done)), ""), f"{done!r} after {order!r}"
        )


async def check(viewer: Viewer, domains: NatsBus) -> None:
    """What any consumer in VIEW sees, and is refused."""
    for pattern in ("evt", "state"):
        await viewer.do(f"hear {X}.{pattern}.>", done="hears")
    await domains.keep(f"{X}.evt.domain.u.lifecycle", b"event", identity="1")
    await domains.put("domain.u", b"value")
    for line in (f"heard {X}.evt.domain.u.lifecycle event", f"heard {X}.state.domain.u value"):
        await eventually(lambda line=line: line in viewer.lines, line)  # type: ignore[misc]
    assert await viewer.do(f"ask {X}.q.domains.snapshot", done="answer") == f"answer {X}.q.domains.snapshot page"
    assert not any(line.startswith("refused") for line in viewer.lines)
    for pattern in REFUSED_TO_HEAR:
        refusal = (await viewer.do(f"hear {pattern}", done="refused")).lower()
        assert "permissions violation for subscription" in refusal
        assert f'"{pattern.lower()}"' in refusal
    for subject in REFUSED_TO_SAY:
        refusal = (await viewer.do(f"say {subject}", done="refused")).lower()
        assert "permissions violation for publish" in refusal
        assert f'"{subject.lower()}"' in refusal


@pytest.mark.rig("libnats")
async def test_libnats(server: Server, domains: NatsBus, tmp_path: Path) -> None:
    program = tmp_path / "viewer"
    source = Path(__file__).with_name("viewer.c")
    await asyncio.to_thread(subprocess.run, ["gcc", "-Wall", "-Werror", "-o", program, source, "-lnats"], check=True)
    seed = key_file(tmp_path / "keys", "view")
    public = read_public_keys(tmp_path / "keys", ["view"])["view"]
    process = await asyncio.create_subprocess_exec(
        program, server.url, seed, public, "h1", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    orders, said = process.stdin, process.stdout
    viewer = Viewer(lambda order: orders.write(f"{order}\n".encode()))

    async def listen() -> None:
        while line := await said.readline():
            viewer.lines.append(line.decode().strip())

    listening = asyncio.create_task(listen())
    await eventually(lambda: "connected" in viewer.lines, "libnats to connect")
    await check(viewer, domains)
    orders.close()
    assert await asyncio.wait_for(process.wait(), 10) == 0
    await listening


async def test_a_bare_socket(server: Server, domains: NatsBus, tmp_path: Path) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    info = json.loads((await reader.readline()).removeprefix(b"INFO "))
    pair = nkeys.from_seed(bytearray(key_file(tmp_path / "keys", "view").read_bytes().strip()))
    signature = base64.b64encode(pair.sign(info["nonce"].encode())).decode()
    hello = {"verbose": False, "headers": True, "no_responders": True, "nkey": pair.public_key.decode(), "sig": signature}
    writer.write(f"CONNECT {json.dumps(hello)}\r\nSUB _INBOX.view.bare 1\r\nPING\r\n".encode())
    assert await reader.readline() == b"PONG\r\n"
    numbers = iter(range(2, 100))

    def order(text: str) -> None:
        what, subject = text.split()
        match what:
            case "hear":
                hearing.append(subject)
                writer.write(f"SUB {subject} {next(numbers)}\r\nPING\r\n".encode())
            case "say":
                writer.write(f"PUB {subject} 1\r\nx\r\n".encode())
            case "ask":
                asked.append(subject)
                writer.write(f"PUB {subject} _INBOX.view.bare 2\r\n{{}}\r\n".encode())

    asked: list[str] = []
    hearing: list[str] = []
    viewer = Viewer(order)

    async def listen() -> None:
        while line := (await reader.readline()).decode().strip():
            parts = line.split()
            if parts[0] in {"MSG", "HMSG"}:
                data = (await reader.readexactly(int(parts[-1]) + 2))[int(parts[-2]) if parts[0] == "HMSG" else 0 : -2].decode()
                viewer.lines.append(f"answer {asked[-1]} {data}" if parts[2] == "1" else f"heard {parts[1]} {data}")
            elif parts[0] == "-ERR":
                viewer.lines.append(f"refused {line}")
            elif parts[0] == "PONG":  # the server has taken in the subscription before it, or refused it
                viewer.lines.append(f"hears {hearing.pop(0)}")
            elif parts[0] == "PING":
                writer.write(b"PONG\r\n")

    listening = asyncio.create_task(listen())
    await check(viewer, domains)
    writer.close()
    await listening
