"""Dirty sets: what changed, never how often.

A flood of events costs no more than the distinct paths in it, up to a limit; above it only "read all of it again" is
kept. A path in a dirty set says: this node, or anything below it, may have changed. Read it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable, Iterable
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

from xenmesh.xenstore.errors import DisconnectedError, UsageError, XenstoreError
from xenmesh.xenstore.paths import covers

__all__ = ["LIMIT", "Dirty", "DirtySet", "Registrar", "Registration", "Watch", "WatchSet"]

LIMIT = 1024
"""Most distinct paths that a dirty set keeps."""

K = TypeVar("K", bound=Hashable)


class Dirty(NamedTuple):
    """What to read again.

    `paths`: the nodes reported. `initial`: among them is the root of a watch just set (or set again), so read it whole.
    `overflow`: events are missing (too many paths, or the connection was lost): read everything watched again, whatever
    `paths` holds. `error`: the watch is dead, nothing more will come of it; remove its key.
    """

    paths: frozenset[str]
    overflow: bool = False
    initial: bool = False
    error: XenstoreError | None = None


class DirtySet:
    """Paths reported since the last `take`, at most `limit` of them."""

    __slots__ = ("_initial", "_limit", "_overflow", "_paths", "error", "overflows")

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._paths: set[str] = set()
        self._overflow = False
        self._initial = False
        self.overflows = 0
        self.error: XenstoreError | None = None

    def add(self, path: str, *, initial: bool = False, resync: bool = False) -> None:
        """Note that `path` may have changed; `initial`: it is a watch's root; `resync`: events before are missing."""
        self._initial |= initial
        self._overflow |= resync
        paths = self._paths
        if path in paths:
            return
        if len(paths) < self._limit:
            paths.add(path)
        elif not self._overflow:
            self._overflow = True
            self.overflows += 1
            paths.clear()

    def take(self) -> Dirty:
        """Return what is noted, and begin anew."""
        dirty = Dirty(frozenset(self._paths), self._overflow, self._initial, self.error)
        self._paths.clear()
        self._overflow = self._initial = False
        return dirty

    def __bool__(self) -> bool:
        return bool(self._paths) or self._overflow or self.error is not None


class Registration:
    """One watch at the server, through all its connections."""

    __slots__ = ("confirmed", "depth", "dirty", "fired", "notify", "path", "resync", "token")

    def __init__(
        self,
        path: str,
        token: bytes,
        depth: int | None,
        dirty: DirtySet,
        notify: Callable[[], None],
    ) -> None:
        self.path = path
        self.token = token
        self.depth = depth
        self.dirty = dirty
        self.notify = notify
        self.confirmed = False
        """Whether the server has ever said OK; only such watches are set again."""
        self.fired = False
        """Whether the initial event of this connection has come."""
        self.resync = False
        """Whether it was set before, on a connection that was lost."""

    def lost(self) -> None:
        """Note that the connection went."""
        self.fired = False
        self.resync = True

    def failed(self, error: XenstoreError) -> None:
        """Note that nothing more will come."""
        self.dirty.error = error
        self.notify()

    def event(self, path: str) -> None:
        """Take an event's path."""
        if not self.fired:
            self.fired = True
            self.dirty.add(path, initial=True, resync=self.resync)
        elif self.depth is not None and not covers(self.path, path, self.depth):
            return
        else:
            self.dirty.add(path)
        self.notify()


class Registrar(Protocol):
    """What a WatchSet needs of the store."""

    async def register(self, registrations: Iterable[Registration]) -> None:
        """Set the watches; all or none. Raises XenstoreError."""

    def unregister(self, registration: Registration) -> None:
        """Drop the watch, at once and without waiting."""

    def new_token(self) -> bytes:
        """Return a token that no other watch of the store has."""


class _Entry(Generic[K]):
    """A key's dirty set and watches. It is queued when it becomes dirty, handed out once, and then waits for `take`."""

    __slots__ = ("dirty", "gone", "handed", "key", "queued", "registrations")

    def __init__(self, key: K, limit: int) -> None:
        self.key = key
        self.dirty = DirtySet(limit)
        self.registrations: list[Registration] = []
        self.queued = False
        self.handed = False
        self.gone = False


