"""Dirty sets, against a registrar that only remembers; the real servers are met in test_client."""

from collections.abc import Iterable

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs.waiting import eventually

from xenmesh.xen.xenstore.watches import Dirty, DirtySet, Registration, Watch, WatchSet
from xenmesh.xenstore.errors import AccessError, DisconnectedError, ServerError, UsageError


class Registry:
    """Remembers the watches; `fire` is the server."""

    def __init__(self) -> None:
        self.live: dict[bytes, Registration] = {}
        self.refused: set[str] = set()
        self._last = 0
        self.gate = anyio.Event()
        self.gate.set()

    def new_token(self) -> bytes:
        self._last += 1
        return str(self._last).encode()

    async def register(self, registrations: Iterable[Registration]) -> None:
        registrations = list(registrations)
        await self.gate.wait()
        if any(registration.path in self.refused for registration in registrations):
            raise ServerError.of("EACCES")
        for registration in registrations:
            self.live[registration.token] = registration
            registration.event(registration.path)

    def unregister(self, registration: Registration) -> None:
        self.live.pop(registration.token, None)

    def fire(self, path: str) -> None:
        for registration in list(self.live.values()):
            if path == registration.path or path.startswith(registration.path + "/"):
                registration.event(path)


@pytest.fixture
def registry() -> Registry:
    return Registry()


# -- one dirty set


def test_a_flood_costs_its_distinct_paths() -> None:
    dirty = DirtySet()
    for _ in range(1000):
        dirty.add("/a")

    assert dirty.take() == Dirty(frozenset({"/a"}))
    assert not dirty


@settings(deadline=None)
@given(st.lists(st.integers(0, 20)), st.integers(1, 8))
def test_nothing_is_lost_without_a_word(numbers: list[int], limit: int) -> None:
    dirty = DirtySet(limit)
    for number in numbers:
        dirty.add(f"/{number}")

    taken = dirty.take()
    assert len(taken.paths) <= limit
    assert taken.overflow or taken.paths == {f"/{number}" for number in numbers}
    assert taken.overflow == (len(set(numbers)) > limit)


def test_an_overflow_is_counted_once_and_forgotten_when_taken() -> None:
    dirty = DirtySet(2)
    for number in range(10):
        dirty.add(f"/{number}")

    assert dirty
    assert dirty.overflows == 1
    assert dirty.take().overflow
    assert dirty.take() == Dirty(frozenset())


# -- one registration


def registration(depth: int | None = None) -> tuple[Registration, DirtySet, list[str]]:
    dirty, notes = DirtySet(), list[str]()
    return Registration("/a", b"t", depth, dirty, lambda: notes.append("x")), dirty, notes


def test_the_first_event_is_the_initial_one() -> None:
    watch, dirty, notes = registration()
    watch.event("/a")
    assert dirty.take() == Dirty(frozenset({"/a"}), initial=True)

    watch.event("/a/b")
    assert dirty.take() == Dirty(frozenset({"/a/b"}))
    assert len(notes) == 2


def test_after_a_loss_everything_is_dirty() -> None:
    watch, dirty, _ = registration()
    watch.event("/a")
    dirty.take()
    watch.lost()
    watch.event("/a")

    assert dirty.take() == Dirty(frozenset({"/a"}), overflow=True, initial=True)


def test_depth_holds_where_the_server_knows_none() -> None:
    watch, dirty, notes = registration(depth=1)
    for path in ("/a", "/a/b", "/a/b/c", "/a/b/c/d"):
        watch.event(path)

    assert dirty.take().paths == {"/a", "/a/b"}
    assert len(notes) == 2


# -- many watches, one reader


async def test_keys_come_in_the_order_in_which_they_became_dirty(registry: Registry) -> None:
    async with WatchSet[int](registry) as watches:
        for domid in (3, 1, 2):
            await watches.add(domid, f"/{domid}", f"/vm-{domid}")
        assert [await watches.next() for _ in range(3)] == [3, 1, 2]
        assert watches.take(3) == Dirty(frozenset({"/3", "/vm-3"}), initial=True)


async def test_a_flooding_key_delays_no_other(registry: Registry) -> None:
    async with WatchSet[int](registry) as watches:
        await watches.add(1, "/1")
        await watches.add(2, "/2")
        for _ in range(2):
            watches.take(await watches.next())
        for number in range(5000):
            registry.fire(f"/1/{number}")
        registry.fire("/2/x")
        registry.fire("/1/y")

        assert [await watches.next() for _ in range(2)] == [1, 2]
        assert watches.take(2) == Dirty(frozenset({"/2/x"}))
        assert watches.take(1).overflow


