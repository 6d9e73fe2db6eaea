import os
import signal
import socket
import threading
from contextlib import closing, suppress
from pathlib import Path

import anyio
import pytest
from rigs.waiting import eventually

from xenmesh.services.daemon.knock import at_bus, at_xenstored
from xenmesh.xenstore.errors import XenstoreError


def is_stopped(pid: int) -> bool:
    return all(stat.read_text().rpartition(") ")[2][0] == "T" for stat in Path(f"/proc/{pid}/task").glob("*/stat"))


async def test_a_bus_that_greets(nats_server):
    server = nats_server(jetstream=False)
    with anyio.fail_after(5):
        await at_bus(server.url)


async def test_a_bus_that_wants_keys_greets_a_stranger_too(nats_server):
    server = nats_server('authorization { user: "a", password: "b" }', jetstream=False)
    with anyio.fail_after(5):
        await at_bus(server.url)


def take_a_seat(port: int) -> socket.socket | None:
    """A connection that the server has let in for good: it greets before it counts, so only a PONG proves it."""
    client = socket.create_connection(("127.0.0.1", port), timeout=5)
    try:
        client.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
        said = b""
        while b"PONG\r\n" not in said:
            part = client.recv(4096)
            if not part:
                raise ConnectionResetError
            said += part
    except ConnectionError:  # whoever sat here before has not been missed yet
        client.close()
        return None
    return client


async def test_a_bus_that_is_full_does_not_count_as_there(nats_server):
    server = nats_server("max_connections: 1", jetstream=False)
    seat = await eventually(lambda: take_a_seat(server.port), "the only seat")
    with seat, anyio.fail_after(5), pytest.raises(ConnectionError, match=r"maximum connections exceeded|hung up"):
        await at_bus(server.url)


async def test_a_bus_that_is_gone(nats_server):
    server = nats_server(jetstream=False)
    server.kill()
    with pytest.raises(OSError, match="connect"):
        await at_bus(server.url)


async def test_a_bus_that_is_stopped_does_not_answer(nats_server):
    server = nats_server(jetstream=False)
    os.kill(server.pid, signal.SIGSTOP)
    await eventually(lambda: is_stopped(server.pid), "every thread of it to stand still")
    try:
        with anyio.move_on_after(0.3) as waited:
            await at_bus(server.url)
        assert waited.cancelled_caught
    finally:
        os.kill(server.pid, signal.SIGCONT)


@pytest.mark.parametrize("words", [b"SSH-2.0-x\r\n", b""])
async def test_something_else_on_the_port(words):
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def greet() -> None:
            with suppress(OSError):
                peer, _ = server.accept()
                peer.sendall(words)
                peer.close()

        threading.Thread(target=greet, daemon=True).start()
        with anyio.fail_after(5), pytest.raises(ConnectionError):
            await at_bus(f"nats://127.0.0.1:{server.getsockname()[1]}")


async def test_a_xenstored_that_answers_and_one_that_does_not(xenstored):
    with anyio.fail_after(5):
        await at_xenstored(xenstored.socket)
    xenstored.kill()
    with pytest.raises(XenstoreError):
        await at_xenstored(xenstored.socket)