class WatchSet(Generic[K]):
    """Many watches, each under a key, and one reader.

    `key = await next()` hands out dirty keys (any but None) in the order in which they became dirty, each once; `take(key)`, at once or
    later, returns what is dirty there and lets the key be handed out again. A key that is not taken goes on collecting, in
    bounded space, and delays no other. `async for key, dirty in watches` does both. One reader at a time.
    """

    def __init__(self, store: Registrar, limit: int = LIMIT) -> None:
        self._store = store
        self._limit = limit
        self._entries: dict[K, _Entry[K]] = {}
        self._ready: deque[_Entry[K]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self.overflows = 0
        """How often a dirty set was full."""

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    async def add(self, key: K, *paths: str, depth: int | None = None) -> None:
        """Watch `paths` under `key`, which may have watches already; the first event of each is `initial`.

        `depth`: levels below each path that count; where the server does not know of it the rest is dropped here. Raises
        XenstoreError, and has then set none of them.
        """
        if self._closed:
            raise UsageError("this set of watches is closed")
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(key, self._limit)

        def notify() -> None:
            self._dirtied(entry)

        registrations = [Registration(path, self._store.new_token(), depth, entry.dirty, notify) for path in paths]
        entry.registrations += registrations
        try:
            await self._store.register(registrations)
        except BaseException:
            entry.registrations = [r for r in entry.registrations if r not in registrations]
            if not entry.registrations and not entry.gone:
                self.remove(key)
            raise
        if entry.gone:
            for registration in registrations:
                self._store.unregister(registration)

    def remove(self, key: K) -> None:
        """Drop the key's watches and what is dirty there; events under way are dropped too. No key, no error."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            entry.gone = True
            self.overflows += entry.dirty.overflows
            for registration in entry.registrations:
                self._store.unregister(registration)

    def _dirtied(self, entry: _Entry[K]) -> None:
        if not entry.queued and not entry.gone:
            entry.queued = True
            self._ready.append(entry)
            self.wake()

    def wake(self) -> None:
        """Let a `wait` under way return now."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> K:
        """Wait for a dirty key and return it; then `take` it. Raises DisconnectedError once the set is closed."""
        while (key := self.poll()) is None:
            if self._closed:
                raise DisconnectedError("this set of watches is closed")
            await self.wait()
        return key

    def poll(self) -> K | None:
        """Return what `next` would without waiting, or None."""
        while self._ready:
            entry = self._ready.popleft()
            if not entry.gone:
                entry.handed = True
                return entry.key
        return None

    async def wait(self) -> None:
        """Wait until `poll` may have a key, the set is closed, or someone calls `wake`."""
        if self._ready or self._closed:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def take(self, key: K) -> Dirty:
        """Return what is dirty under `key`, and begin to collect anew. A key that is gone has nothing dirty."""
        entry = self._entries.get(key)
        if entry is None:
            return Dirty(frozenset())
        if entry.queued and not entry.handed:
            self._ready.remove(entry)
        entry.queued = entry.handed = False
        return entry.dirty.take()

    def __aiter__(self) -> AsyncIterator[tuple[K, Dirty]]:
        return self

    async def __anext__(self) -> tuple[K, Dirty]:
        key = await self.next()
        return key, self.take(key)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop all watches; a waiting reader gets DisconnectedError."""
        self._closed = True
        for key in list(self._entries):
            self.remove(key)
        self._ready.clear()
        self.wake()


class Watch:
    """One watch: `await changed()`, or `async for dirty in watch`."""

    def __init__(self, watches: WatchSet[str]) -> None:
        self._watches = watches

    async def changed(self) -> Dirty:
        """Wait until something is dirty, and return it. The first time comes at once (`initial`).

        Raises the error that ended the watch: it could not be set again, or the store was closed.
        """
        dirty = self._watches.take(await self._watches.next())
        if dirty.error is not None:
            self._watches.close()
            raise dirty.error
        return dirty

    def __aiter__(self) -> AsyncIterator[Dirty]:
        return self

    async def __anext__(self) -> Dirty:
        return await self.changed()
