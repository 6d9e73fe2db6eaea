"""A consumer of the account VIEW at the running mesh: the public part works, and the rest is refused or unheard."""

import anyio
import pytest
from mesh.consumer import Consumer
from mesh.raw import Raw
from mesh.running import HOST, Mesh, X, run_mesh
from rigs.waiting import eventually
from rigs.xenstored import Xenstored

from xenmesh.bus.abc import Bus
from xenmesh.bus.consumer import ask
from xenmesh.bus.errors import Forbidden
from xenmesh.bus.message import Message
from xenmesh.schemas import EVENTS, request
from xenmesh.schemas.envelope import decode, decode_state
from xenmesh.schemas.service import ServiceState, Started

pytestmark = pytest.mark.rig("xenstored")


async def test_it_sees_what_is_public_of_a_mesh_at_work(xenstored_c: Xenstored) -> None:
    heard: list[Message] = []
    async with run_mesh(xenstored_c.socket) as mesh, mesh.bus("view") as view:
        for public in ("evt.>", "state.>", "hb.>"):
            await view.subscribe(f"{X}.{public}", heard.append)
        await view.settle()

        for name in ("store", "events"):
            health = await ask(view, HOST, name, "health", request.Health(), request.HealthReport)
            assert health.ready
            await ask(view, HOST, name, "barrier", request.Barrier(), request.Position)
        page = await ask(view, HOST, "events", "since", request.Since(pattern="evt.service.>"), request.SincePage)
        kept = [decode(bytes(each.event), EVENTS).event for each in page.events]
        assert [type(event) for event in kept] == [Started, Started]

        await mesh.kill_services()
        await eventually(lambda: len([m for m in heard if m.subject.endswith(".started")]) == 2, "both to start again")
        await eventually(lambda: f"{X}.state.service.store" in {m.subject for m in heard if m.data}, "the store's state")
        await eventually(lambda: f"{X}.hb.store" in {m.subject for m in heard}, "a heartbeat")
        said = decode_state(next(m.data for m in heard if m.subject == f"{X}.state.service.store" and m.data), EVENTS).state
        assert isinstance(said, ServiceState)
        assert said.name == "store"


@pytest.mark.parametrize(
    "subject",
    [
        f"{X}.q.store.snapshot",
        f"{X}.q.store.read",
        f"{X}.cmd.view.domains.start",
        f"{X}.cmd.operator.domains.start",
        "$JS.API.INFO",
        "$JS.API.STREAM.MSG.GET.XEN_EVT",
        "$KV.xen_state.service.store",
        "_INBOX.operator.x",
    ],
)
async def test_what_it_must_not_ask_never_arrives(shared_mesh: Mesh, subject: str) -> None:
    async with shared_mesh.bus("view") as view:
        with pytest.raises(Forbidden):
            await view.request(subject, b'{"path":"/tool"}', timeout=5)
        assert (await ask(view, HOST, "store", "health", request.Health(), request.HealthReport)).ready


@pytest.mark.parametrize(
    "pattern", [f"{X}.store.>", f"{X}.cmd.>", f"{X}.q.>", f"{X}.audit.>", "_INBOX.>", "_INBOX.operator.>", "$JS.>", ">"]
)
async def test_what_it_must_not_hear_is_refused(shared_mesh: Mesh, pattern: str) -> None:
    async with shared_mesh.bus("view") as view:
        await view.subscribe(pattern, lambda _: None)
        with pytest.raises(Forbidden):
            await view.settle()


async def test_no_service_is_its_deputy(shared_mesh: Mesh) -> None:
    """A public question whose reply subject is another's inbox, or a command: the answer, which the service may say, must not get there."""
    caught: list[Message] = []
    async with shared_mesh.bus() as operator, shared_mesh.bus("view") as view:
        await operator.subscribe("_INBOX.operator.victim.>", caught.append)
        await operator.settle()
        for reply in (
            "_INBOX.operator.victim.1",
            f"{X}.cmd.operator.domains.start",
            f"{X}.evt.host.forged",
            "$JS.API.STREAM.DELETE.XEN_EVT",
        ):
            await view.publish(f"{X}.q.store.health", b"{}", reply=reply)
            await view.publish(f"{X}.q.events.since", b"{}", reply=reply)
        await view.settle()
        # The service answers in order: once this is answered, so were those.
        health = await ask(view, HOST, "store", "health", request.Health(), request.HealthReport)
        await ask(view, HOST, "events", "since", request.Since(), request.SincePage)
        await operator.settle()
        assert health.ready
        assert not caught
        page = await ask(operator, HOST, "events", "since", request.Since(), request.SincePage)
        assert not any(kept.subject.endswith("forged") for kept in page.events)


async def test_two_hundred_followers_get_the_snapshot_at_once(shared_mesh: Mesh) -> None:
    """Of 500 nodes and more, in several pages."""
    raw = Raw(shared_mesh.socket)
    for domid in range(1, 11):
        for key in range(50):
            raw.write(f"/local/domain/{domid}/data/k{key}", "x" * 100)
    pages: list[int] = []
    async with shared_mesh.bus() as one, shared_mesh.bus() as two, anyio.create_task_group() as group:
        await shared_mesh.barrier(one)

        async def read(bus: Bus) -> None:
            consumer = Consumer()
            async with anyio.create_task_group() as following:
                following.start_soon(consumer.follow, bus)
                await eventually(lambda: consumer.snapshots, "the snapshot", within=40)
                following.cancel_scope.cancel()
            pages.append(sum(path.startswith("/local/domain/") and "/data/k" in path for path in consumer.nodes))

        for number in range(200):
            group.start_soon(read, (one, two)[number % 2])
    raw.close()
    assert pages == [500] * 200
