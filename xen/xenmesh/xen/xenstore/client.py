"""Xenstore for tasks: requests that may overlap, watches that survive, transactions.

One connection serves any number of tasks: requests are pipelined, answers resolve futures straight from the reader's
callback. When the connection is lost, requests under way fail with OutcomeUnknown, new ones with DisconnectedError, and a
task of ours reconnects, sets every watch again and marks everything watched as dirty.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from enum import Enum
from typing import NamedTuple, TypeVar

import anyio

from xenmesh.xen.xenstore.operations import Operations, Transaction
from xenmesh.xen.xenstore.session import Session
from xenmesh.xen.xenstore.transport import open_transport
from xenmesh.xen.xenstore.watches import LIMIT, Registration, Watch, WatchSet
from xenmesh.xenstore.errors import (
    ConflictError,
    DisconnectedError,
    LinkError,
    OutcomeUnknown,
    ServerError,
    XenstoreError,
)
from xenmesh.xenstore.messages import (
    Control,
    GetDomainPath,
    Introduce,
    IsDomainIntroduced,
    Message,
    Release,
    Request,
    Resume,
    SetTarget,
    Unwatch,
    WatchEvent,
)
from xenmesh.xenstore.messages import Watch as WatchRequest

__all__ = ["State", "Statistics", "Xenstore"]

R = TypeVar("R")
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

RECONNECT_FIRST = 0.01
RECONNECT_MAX = 2.0
"""Seconds between attempts to connect: doubled each time, and each shortened at random by up to a half."""

CONFLICT_FIRST = 0.001
CONFLICT_MAX = 0.1
"""Seconds before a transaction is run again, in the same way."""

ATTEMPTS = 64

SENTINEL = "/tool/xenmesh-sync"
"""A node that nobody makes; its watches fire when they are set, and never again."""


class State(Enum):
    """What is known of the connection."""

    UP = "up"
    """Connected; after a loss, watches are being set again."""
    LOST = "lost"
    """No connection: requests fail, watches are silent."""
    RESYNCED = "resynced"
    """After a loss: every watch is set again, and everything watched is dirty."""


class Statistics(NamedTuple):
    """Counters since the store was opened."""

    connects: int
    losses: int
    violations: int
    """Losses because the peer broke the protocol."""
    events: int
    stray_events: int
    """Events that no watch wanted (any more)."""


class Xenstore(Operations):
    """The store. Open it with `async with Xenstore.connect() as store`."""

    def __init__(self, path: str | None = None, *, reconnect: bool = True, portable: bool = False) -> None:
        self._path = path
        self._reconnect = reconnect
        self._portable = portable
        self._session: Session | None = None
        self._state = State.LOST
        self._lost = asyncio.Event()
        self._connected = asyncio.Event()
        self._finished = False
        self._registrations: dict[bytes, Registration] = {}
        self._last_token = 0
        self._observers: set[Callable[[State], None]] = set()
        self._connects = self._losses = self._violations = self._events = self._strays = 0

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, path: str | None = None, *, reconnect: bool = True, portable: bool = False
    ) -> AsyncIterator[Xenstore]:
        """Open the store at `path` (a socket or a device; by default where libxenstore looks), close it at the end.

        `portable` refuses what only one of the servers takes (paths above 1024 bytes, values above 2048). Raises
        UnreachableError if none answers now; later losses are mended by reconnecting, unless `reconnect` is off.
        """
        store = cls(path, reconnect=reconnect, portable=portable)
        await store._open()
        keeper = asyncio.create_task(store._keep(), name="xenstore reconnect")
        # Should it ever die, whoever waits is told, and the block's end raises why.
        keeper.add_done_callback(lambda _: store._close())
        try:
            yield store
        finally:
            keeper.cancel()
            store._close()
            await asyncio.wait([keeper])
            if not keeper.cancelled():
                keeper.result()

    # -- the connection

    async def _open(self) -> None:
        transport = await open_transport(self._path, portable=self._portable)
        self._lost.clear()
        self._session = Session(transport, self._watch_event, self._session_lost)
        self._connects += 1
        self._connected.set()
        self._enter(State.UP)

    def _session_lost(self, session: Session, error: XenstoreError) -> None:
        self._losses += 1
        self._violations += not isinstance(error, LinkError)
        self._strays += session.stray_events
        self._session = None
        for registration in self._registrations.values():
            registration.lost()
        self._connected.clear()
        self._lost.set()
        self._enter(State.LOST)

    async def _keep(self) -> None:
        """Reconnect whenever the connection is lost."""
        loop = asyncio.get_running_loop()
        delay = RECONNECT_FIRST
        while True:
            opened = loop.time()
            await self._lost.wait()
            if not self._reconnect:
                return self._finish()
            # A server that takes connections only to drop them is not asked any faster for it.
            if loop.time() - opened > RECONNECT_MAX:
                delay = RECONNECT_FIRST
            while self._session is None:
                await anyio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - jitter, no secret
                delay = min(delay * 2, RECONNECT_MAX)
                with suppress(LinkError):
                    await self._open()
            if await self._restore():
                self._enter(State.RESYNCED)

    async def _restore(self) -> bool:
        """Set every watch again; a watch that is refused ends. Returns whether the connection lived through it.

        All initial events have come when it returns.
        """
        registrations = [r for r in self._registrations.values() if r.confirmed]
        try:
            requests = [await self._watch_request(r) for r in registrations]
            answers = await self.ask_all(requests)
            await self.sync()
        except XenstoreError as error:
            if self._session is not None:
                self._session.lose(error)
            return False
        for registration, answer in zip(registrations, answers, strict=True):
            if answer is not None:
                self._registrations.pop(registration.token, None)
                registration.failed(answer)
        return True

    def _finish(self) -> None:
        """End what waits: there will be no other connection."""
        error = DisconnectedError("the connection to xenstored is lost")
        for registration in list(self._registrations.values()):
            registration.failed(error)
        self._registrations.clear()
        self._finished = True
        self._connected.set()
        self._enter(State.LOST)

    def _close(self) -> None:
        self._reconnect = False
        if self._session is not None:
            self._session.lose(DisconnectedError("the store is closed"))
        if not self._finished:
            self._finish()

    # -- its state

    @property
    def state(self) -> State:
        """What is known of the connection now."""
        return self._state

    @property
    def statistics(self) -> Statistics:
        """Counters since the store was opened."""
        strays = self._strays + (self._session.stray_events if self._session else 0)
        return Statistics(self._connects, self._losses, self._violations, self._events, strays)

    def _enter(self, state: State) -> None:
        self._state = state
        for observer in list(self._observers):
            observer(state)

    async def states(self) -> AsyncIterator[State]:
        """Yield the state now, and each later one, until the store is closed; a slow reader misses the oldest."""
        seen: deque[State] = deque([self._state], maxlen=16)
        changed = asyncio.Event()

        def observe(state: State) -> None:
            seen.append(state)
            changed.set()

        self._observers.add(observe)
        try:
            while True:
                while seen:
                    yield seen.popleft()
                if self._finished:
                    return
                changed.clear()
                await changed.wait()
        finally:
            self._observers.discard(observe)

    async def up(self) -> None:
        """Wait until there is a connection. Raises DisconnectedError if there will be none."""
        await self._connected.wait()
        self._current()

    # -- requests

    def _current(self) -> Session:
        if self._session is None:
            raise DisconnectedError("no connection to xenstored")
        return self._session

    async def _ask_raw(self, message: Message) -> bytes:
        return await self._current().send(message)

    async def ask_all(self, messages: Sequence[Request[R]]) -> list[R | ServerError]:
        """Send many requests at once; return each answer or the server's refusal, in order."""
        return await self._current().answers(messages)

    async def is_domain_introduced(self, domid: int) -> bool:
        """Whether xenstored talks to the domain."""
        return await self.ask(IsDomainIntroduced(domid))

    async def get_domain_path(self, domid: int) -> str:
        """Return the domain's home; it need not exist."""
        return await self.ask(GetDomainPath(domid))

    async def introduce(self, domid: int, gfn: int, port: int) -> None:
        """Let xenstored talk to a new domain, through the page `gfn` and the event channel `port`."""
        await self.ask(Introduce(domid, gfn, port))

    async def release(self, domid: int) -> None:
        """Let xenstored no longer talk to a domain."""
        await self.ask(Release(domid))

    async def resume(self, domid: int) -> None:
        """Let @releaseDomain fire again for a domain that was seen to shut down."""
        await self.ask(Resume(domid))

    async def set_target(self, domid: int, target: int) -> None:
        """Give the stub domain `domid` the rights of `target`."""
        await self.ask(SetTarget(domid, target))

    async def control(self, *arguments: str | bytes) -> str:
        """Ask the daemon itself, such as `control("print", "text")`; the commands differ by server."""
        return await self.ask(Control(tuple(a.encode() if isinstance(a, str) else a for a in arguments)))

    # -- transactions

    def transaction(self) -> Transaction:
        """Return a transaction: `async with store.transaction() as tx`, and use `tx` as the store."""
        return Transaction(self._current)

    async def transact(self, body: Callable[[Transaction], Awaitable[T]], *, attempts: int = ATTEMPTS) -> T:
        """Run `body` in a transaction, again on each conflict, and return what it returns.

        The body must do the same when run again. Raises ConflictError after `attempts`, else as `transaction` does.
        """
        delay = CONFLICT_FIRST
        while True:
            attempts -= 1
            try:
                async with self.transaction() as transaction:
                    result = await body(transaction)
            except ConflictError:
                if attempts <= 0:
                    raise
                await anyio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - jitter, no secret
                delay = min(delay * 2, CONFLICT_MAX)
            else:
                return result

    # -- watches

    def watches(self, limit: int = LIMIT) -> WatchSet[K]:
        """Return an empty set of watches, to be used as `async with`; `limit`: most paths kept dirty under one key."""
        return WatchSet(self, limit)

    @asynccontextmanager
    async def watch(self, path: str, *, depth: int | None = None, limit: int = LIMIT) -> AsyncIterator[Watch]:
        """Watch a node and all below it, to `depth` levels. Dropped at the block's end."""
        watches: WatchSet[str] = WatchSet(self, limit)
        await watches.add(path, path, depth=depth)
        try:
            yield Watch(watches)
        finally:
            watches.close()

    async def wait(
        self,
        paths: str | Iterable[str],
        predicate: Callable[[Mapping[str, bytes | None]], bool],
    ) -> dict[str, bytes | None]:
        """Wait until `predicate` is true of the values of `paths` (None: no such node), and return them.

        Lasts through losses of the connection, but needs one to begin (DisconnectedError). Raises ServerError for a node
        that may not be read.
        """
        wanted = [paths] if isinstance(paths, str) else list(paths)
        watches: WatchSet[str] = WatchSet(self)
        try:
            await watches.add("", *wanted)
            while True:
                dirty = watches.take(await watches.next())
                if dirty.error is not None:
                    raise dirty.error
                with suppress(OutcomeUnknown, DisconnectedError):
                    values = await self._values(wanted)
                    if predicate(values):
                        return values
        finally:
            watches.close()

    async def sync(self) -> None:
        """Return when the events of all that was changed before this was called have been delivered to their watches.

        Over the socket events keep their order with answers, so the answer to any request will do. Linux hands events on from a thread of its
        own, which an answer may overtake, but keeps them in order among themselves: there it takes a watch's initial event.
        """
        if not self._current().kernel:
            await self.get_domain_path(0)
            return
        watches: WatchSet[str] = WatchSet(self)
        try:
            await watches.add("", SENTINEL)
            error = watches.take(await watches.next()).error
        finally:
            watches.close()
        if error is not None:
            raise error

    async def _values(self, paths: Sequence[str]) -> dict[str, bytes | None]:
        values: dict[str, bytes | None] = {}
        for path, answer in zip(paths, await self.read_many(paths), strict=True):
            if isinstance(answer, ServerError) and answer.code != "ENOENT":
                raise answer
            values[path] = answer if isinstance(answer, bytes) else None
        return values

    def new_token(self) -> bytes:
        """Return a watch token that was never used on this store."""
        self._last_token += 1
        return b"%x" % self._last_token

    async def register(self, registrations: Iterable[Registration]) -> None:
        """Set watches, all or none."""
        registrations = list(registrations)
        session = self._current()
        requests = [await self._watch_request(r) for r in registrations]
        for registration in registrations:
            self._registrations[registration.token] = registration
        try:
            answers = await session.answers(requests)
            refusals = [answer for answer in answers if answer is not None]
        except BaseException:
            self._unregister_all(registrations)
            raise
        if refusals:
            self._unregister_all(registrations)
            raise refusals[0]
        for registration in registrations:
            registration.confirmed = True

    def _unregister_all(self, registrations: Iterable[Registration]) -> None:
        for registration in registrations:
            self.unregister(registration)

    async def _watch_request(self, registration: Registration) -> WatchRequest:
        depth = registration.depth if await self._knows_depth(registration) else None
        return WatchRequest(registration.path, registration.token, depth)

    async def _knows_depth(self, registration: Registration) -> bool:
        """Ask the server, once a connection, whether it knows watch depths, by a watch that is thrown away."""
        if registration.depth is None:
            return False
        session = self._current()
        if session.depth is None:
            token = self.new_token()
            try:
                await session.send(WatchRequest("/", token, 0))
            except ServerError:
                session.depth = False
            else:
                session.depth = True
                session.post(Unwatch("/", token))
        return session.depth

    def unregister(self, registration: Registration) -> None:
        """Drop a watch, at once."""
        if self._registrations.pop(registration.token, None) and self._session is not None:
            self._session.post(Unwatch(registration.path, registration.token))

    def _watch_event(self, event: WatchEvent) -> None:
        self._events += 1
        registration = self._registrations.get(event.token)
        if registration is not None:
            registration.event(event.path)
