import pytest

from xenmesh.bus.errors import Refused
from xenmesh.bus.memory import MemoryBus, MemoryServer
from xenmesh.schemas.request import Since
from xenmesh.services.events.source import History


async def test_pages_are_read_from_the_history_of_this_host() -> None:
    bus = MemoryBus(MemoryServer(), user="events", host="h1")
    for n in range(3):
        await bus.publish("xen.v1.h1.evt.service.store.flooding", b"%d" % n)
    await bus.publish("xen.v1.h2.evt.service.store.flooding", b"9")
    page = await History(bus, "h1").page(Since(limit=2))

    assert [bytes(kept.event) for kept in page.events] == [b"0", b"1"]
    rest = await History(bus, "h1").page(Since(cursor=page.next))
    assert [bytes(kept.event) for kept in rest.events] == [b"2"]
    assert rest.next is None


async def test_without_a_history_there_is_nothing_to_read() -> None:
    bus = MemoryBus(MemoryServer(history=False), user="events", host="h1")
    with pytest.raises(Refused) as refused:
        await History(bus, "h1").page(Since())
    assert refused.value.code == "no-history"
