import anyio
import pytest
from cli.house import OTHER, UUID, Heard, House, changed
from rigs.waiting import eventually

from xenmesh.cli import wait
from xenmesh.cli.errors import UsageError
from xenmesh.schemas import store


async def test_a_domain_that_is_there(house: House, table: Heard) -> None:
    async with house.serve():
        await house.boot(5, "web-1")
        with anyio.fail_after(5):
            await wait.until_domain(house.mesh(), table.printer, "web-1")

    assert table.lines == ["web-1 runs as domain 5"]


async def test_a_domain_that_is_built_then_named_then_runs(house: House, ndjson: Heard) -> None:
    async with house.serve(), anyio.create_task_group() as group:
        group.start_soon(wait.until_domain, house.mesh("waiter"), ndjson.printer, "web-1")
        await house.say(store.DomainSeen(domid=5, uuid=UUID, introduced=False, generation=1))
        await house.say(changed("/local/domain/5/name", "web-1", UUID))
        await anyio.wait_all_tasks_blocked()
        assert ndjson.lines == []
        await house.say(store.DomainSeen(domid=5, uuid=UUID, introduced=True, generation=1))

    assert ndjson.records == [{"domid": 5, "uuid": UUID, "name": "web-1"}]


async def test_gone(house: House, names: Heard) -> None:
    async with house.serve(), anyio.create_task_group() as group:
        await house.boot(5, "web-1")
        await house.boot(7, "web-2", OTHER)
        group.start_soon(wait.until_gone, house.mesh(), names.printer, "web-1")
        await house.say(store.DomainGone(domid=7, uuid=OTHER, generation=1))
        await house.say(store.DomainGone(domid=5, uuid=UUID, generation=1))

    assert names.lines == ["web-1"]


async def test_missing_is_not_gone(house: House, names: Heard) -> None:
    async with house.serve():
        await house.boot(5, "web-1")
        await house.say(store.DomainSeen(domid=5, uuid=UUID, introduced=False, generation=1, missing=True))
        with anyio.move_on_after(0.3) as patience:
            await wait.until_gone(house.mesh(), names.printer, "web-1")

    assert patience.cancelled_caught


async def test_a_key_of_a_domain_that_is_not_there_yet(house: House, table: Heard) -> None:
    async with house.serve(), anyio.create_task_group() as group:
        group.start_soon(wait.until_key, house.mesh(), table.printer, "web-1/data/os", None)
        await house.boot(5, "web-1")
        await house.say(changed("/local/domain/5/data/os", "Debian", UUID))

    assert table.lines == ["Debian"]


async def test_a_key_with_a_value(house: House, ndjson: Heard) -> None:
    async with house.serve(), anyio.create_task_group() as group:
        await house.boot(5, "web-1")
        await house.say(changed("/local/domain/5/device/vif/0/state", "4", UUID))
        await house.say(store.Removed(domid=5, uuid=UUID, path="/local/domain/5/device"))
        group.start_soon(wait.until_key, house.mesh(), ndjson.printer, "/local/domain/5/device/vif/0/state", "4")
        await house.say(changed("/local/domain/5/device/vif/0/state", "1", UUID))
        await house.say(changed("/local/domain/5/device/vif/0/state", "4", UUID))

    assert [(each["path"], each["value"]) for each in ndjson.records] == [("/local/domain/5/device/vif/0/state", "4")]


async def test_a_removed_key_is_no_longer_there() -> None:
    state = wait._State()
    state.begin([changed("/local/domain/5/device/vif/0/state", "4"), changed("/local/domain/5/devices", "x")])
    state.apply(store.Removed(domid=5, uuid=None, path="/local/domain/5/device"))

    assert list(state.nodes) == ["/local/domain/5/devices"]


async def test_the_root_is_no_condition(house: House, table: Heard) -> None:
    with pytest.raises(UsageError):
        await wait.until_key(house.mesh(), table.printer, "/", None)


async def test_a_service_that_is_ready(house: House) -> None:
    async with house.serve():
        with anyio.fail_after(5):
            await wait.until_ready(house.mesh(), "store")


async def test_a_service_that_becomes_ready(house: House) -> None:
    done = False

    async def waiting() -> None:
        nonlocal done
        await wait.until_ready(house.mesh(), "store")
        done = True

    async with anyio.create_task_group() as group:
        group.start_soon(waiting)
        async with house.serve(ready=False) as running:
            await anyio.wait_all_tasks_blocked()
            assert not done
            await running.ready()
            await eventually(lambda: done, "word that it is ready")


async def test_no_such_service(house: House) -> None:
    with pytest.raises(UsageError) as caught:
        await wait.until_ready(house.mesh(), "domains")

    assert caught.value.hint == "there are: store, events"


async def test_a_service_that_is_away_is_waited_for(house: House, table: Heard) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(wait.until_domain, house.mesh(), table.printer, "web-1")
        await eventually(lambda: "waiting for it" in table.notes, "word that it is away")
        async with house.serve(ready=False) as running:
            house.state.apply(store.DomainSeen(domid=5, uuid=UUID, introduced=True, generation=1))
            house.state.apply(changed("/local/domain/5/name", "web-1", UUID))
            await running.ready()
            await eventually(lambda: table.lines, "the domain")