async def test_a_key_that_is_not_taken_is_not_handed_out_again(registry: Registry) -> None:
    async with WatchSet[int](registry) as watches:
        await watches.add(1, "/1")
        await watches.add(2, "/2")
        assert [await watches.next() for _ in range(2)] == [1, 2]
        watches.take(2)
        registry.fire("/1/a")
        registry.fire("/2/a")

        assert await watches.next() == 2
        with anyio.move_on_after(0.02) as scope:
            await watches.next()
        assert scope.cancelled_caught

        assert watches.take(1).paths == {"/1", "/1/a"}
        registry.fire("/1/b")
        assert await watches.next() == 1


async def test_a_key_taken_before_its_turn_is_not_handed_out_for_it(registry: Registry) -> None:
    async with WatchSet[int](registry) as watches:
        await watches.add(1, "/1")
        await watches.add(2, "/2")

        assert watches.take(1).paths == {"/1"}
        assert await watches.next() == 2


async def test_a_removed_key_is_silent(registry: Registry) -> None:
    async with WatchSet[int](registry) as watches:
        await watches.add(1, "/1")
        await watches.add(2, "/2")
        assert 1 in watches
        watches.remove(1)
        watches.remove(1)

        assert 1 not in watches
        assert len(watches) == 1
        assert await watches.next() == 2
        assert watches.take(1) == Dirty(frozenset())
        assert [r.path for r in registry.live.values()] == ["/2"]


async def test_removed_while_it_is_being_added(registry: Registry) -> None:
    async with WatchSet[int](registry) as watches:
        registry.gate = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(watches.add, 1, "/1")
            await eventually(lambda: 1 in watches, "the add to begin")
            watches.remove(1)
            registry.gate.set()

        assert not registry.live
        assert 1 not in watches


async def test_a_refused_watch_leaves_nothing(registry: Registry) -> None:
    registry.refused.add("/secret")
    async with WatchSet[int](registry) as watches:
        with pytest.raises(AccessError):
            await watches.add(1, "/1", "/secret")
        assert 1 not in watches

        await watches.add(2, "/2")
        with pytest.raises(AccessError):
            await watches.add(2, "/secret")
        registry.fire("/2/a")
        assert await watches.next() == 2


async def test_iterating_takes_too(registry: Registry) -> None:
    async with WatchSet[int](registry) as watches:
        await watches.add(1, "/1")
        async for key, dirty in watches:
            assert (key, dirty.paths) == (1, {"/1"})
            break


async def test_closing_wakes_the_reader_and_drops_the_watches(registry: Registry) -> None:
    watches = WatchSet[int](registry)
    await watches.add(1, "/1")
    watches.take(await watches.next())
    failed = []

    async def read() -> None:
        try:
            await watches.next()
        except DisconnectedError as error:
            failed.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await eventually(lambda: watches._waiter is not None, "the reader to wait")
        watches.close()

    assert len(failed) == 1
    assert not registry.live
    with pytest.raises(UsageError):
        await watches.add(1, "/1")


async def test_overflows_are_counted_past_the_key(registry: Registry) -> None:
    watches = WatchSet[int](registry, limit=1)
    await watches.add(1, "/1")
    registry.fire("/1/a")
    watches.remove(1)

    assert watches.overflows == 1


# -- one watch


async def test_a_watch(registry: Registry) -> None:
    watches = WatchSet[str](registry)
    await watches.add("/a", "/a")
    watch = Watch(watches)

    assert await watch.changed() == Dirty(frozenset({"/a"}), initial=True)
    registry.fire("/a/b")
    async for dirty in watch:
        assert dirty.paths == {"/a/b"}
        break


async def test_a_watch_that_dies_says_why(registry: Registry) -> None:
    watches = WatchSet[str](registry)
    await watches.add("/a", "/a")
    watch = Watch(watches)
    await watch.changed()
    for live in list(registry.live.values()):
        live.failed(ServerError.of("EACCES"))

    with pytest.raises(AccessError):
        await watch.changed()


async def test_a_reader_may_look_without_waiting_and_be_woken_without_a_key(registry: Registry) -> None:
    async with WatchSet[str](registry) as watches, anyio.create_task_group() as group:
        assert watches.poll() is None
        woken = []

        async def wait() -> None:
            await watches.wait()
            woken.append(watches.poll())

        group.start_soon(wait)
        await eventually(lambda: watches._waiter, "the reader to wait")
        watches.wake()
        await eventually(lambda: woken == [None], "it to be woken for nothing")

        await watches.add("a", "/a")
        await watches.add("gone", "/b")
        watches.remove("gone")
        await watches.wait()
        assert watches.poll() == "a"
        assert watches.poll() is None
        watches.take("a")
        watches.close()
        await watches.wait()
        assert watches.poll() is None
