"""Queries and commands from the side of whoever asks."""

from __future__ import annotations

import anyio
import pytest
from rigs.waiting import eventually

from xenmesh.bus.asking import ask, command
from xenmesh.bus.errors import NoResponders, ProtocolError, Refused, Timeout
from xenmesh.bus.memory import MemoryBus, MemoryServer
from xenmesh.bus.service import Caller, Service
from xenmesh.schemas import subjects
from xenmesh.schemas.request import Command, Health, HealthReport, Position
from xenmesh.schemas.store import Node, Read
from xenmesh.schemas.subjects import Declaration, Verb

STORE = subjects.declaration("store")


class Write(Command, frozen=True, kw_only=True, tag="notes.write"):
    text: str


NOTES = Declaration(
    name="notes",
    purpose="For tests.",
    stream="evt.service.notes.>",
    events=(),
    verbs=(Verb("read", Read, Node), Verb("write", Write, Position)),
)


async def test_ask_gives_the_result_or_raises_why_there_is_none() -> None:
    server = MemoryServer()
    bus, client = MemoryBus(server, host="h"), MemoryBus(server, host="h")
    service = Service(bus, STORE, "h", version="1")

    async def read(request: Read, _: Caller) -> Node:
        if request.path != "/a":
            raise Refused.of("not-found", what="node", name=request.path)
        return Node(path="/a", value="1")

    service.answer("read", read)
    with pytest.raises(NoResponders):
        await ask(client, "h", "store", "read", Read(path="/a"), Node)
    async with service.serve():
        await service.ready()
        assert await ask(client, "h", "store", "read", Read(path="/a"), Node) == Node(path="/a", value="1")
        assert (await ask(client, "h", "store", "health", Health(), HealthReport)).ready
        with pytest.raises(Refused, match="There is no node /b") as refused:
            await ask(client, "h", "store", "read", Read(path="/b"), Node)
        assert (refused.value.code, refused.value.failure.facts) == ("not-found", {"what": "node", "name": "/b"})
        with pytest.raises(ProtocolError):
            await ask(client, "h", "store", "read", Read(path="/a"), HealthReport)


async def test_a_command_is_repeated_under_one_id_until_it_is_carried_out_once() -> None:
    server = MemoryServer()
    client = MemoryBus(server, user="ann", host="h")
    service = Service(MemoryBus(server, host="h"), NOTES, "h", version="1")
    done: list[Caller] = []

    async def write(_: Write, caller: Caller) -> Position:
        done.append(caller)
        await anyio.sleep(0.2)
        return Position(boot="b", seq=1, newest=len(done))

    service.answer("write", write)
    async with anyio.create_task_group() as tasks:

        async def late() -> None:
            await eventually(lambda: client._published >= 0, "the client to run")
            async with service.serve():
                await anyio.sleep(0.1)
                await service.ready()
                await finished.wait()

        finished = anyio.Event()
        tasks.start_soon(late)
        result = await command(client, "h", "notes", "write", Write(request_id="", text="x"), Position, timeout=8, attempt=0.05)
        finished.set()
    assert result.newest == 1
    assert [caller.user for caller in done] == ["ann"]


async def test_a_command_without_an_answer_times_out_and_may_have_been_done() -> None:
    server = MemoryServer()
    client, deaf = MemoryBus(server, user="ann", host="h"), MemoryBus(server, host="h")
    heard: list[bytes] = []
    await deaf.subscribe("xen.v1.h.cmd.*.notes.*", lambda message: heard.append(message.data))
    with pytest.raises(Timeout):
        await command(client, "h", "notes", "write", Write(request_id="1", text="x"), Position, timeout=0.5, attempt=0.05)
    assert len(heard) > 1
    assert len(set(heard)) == 1
    with pytest.raises(NoResponders):
        await command(client, "h", "other", "write", Write(request_id="1", text="x"), Position, timeout=0.2)
