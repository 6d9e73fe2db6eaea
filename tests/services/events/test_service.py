from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import pytest
from rigs.nats_server import NatsServer

from xenmesh.bus.abc import Bus
from xenmesh.bus.consumer import ask
from xenmesh.bus.errors import Refused
from xenmesh.bus.memory import MemoryBus, MemoryServer
from xenmesh.bus.nats import connect
from xenmesh.bus.provision import provision
from xenmesh.schemas.request import Since, SincePage
from xenmesh.services.daemon.context import Context
from xenmesh.services.events.config import EventsConfig
from xenmesh.services.events.service import run

Join = Callable[[str], AbstractAsyncContextManager[Bus]]
SUBJECT = "xen.v1.h1.evt.service.store.flooding"


@pytest.fixture(params=["memory", "nats"])
async def join(request: pytest.FixtureRequest) -> Join:
    if request.param == "nats":
        server: NatsServer = request.getfixturevalue("nats_server")()
        async with connect(server.url, user="store", host="h1") as bus:
            await provision(bus, "h1")
        return lambda user: connect(server.url, user=user, host="h1")
    memory = MemoryServer()

    @asynccontextmanager
    async def joined(user: str) -> AsyncIterator[Bus]:
        bus = MemoryBus(memory, user=user, host="h1")
        yield bus
        await bus.close()

    return joined


@asynccontextmanager
async def serving(join: Join, config: EventsConfig = EventsConfig()) -> AsyncIterator[Bus]:  # noqa: B008 - frozen
    ready, stop = anyio.Event(), anyio.Event()
    async with join("events") as mine, join("viewer") as theirs, anyio.create_task_group() as group:
        group.start_soon(run, mine, config, Context(host="h1", stopped=stop.wait, ready=ready.set))
        with anyio.fail_after(10):
            await ready.wait()
        yield theirs
        stop.set()


async def test_kept_events_come_in_pages_until_there_are_no_more(join: Join) -> None:
    async with serving(join, EventsConfig(page=3)) as bus:
        for n in range(7):
            await bus.publish(SUBJECT, b"%d" % n)
        await bus.settle()
        found: list[bytes] = []
        cursor: int | None = None
        pages = 0
        while pages == 0 or cursor is not None:
            asked = Since(pattern="evt.service.store.flooding", cursor=cursor)
            page = await ask(bus, "h1", "events", "since", asked, SincePage)
            assert len(page.events) <= 3
            found += [bytes(kept.event) for kept in page.events]
            cursor, pages = page.next, pages + 1

    assert found == [b"%d" % n for n in range(7)]
    assert pages == 3


@pytest.mark.parametrize("asked", [Since(limit=0), Since(pattern="store.>"), Since(cursor=-1)])
async def test_what_may_not_be_asked_is_refused(join: Join, asked: Since) -> None:
    async with serving(join) as bus:
        with pytest.raises(Refused) as refused:
            await ask(bus, "h1", "events", "since", asked, SincePage)
    assert refused.value.code == "bad-request"
