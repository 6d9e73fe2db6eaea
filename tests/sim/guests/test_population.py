import asyncio

import pytest

from xenmesh.sim.guests.life import Kind, Pace
from xenmesh.sim.guests.population import Population
from xenmesh.sim.xenstored.dialect import DIALECTS
from xenmesh.sim.xenstored.session import Session
from xenmesh.sim.xenstored.store import Store

KINDS = pytest.mark.parametrize("kind", ["c", "ocaml"])
QUICK = Pace(life=20.0, address=5.0, memory=5.0, off=1.0)


def told(kind: str, seed: int, until: float) -> list[tuple[str, bytes]]:
    """Every event of a watch on all, in order."""
    store = Store(DIALECTS[kind])
    watcher = Session(store)
    for path in ("/", "@introduceDomain", "@releaseDomain"):
        watcher.watch(path, "t")
    population = Population(store, 4, seed, QUICK)
    events = []
    while population.now < until:
        population.step()
        events += [(event.path, b"") for event in watcher.events()]
    assert population.refused == 0
    return [*events, *((path, node.value) for path, node in store.tree.walk())]


@KINDS
def test_a_seed_settles_every_write(kind: str) -> None:
    assert told(kind, 7, 100) == told(kind, 7, 100)
    assert told(kind, 7, 100) != told(kind, 8, 100)


@KINDS
def test_steps_of_any_size_come_to_the_same(kind: str) -> None:
    def after(*times: float) -> list[tuple[str, bytes]]:
        store = Store(DIALECTS[kind])
        population = Population(store, 3, 1, QUICK)
        for time in times:
            population.advance(time)
        return [(path, node.value) for path, node in store.tree.walk()]

    assert after(60.0) == after(0.1, 3.0, 17.5, 17.6, 42.0, 60.0)


@KINDS
def test_a_store_is_no_fuller_than_its_guests_make_it(kind: str) -> None:
    store = Store(DIALECTS[kind])
    population = Population(store, 4, 3, QUICK)
    population.advance(60)
    started = len(list(store.tree.walk()))
    population.advance(600)
    there = set(population.toolstack.domains)
    assert len(list(store.tree.walk())) < 2 * started
    assert {domid for domid in range(1, 2000) if store.tree.owned_by(domid)} <= there
    assert set(store.domains) == there | {0}
    assert len(store.clients) <= 4 + 1


def test_guests_bear_a_store_that_lost_all() -> None:
    store = Store()
    population = Population(store, 4, 3, QUICK)
    population.advance(60)
    store.restart()
    population.advance(200)
    newest = max(population.toolstack.domains)
    assert store.tree.get(f"/local/domain/{newest}/name") is not None
    assert newest in store.domains


def test_none_is_nobody() -> None:
    population = Population(Store(), 0)
    assert population.due is None
    assert population.advance(10.0) == 0
    assert population.now == 10.0
    with pytest.raises(IndexError):
        population.step()


async def test_time_goes_by_as_fast_as_is_asked_for() -> None:
    population = Population(Store(), 2, 1)
    living = asyncio.create_task(population.run(1000.0))
    async with asyncio.timeout(10):
        while population.now < 50:  # noqa: ASYNC110
            await asyncio.sleep(0)
    living.cancel()
    assert population.actions > 4


async def test_a_crowd_leaves_others_their_turn() -> None:
    """Other tasks come to their turn between a crowd's births."""
    population = Population(Store(), 200, 1)
    living = asyncio.create_task(population.run(1000.0))
    turns = 0
    async with asyncio.timeout(30):
        while population.toolstack.domains.keys() < set(range(1, 100)):
            await asyncio.sleep(0)
            turns += 1
    living.cancel()
    assert turns > 10


def test_a_guest_moves_with_its_name_and_uuid() -> None:
    store = Store()
    population = Population(store, 1, 0, QUICK)
    while population.step().kind is not Kind.ARRIVE:
        pass
    old, new = population.toolstack.domains.values()
    assert old.guest.uuid == new.guest.uuid
    while population.step().kind is not Kind.LEAVE:
        pass
    node = store.tree.get(f"{new.home}/name")
    assert node is not None
    assert node.value == b"guest0"
    assert old.domid not in store.domains
