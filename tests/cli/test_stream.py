import anyio
import pytest
from cli.house import UUID, House, changed

from xenmesh.bus.consumer import Away, Snapshot
from xenmesh.bus.memory import MemoryBus
from xenmesh.cli.stream import Gap, Told, listen, may_hear, subject_of
from xenmesh.schemas import service, store
from xenmesh.schemas.envelope import Envelope, Unknown
from xenmesh.schemas.subjects import DECLARATIONS

STORE = [DECLARATIONS["store"]]


async def until(told: object, kind: type) -> Told:
    with anyio.fail_after(5):
        async for each in told:  # type: ignore[attr-defined]
            if isinstance(each.what, kind):
                return each  # type: ignore[no-any-return]
    raise AssertionError


async def test_snapshot_then_events_and_what_a_service_says_of_itself(house: House) -> None:
    async with house.serve() as running:
        await house.boot(5, "web-1")
        async with listen(house.mesh(), STORE) as told:
            first = await until(told, Snapshot)
            await house.say(changed("/local/domain/5/data/x", "1", UUID))
            event = await until(told, Envelope)
            await running.emit(service.Source(source="xenstored", state=service.SourceState.LOST, why="x", lost=1))
            own = await until(told, Envelope)

    assert isinstance(first.what, Snapshot)
    assert len(first.what.items) == 3
    assert event.subject == "store.5.data"
    assert own.subject == "evt.service.store.source"


async def test_only_an_owner(house: House) -> None:
    async with house.serve():
        await house.boot(5, "web-1")
        await house.boot(7, "web-2")
        async with listen(house.mesh(), STORE, owner="store.7", own=False) as told:
            first = await until(told, Snapshot)
            await house.say(changed("/local/domain/5/data/x", "1", UUID), changed("/local/domain/7/data/x", "2", UUID))
            event = await until(told, Envelope)

    assert isinstance(first.what, Snapshot)
    assert len(first.what.items) == 3
    assert event.subject == "store.7.data"


async def test_a_lost_bus_is_a_gap_in_what_services_say_of_themselves(house: House) -> None:
    async with house.serve(), listen(house.mesh("watcher"), STORE, streams=False) as told:
        house.server.cut("watcher")
        house.server.mend("watcher")

        assert await until(told, Gap) == Told("store", "", Gap("reconnect"))


async def test_a_missed_event_of_its_own_is_a_gap(house: House) -> None:
    async with house.serve() as running, listen(house.mesh(), STORE, streams=False) as told:
        lost = service.Source(source="xenstored", state=service.SourceState.LOST, why="x", lost=1)
        await running.emit(lost)
        await until(told, Envelope)
        # One that never arrives: said while nobody routes it.
        house.server.cut("store")
        await running.emit(lost)
        bus = next(bus for bus in house.server.buses if bus.user == "store")
        assert isinstance(bus, MemoryBus)
        bus._held.clear()
        bus._held_bytes = 0
        house.server.mend("store")
        await running.emit(lost)

        assert (await until(told, Gap)).what == Gap("gap")


async def test_a_service_that_is_not_there_is_away(house: House) -> None:
    async with listen(house.mesh(), STORE) as told:
        assert (await until(told, Away)).service == "store"


def test_view_hears_the_public_classes_alone(house: House) -> None:
    assert may_hear(house.mesh(), DECLARATIONS["store"])
    assert not may_hear(house.mesh("view"), DECLARATIONS["store"])
    assert may_hear(house.mesh("view"), DECLARATIONS["domains"])


@pytest.mark.parametrize(
    ("item", "subject"),
    [
        (changed("/vm/x", "1"), "store.host.vm"),
        (service.Started(version="1"), "evt.service.store.started"),
        (Unknown(type="x"), ""),
        (store.Flooding(domid=5, uuid=None, active=True, dropped=0), "evt.service.store.flooding"),
        (service.ServiceState(name="s", version="1", boot="b", ready=True, status="", since=0, lame_duck=False), ""),
    ],
)
def test_subjects_of_events(item: object, subject: str) -> None:
    assert subject_of("store", item) == subject  # type: ignore[arg-type]
