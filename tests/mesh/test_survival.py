"""Kill anything during a stream of writes: no final value of what the store then holds is lost, and nobody is declared dead for it."""

from collections.abc import Awaitable, Callable

import anyio
import pytest
from mesh.consumer import REDACTED, Consumer
from mesh.raw import SECRET, Raw, Writer, dump, uuid_of
from mesh.running import Mesh, X, kill_xenstored
from rigs.waiting import eventually
from rigs.xenstored import Xenstored

from xenmesh.bus.message import Message
from xenmesh.schemas import EVENTS
from xenmesh.schemas.envelope import decode
from xenmesh.schemas.service import Source, SourceState

pytestmark = pytest.mark.timeout(120)

FORGOTTEN = (40, 41)
"""Domains that were there before the loss, and that nobody writes anew."""

Kill = Callable[[Mesh, Xenstored], Awaitable[None]]


async def the_store(_: Mesh, xenstored: Xenstored) -> None:
    await kill_xenstored(xenstored)


async def the_bus(mesh: Mesh, _: Xenstored) -> None:
    await mesh.kill_bus()


async def the_services(mesh: Mesh, _: Xenstored) -> None:
    await mesh.kill_services()


async def all_of_them(mesh: Mesh, xenstored: Xenstored) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(kill_xenstored, xenstored)
        group.start_soon(mesh.kill_bus)
        group.start_soon(mesh.kill_services)


def told(held: dict[str, str]) -> dict[str, str]:
    """What the service may tell of what the store holds."""
    return {path: REDACTED if path.endswith("/vncpasswd") else value for path, value in held.items()}


@pytest.mark.parametrize(
    ("kill", "times"),
    [(the_store, 2), (the_bus, 2), (the_services, 1), (all_of_them, 1)],
    ids=["xenstored", "nats-server", "xenmeshd", "all"],
)
async def test_no_final_value_is_lost(mesh: Mesh, xenstored: Xenstored, kill: Kill, times: int) -> None:
    raw = Raw(xenstored.socket)
    for domid in FORGOTTEN:
        raw.write(f"/local/domain/{domid}/vm", f"/vm/{uuid_of(domid)}")
        raw.introduce(domid)
    raw.close()
    consumer, fresh = Consumer(), Consumer()
    sources: list[SourceState] = []
    secrets: list[Message] = []

    def source(message: Message) -> None:
        said = decode(message.data, EVENTS).event
        assert isinstance(said, Source)
        sources.append(said.state)

    def look(message: Message) -> None:
        if SECRET.encode() in message.data:
            secrets.append(message)

    async with mesh.bus() as bus, mesh.bus() as other, anyio.create_task_group() as group:
        await bus.subscribe(f"{X}.evt.service.store.source", source)
        for pattern in ("store.>", "evt.>", "state.>"):
            await bus.subscribe(f"{X}.{pattern}", look)
        await bus.settle()
        group.start_soon(consumer.follow, bus)
        await eventually(lambda: set(FORGOTTEN) <= consumer.domains.keys(), "the first snapshot")
        writer = Writer(xenstored.socket, seed=times)
        writer.start()
        try:
            for count in range(times):
                before = consumer.events
                await eventually(lambda before=before: consumer.events > before + 200, "a stream of events", within=20)
                connections, heard, why = writer.connections, len(sources), len(consumer.snapshots)
                await kill(mesh, xenstored)
                if kill in (the_store, all_of_them):
                    await eventually(lambda n=connections: writer.connections > n, "the writer to be back")
                if kill is the_store:
                    await eventually(lambda n=heard: len(sources) >= n + 2, "the loss and the return", within=20)
                else:
                    await eventually(lambda n=why: len(consumer.snapshots) > n, f"a new snapshot, the {count}. time", within=20)
            before = consumer.events
            await eventually(lambda: consumer.events > before + 200, "the stream to go on", within=20)
        finally:
            must = writer.finish()
        position = await mesh.barrier(other)
        await eventually(lambda: consumer.has_reached(position.boot, position.newest), "the last event", within=20)
        group.start_soon(fresh.follow, other)
        await eventually(lambda: fresh.snapshots, "a fresh consumer's snapshot")
        group.cancel_scope.cancel()

    held = dump(xenstored.socket)
    assert must.items() <= held.items(), "the test's own account of the store is wrong"
    assert consumer.nodes == told(held)
    assert fresh.nodes == told(held)
    assert fresh.domains == consumer.domains
    there = {domid: known.uuid for domid, known in consumer.domains.items() if not known.missing}
    assert there == {domid: uuid_of(domid) for domid in present(held)}
    assert not consumer.gone
    assert not consumer.capped
    assert not secrets
    if kill is the_store:
        assert consumer.snapshots == ["first"]
        assert sources == [SourceState.LOST, SourceState.RESYNCED] * times
        assert {domid for domid, known in consumer.domains.items() if known.missing} == set(FORGOTTEN)


def present(held: dict[str, str]) -> set[int]:
    return {int(path.split("/")[3]) for path in held if path.startswith("/local/domain/")}
