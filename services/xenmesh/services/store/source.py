"""What happens in xenstore, as observations: watches tell where to look, reading tells what is there.

One reader does everything, in rounds: take what is dirty, ask for it in one pipelined batch, hand the answers on, begin again (`rounds`). So
a single change costs one READ and no other hop. Domains are found by listing ``/local/domain`` at the start and whenever xenstored says that
one came or went, by libxl's ``/libxl/<domid>`` (written before the domain is introduced), by a watch of ``/local/domain`` one level deep where
xenstored can do that, and by listing again every few seconds as a net under all these.

One thing xenstored tells nobody: a parent made on the way to a node that the same transaction removes again. Such an empty node is found when
something below it is written, or when its tree is read whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from math import inf

import anyio
import anyio.lowlevel
from anyio.abc import TaskStatus

from xenmesh.bus.errors import Refused
from xenmesh.schemas import store as says
from xenmesh.schemas.envelope import Item
from xenmesh.schemas.service import Source as SourceEvent
from xenmesh.schemas.service import SourceState
from xenmesh.schemas.store import Area, Limit
from xenmesh.xen.xenstore import State, WatchSet, Xenstore
from xenmesh.xenstore.errors import LimitError, LinkError, ListingError, ServerError, UsageError
from xenmesh.xenstore.messages import Directory, Unwatch, Watch
from xenmesh.xenstore.paths import INTRODUCE_DOMAIN, RELEASE_DOMAIN

from .config import StoreConfig
from .model import Flood, Gone, Key, Left, Lost, Model, Observation, Resynced, Told, Value
from .redaction import Redaction
from .rounds import DOMAINS, Batch, Lane, Rounds, is_domid

__all__ = ["Source", "recorded"]

_log = logging.getLogger(__name__)

BELL = "@"
"""The key of the watches that tell of domains coming and going."""

DIRTY = 1024
"""Paths that a watch keeps dirty; above that, all of the lane is read again."""

OPENING = 32
"""Watches that are set between two rounds."""


class _Ticket:
    """Someone waits until all that was dirty at one moment has been handed on."""

    def __init__(self) -> None:
        self.called = anyio.Event()
        self.lost = False
        self.number: int | None = None
        """What was asked for up to this number must be handed on; None as long as that is not known."""


class Source:
    """xenstored, observed. Open it, then read `observations`; each batch must be applied to the model before the next is asked for."""

    def __init__(
        self,
        store: Xenstore,
        watches: WatchSet[Key],
        config: StoreConfig,
        model: Model,
        redaction: Redaction,
        counters: Counter[str],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._watches = watches
        self._config = config
        self._model = model
        self._rounds = Rounds(config, model, redaction, counters)
        self._states: deque[State] = deque()
        self._up = True
        self._resyncing = True
        self._listing = True
        """`/local/domain` is to be listed."""
        self._reconciled = -inf
        self._unwatched: dict[Key, None] = {}
        """Lanes to watch."""
        self._tickets: list[_Ticket] = []
        self._bells: set[str] = set()
        self._counters = counters

    @classmethod
    @asynccontextmanager
    async def open(
        cls, store: Xenstore, config: StoreConfig, model: Model, redaction: Redaction, counters: Counter[str]
    ) -> AsyncIterator[Source]:
        """A source over ``store``; its watches go when the block ends. ``counters`` counts what it does: ``source.requests``, ..."""
        watches: WatchSet[Key] = store.watches(DIRTY)
        async with watches, anyio.create_task_group() as group:
            source = cls(store, watches, config, model, redaction, counters)
            await group.start(source._follow_states)
            try:
                yield source
            finally:
                group.cancel_scope.cancel()

    async def alive(self) -> None:
        """One round trip over the connection that the source works with. Raises LinkError."""
        with suppress(ServerError):
            await self._store.read("/")

    async def passed(self) -> None:
        """Return when all that xenstored had done before this was called has been handed on; a shed domain is not waited for.

        Raises:
            Refused: ``store-lost``; ask again later.
        """
        ticket = _Ticket()
        try:
            await self._store.sync()
        except LinkError as error:
            raise Refused.of("store-lost") from error
        if self._store.state is State.LOST:
            # Lost since: those who wait were told already.
            raise Refused.of("store-lost")
        self._tickets.append(ticket)
        # A domain may be there that nothing has told of yet.
        self._listing = True
        self._watches.wake()
        await ticket.called.wait()
        if ticket.lost:
            raise Refused.of("store-lost")

    # -- the loop

    async def observations(self) -> AsyncGenerator[list[Observation], None]:
        """What is there, then what happens, for ever. `Resynced` ends the first reading, and each one after a loss."""
        self._begin()
        while True:
            if self._states and (news := self._take_states()):
                yield news
            self._drain()
            if self._tickets:
                self._number_tickets()
            batch = None
            if self._up:
                try:
                    now = self._loop.time()
                    if self._unwatched:
                        await self._open_lanes()
                    if self._listing or now >= self._reconciled + self._config.reconcile:
                        await self._list(now)
                    batch = self._rounds.next(now)
                    answers = await self._ask(batch) if batch.requests else []
                except LinkError:
                    # The state LOST comes as well, and all is read again after it.
                    self._up, batch = False, None
            if batch is not None and batch.requests:
                yield self._rounds.digest(batch, answers)
                more = self._rounds.applied(batch, self._loop.time()) + self._settle(batch.domids)
                if more:
                    yield more
            if floods := self._turn_floods():
                yield floods
            if self._up and self._resyncing and not (self._listing or self._unwatched or self._rounds.reading):
                self._resyncing = False
                yield [Resynced()]
            if self._tickets:
                self._call_tickets()
            await self._sleep()

    def _begin(self) -> None:
        self._unwatched[BELL] = None
        for tree in self._config.trees:
            self._watch_lane(tree)

    async def _ask(self, batch: Batch) -> list[object]:
        answers: list[object] = list(await self._store.ask_all(batch.requests))
        for index, answer in enumerate(answers):
            if isinstance(answer, LimitError) and isinstance(request := batch.requests[index], Directory):
                with suppress(ServerError, ListingError):
                    answers[index] = await self._store.directory(request.path)
        return answers

    async def _sleep(self) -> None:
        """Until something is dirty, due, or wanted."""
        due = inf
        if self._up and not (self._unwatched or self._listing or (self._unnumbered and not self._rounds.unheard)):
            due = min(self._rounds.due(), self._reconciled + self._config.reconcile)
        elif self._up:
            due = -inf
        if due <= self._loop.time() or self._states:
            # Others get their turn: a source that is never idle must not keep the loop to itself.
            await anyio.lowlevel.checkpoint()
            return
        # A cancel scope would do it too, for several times as much.
        timer = self._loop.call_at(due, self._watches.wake) if due < inf else None
        try:
            await self._watches.wait()
        finally:
            if timer is not None:
                timer.cancel()

    # -- what is dirty

    def _drain(self) -> None:
        """Take all that is dirty now, without waiting."""
        while (key := self._watches.poll()) is not None:
            self._take(key)
        if self._rounds.hinted:
            for domid in self._rounds.hinted:
                self._watch_lane(domid)
            self._rounds.ask_after(self._rounds.hinted)
            self._rounds.hinted.clear()

    def _take(self, key: Key) -> None:
        dirty = self._watches.take(key)
        self._counters["source.overflows"] += dirty.overflow and not dirty.initial
        if dirty.error is not None:
            _log.warning("the watch of %s ended: %s", key, dirty.error)
            self._watches.remove(key)
            self._unwatched[key] = None
        elif key == BELL:
            self._listing = True
            self._bells |= {INTRODUCE_DOMAIN, RELEASE_DOMAIN} if dirty.overflow else dirty.paths
        elif (lane := self._rounds.lanes.get(key)) is not None:
            if dirty.initial or dirty.overflow:
                self._rounds.walk(lane)
            else:
                self._rounds.mark(dirty.paths)

    # -- watches

    def _watch_lane(self, key: Key) -> None:
        lane = self._rounds.open(key, self._loop.time())
        if key not in self._watches and lane.shedding is None:
            self._unwatched[key] = None

    async def _open_lanes(self) -> None:
        for key in list(self._unwatched)[:OPENING]:
            if key == BELL:
                await self._open_bell()
            elif key in self._rounds.lanes:
                lane = self._rounds.lanes[key]
                try:
                    # The watch's first event asks for the walk: read any sooner, a change that xenstored folds into that event is missed.
                    await self._watches.add(key, lane.root)
                except ServerError as error:
                    _log.warning(
                        "xenstored refuses a watch of %s, which is read every %s s: %s",
                        lane.root,
                        self._config.reconcile,
                        error,
                    )
                    self._rounds.walk(lane)
            del self._unwatched[key]

    async def _open_bell(self) -> None:
        # A loss half way may have left some of them.
        self._watches.remove(BELL)
        try:
            await self._watches.add(BELL, INTRODUCE_DOMAIN, RELEASE_DOMAIN)
        except ServerError as error:
            _log.warning("xenstored refuses to tell of domains, which are listed every %s s: %s", self._config.reconcile, error)
            return
        token = b"depth?"
        try:
            await self._store.ask(Watch("/", token, 0))
        except (ServerError, UsageError):
            # An old xenstored, or Linux's device, which takes no notice of depths.
            return
        # Without depths in the server this watch would hear every change of every domain.
        await self._store.ask(Unwatch("/", token))
        await self._watches.add(BELL, DOMAINS, depth=1)

    def _turn_floods(self) -> list[Observation]:
        found: list[Observation] = []
        for lane in self._rounds.shed:
            self._watches.remove(lane.key)
            self._unwatched.pop(lane.key, None)
            found += self._flood(lane, active=True)
        for lane in self._rounds.restored:
            found += self._flood(lane, active=False)
            lane.shedding = None
            self._unwatched[lane.key] = None
        self._rounds.shed.clear()
        self._rounds.restored.clear()
        return found

    def _flood(self, lane: Lane, *, active: bool) -> list[Observation]:
        if lane.domid is None or lane.shedding is None:
            return []
        _log.log(
            logging.WARNING if active else logging.INFO,
            "domain %d %s",
            lane.domid,
            "writes faster than its budget; it is read slowly until it is quiet" if active else "is quiet again",
            extra={"domain_id": lane.domid, "event": "store.flooding"},
        )
        return [Flood(lane.domid, active, lane.shedding.folded)]

    # -- domains

    async def _list(self, now: float) -> None:
        """List the domains, and ask after those that may stand otherwise than is known."""
        reconciling = now >= self._reconciled + self._config.reconcile
        known = self._model.present
        # Before it asks: whoever wants a listing meanwhile gets another.
        bells, self._bells = self._bells, set()
        self._listing = False
        try:
            listed = {int(name) for name in await self._store.directory(DOMAINS) if is_domid(name)}
        except (ServerError, ListingError):
            listed = set()
        lanes = {key for key in self._rounds.lanes if isinstance(key, int)}
        asked = listed ^ known
        if reconciling:
            self._reconciled = now
            asked |= lanes - known
            if BELL not in self._watches:
                self._unwatched[BELL] = None
        if self._resyncing:
            asked |= self._model.domids | listed
        if INTRODUCE_DOMAIN in bells:
            asked |= {domid for domid in known if not self._model.introduced(domid)}
        if RELEASE_DOMAIN in bells:
            asked |= {domid for domid in known if self._model.introduced(domid)}
        for domid in sorted(listed - lanes):
            self._watch_lane(domid)
        for key, lane in self._rounds.lanes.items():
            if key not in self._watches and lane.shedding is None and key not in self._unwatched:
                self._unwatched[key] = None
        self._rounds.ask_after(sorted(asked))

    def _settle(self, domids: list[int]) -> list[Observation]:
        """These domains were asked after: watch those that are there, and no others."""
        found: list[Observation] = []
        if domids:
            self._drain()
        for domid in domids:
            if domid in self._model.domids:
                self._watch_lane(domid)
            elif (lane := self._rounds.lanes.get(domid)) is None or self._model.knows(f"/libxl/{domid}"):
                continue
            elif lane.shedding is None and (lane.dirty or lane.walks):
                # Its watch may have told of it after the question was answered: it may be there again.
                self._rounds.ask_after([domid])
            else:
                found += self._flood(lane, active=False)
                found += [Left(domid, {})] if self._model.capped(domid) else []
                self._rounds.close(domid)
                self._watches.remove(domid)
                self._unwatched.pop(domid, None)
        return found

    # -- the connection

    async def _follow_states(self, *, task_status: TaskStatus[None]) -> None:
        first = True
        async for state in self._store.states():
            if state is not State.UP:
                self._states.append(state)
                self._watches.wake()
            if first:
                first = False
                task_status.started()

    def _take_states(self) -> list[Observation]:
        found: list[Observation] = []
        while self._states:
            if self._states.popleft() is State.LOST:
                self._up = False
                self._rounds.lost()
                for ticket in self._tickets:
                    ticket.lost = True
                    ticket.called.set()
                self._tickets.clear()
                found.append(Lost("the connection was lost"))
            else:
                self._up = self._resyncing = self._listing = True
                for lane in self._rounds.lanes.values():
                    self._rounds.walk(lane)
                for key in (BELL, *self._rounds.lanes):
                    if key not in self._watches and (key == BELL or self._rounds.lanes[key].shedding is None):
                        self._unwatched[key] = None
        return found

    # -- barriers

    @property
    def _unnumbered(self) -> bool:
        return any(ticket.number is None for ticket in self._tickets)

    def _number_tickets(self) -> None:
        # Right after all that the watches told was taken in, with no wait between: so nothing of before is left out.
        if not (self._listing or self._unwatched or self._rounds.asking or self._rounds.unheard):
            for ticket in self._tickets:
                if ticket.number is None:
                    ticket.number = self._rounds.number

    def _call_tickets(self) -> None:
        met = [ticket for ticket in self._tickets if ticket.number is not None and self._rounds.passed(ticket.number)]
        for ticket in met:
            self._tickets.remove(ticket)
            ticket.called.set()


def recorded(items: Iterable[Item]) -> Iterator[Observation]:
    """A recorded stream of the store's events, or the items of a snapshot, as observations: given to a model they make the same events.

    Of a value that was cut or is a secret the rest is unknown; what the model says of it is all the same.
    """
    left: dict[Key, dict[tuple[int | None, Area], tuple[Limit, int]]] = {}
    for number, item in enumerate(items):
        match item:
            case says.Changed(path=path, value=value, raw=raw, size=size, redacted=redacted):
                kept = b"%d" % number if redacted else (value.encode() if value is not None else raw or b"")
                yield Value(path, kept, size, redacted)
            case says.Removed(path=path):
                yield Gone(path)
            case says.DomainSeen() | says.DomainGone():
                yield Told(item)
            case says.Capped(domid=domid, area=area, limit=limit, left_out=count):
                key = "host" if domid is None else domid
                areas = left[key] = dict(left.get(key, {}))
                areas.pop((domid, area), None)
                if limit is not None:
                    areas[domid, area] = (limit, count)
                yield Left(key, areas)
            case says.Flooding(domid=domid, active=active, dropped=dropped):
                yield Flood(domid, active, dropped)
            case SourceEvent(state=SourceState.LOST, why=why):
                yield Lost(why)
            case SourceEvent(state=SourceState.RESYNCED):
                yield Resynced()
