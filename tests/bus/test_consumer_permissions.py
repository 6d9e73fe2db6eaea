"""Following over the real server with its permissions: what each kind of user may follow, and 200 of them at once."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from rigs.waiting import eventually

from xenmesh.bus.config import Settings
from xenmesh.bus.consumer import Followed, Follower, Snapshot, follow
from xenmesh.bus.errors import Forbidden
from xenmesh.bus.keys import key_file
from xenmesh.bus.message import Message
from xenmesh.bus.nats import NatsBus, connect
from xenmesh.bus.server import Server
from xenmesh.bus.service import Limits, Service
from xenmesh.schemas import subjects
from xenmesh.schemas.domain import Domain, Lifecycle, Power
from xenmesh.schemas.envelope import Envelope, Event
from xenmesh.schemas.store import Changed

HOST = "h1"


class Mesh:
    """A real server, buses of its users, and services on them."""

    def __init__(self, server: Server, directory: Path, stack: AsyncExitStack) -> None:
        self.url = server.url
        self.directory = directory
        self._stack = stack

    async def join(self, name: str) -> NatsBus:
        seed = key_file(self.directory / "keys", name)
        return await self._stack.enter_async_context(connect(self.url, user=name, host=HOST, seed=seed))

    @asynccontextmanager
    async def serving(self, name: str, items: list[Event], **limits: Any) -> AsyncIterator[Service]:
        """The service ``name``, whose snapshot is ``items``."""
        declared = subjects.declaration(name)
        service = Service(
            await self.join(name), declared, HOST, version="1", limits=Limits(**{"heartbeat": 0.05, "drain": 2.0, **limits})
        )
        service.snapshot_from(lambda: {f"owner.{number}": (item,) for number, item in enumerate(items)})
        async with service.serve():
            await service.ready()
            yield service


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with Server(Settings(directory=str(tmp_path), host=HOST, port=0)) as server, AsyncExitStack() as stack:
        yield Mesh(server, tmp_path, stack)


def domain(number: int) -> Domain:
    return Domain(uuid=f"u{number}", name="web" * 10, domid=number, power=Power.RUNNING)


def lifecycle(number: int) -> Lifecycle:
    return Lifecycle(uuid=f"u{number}", name="web", domid=number, before=None, after=Power.RUNNING)


CHANGED = Changed(domid=5, uuid=None, path="/local/domain/5/name", value="web")


async def next_of(items: Follower) -> Followed:
    with anyio.fail_after(20):
        return await anext(items)


async def test_a_viewer_follows_what_is_public_and_hears_its_heartbeat(mesh: Mesh) -> None:
    async with (
        mesh.serving("domains", [domain(1), domain(2)]) as service,
        follow(await mesh.join("view"), HOST, "domains", rng=random.Random(1)) as items,
    ):
        first = await next_of(items)
        assert isinstance(first, Snapshot)
        assert [type(item) for item in first.items] == [Domain, Domain]
        await service.emit(lifecycle(1))
        said = await next_of(items)
        assert isinstance(said, Envelope)
        assert said.event == lifecycle(1)
        assert items._denied == set()
        await eventually(lambda: items._quiet == pytest.approx(0.15), "a heartbeat")


async def test_a_viewer_is_told_of_a_loss_at_the_end_by_the_heartbeat(mesh: Mesh) -> None:
    async with (
        mesh.serving("domains", [domain(1)]) as service,
        follow(await mesh.join("view"), HOST, "domains", rng=random.Random(1)) as items,
    ):
        await next_of(items)
        service._emission.stamp(lifecycle(1), 0.0)
        service._emission._leaving.clear()
        item = await next_of(items)
        assert isinstance(item, Snapshot)
        assert item.why == "heartbeat"


async def test_a_viewer_may_not_follow_what_is_not_public_however_often_it_tries(mesh: Mesh) -> None:
    async with mesh.serving("store", [CHANGED]), follow(await mesh.join("view"), HOST, "store") as items:
        for _ in range(2):
            with pytest.raises(Forbidden, match=r"view may not hear xen\.v1\.h1\.store\.>"):
                await next_of(items)


async def test_who_hears_the_events_but_may_not_ask_for_the_snapshot_is_told(mesh: Mesh) -> None:
    view = await mesh.join("view")
    async with mesh.serving("store", [CHANGED]), follow(view, HOST, "store", owner="evt.service.store") as items:
        for _ in range(2):
            with pytest.raises(Forbidden, match=r"view may not publish on xen\.v1\.h1\.q\.store\.snapshot"):
                await next_of(items)


async def test_a_service_follows_another_though_it_may_not_hear_what_that_says_of_itself(mesh: Mesh) -> None:
    async with (
        mesh.serving("store", [CHANGED]) as service,
        follow(await mesh.join("guests"), HOST, "store", rng=random.Random(1)) as items,
    ):
        first = await next_of(items)
        assert isinstance(first, Snapshot)
        assert items._denied == {"xen.v1.h1.evt.service.store.>"}
        await service.emit(CHANGED)
        said = await next_of(items)
        assert isinstance(said, Envelope)
        assert said.event == CHANGED
        assert items.counters["snapshots"] == 1


async def test_a_refusal_of_the_followers_own_is_not_taken_for_the_callers(mesh: Mesh) -> None:
    """What was denied to the follower does not come back at the next settle of its task."""
    async with mesh.serving("store", [CHANGED]):
        bus = await mesh.join("guests")
        async with follow(bus, HOST, "store") as items:
            await next_of(items)
            await bus.settle()
        heard: list[Message] = []
        await bus.subscribe("xen.v1.h1.audit.>", heard.append)
        with pytest.raises(Forbidden, match="audit"):
            await bus.settle()


async def test_two_hundred_followers_that_ask_at_once_all_get_it(mesh: Mesh) -> None:
    views = [await mesh.join("view") for _ in range(20)]
    everything: list[Event] = [domain(number) for number in range(400)]
    async with mesh.serving("domains", everything, page=4 << 10, heartbeat=5.0) as service:
        snapshots: list[int] = []
        events: list[int] = []

        async def consumer(bus: NatsBus) -> None:
            async with follow(bus, HOST, "domains", timeout=30.0) as items:
                item = await anext(items)
                assert isinstance(item, Snapshot)
                snapshots.append(len(item.items))
                said = await anext(items)
                assert isinstance(said, Envelope)
                events.append(said.seq - item.seq)

        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(consumer, views[number % 20])
            await eventually(lambda: len(snapshots) == 200, "all to have it", within=45)
            await service.emit(lifecycle(1))
            await eventually(lambda: len(events) == 200, "all to hear the event", within=20)
        assert set(snapshots) == {400}
        assert set(events) == {1}
        assert service.counters["cuts"] == 1
        assert service.counters["requests"] > 200 * 10


async def test_who_asks_again_and_again_under_one_reply_subject_gets_every_answer(mesh: Mesh) -> None:
    asker, answers = await mesh.join("operator"), list[Message]()
    async with mesh.serving("store", [CHANGED]):
        await asker.subscribe("_INBOX.operator.same", answers.append)
        await asker.settle()
        for number in range(70):
            await asker.publish(f"xen.v1.{HOST}.q.store.health", b"{}", reply="_INBOX.operator.same")
            await eventually(lambda number=number: len(answers) > number, f"answer {number}")
