"""The consumer side: the contract with a service behind one async iterator; with `asking`, all that a consumer needs.

async with follow(bus, host, "store") as items:
    async for item in items:
        match item:
            case Snapshot():  state = {...}       # forget what was: this is all there is, as of (boot, seq)
            case Envelope():  apply(item.event)   # the next event; none was left out
            case Away():      ...                 # the last known state stands; a Snapshot follows when it is back
"""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import NamedTuple, Self

import anyio
import msgspec

from xenmesh.schemas import EVENTS, envelope, request, service, subjects
from xenmesh.schemas.envelope import Envelope, Item, Unknown
from xenmesh.schemas.request import Barrier, Health, HealthReport, Position, SnapshotPage
from xenmesh.schemas.subjects import Declaration

from .abc import Bus, Subscription
from .asking import ask, command
from .errors import BusClosed, BusLost, Forbidden, NoResponders, ProtocolError, Refused, Timeout
from .message import BusState, Message
from .order import Order, Verdict

__all__ = ["Away", "Followed", "Follower", "Snapshot", "ask", "command", "follow"]

_MESSAGES = 10_000
_BYTES = 16 << 20
_PAUSE = 0.1
"""Seconds of jitter before a snapshot is taken again; doubled by each that was needed or failed soon after another, up to `_LONGEST`."""

_LONGEST = 5.0
_CALM = 5.0
_QUIET = 15.0
"""Seconds after which a service is asked where it is, by those who hear no heartbeats (the read-only account)."""

_BEATS = 3
"""So many heartbeats may fail to come before it is asked."""

_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All there is as of ``(boot, seq)``: replaces whatever was known before."""

    boot: str
    seq: int
    items: list[Item]
    why: str
    """Why it was taken: ``first``, ``gap`` (events were missing), ``boot`` (the service began anew), ``reconnect`` (the bus was lost),
    ``heartbeat`` (the service has said more than was heard), ``slow`` (this consumer did not keep up), ``away`` (the service was)."""


class Away(msgspec.Struct, frozen=True, kw_only=True):
    """The service or the bus does not answer: nothing new is known, and what was known stands."""

    why: str


Followed = Snapshot | Envelope[Item] | Away
"""What a follower gives. The event of a type unknown here comes as `envelope.Unknown`, in its place, and is counted."""


class _Doubt(NamedTuple):
    """Something may be missing. Known when the first ``due`` messages have been looked at."""

    due: int
    boot: str
    seq: int
    newest: int | None = None
    """Of what is followed, by a barrier passed at ``seq``; None: it has not been asked yet."""


class Follower(AsyncIterator[Followed]):
    """Follows one service for ever; use it by ``async with``. Made by `follow`.

    It has no task of its own: all it does is done while an item is awaited. What comes meanwhile is held, up to 10,000 messages and 16 MiB;
    a consumer slower than that loses them all at once and gets a new `Snapshot` (``slow``).
    """

    counters: Counter[str]
    """``events``, ``snapshots``, ``old`` (dropped, for the snapshot had them), ``gap``, ``boot``, ``reconnect``, ``heartbeat``, ``slow``,
    ``away``, ``unknown`` (of a type this release does not know), ``malformed``."""

    def __init__(
        self, bus: Bus, host: str, declared: Declaration, owner: str | None, timeout: float, rng: random.Random
    ) -> None:
        self.counters = Counter()
        self._bus = bus
        self._host = host
        self._name = declared.name
        self._owner = owner
        self._timeout = timeout
        self._rng = rng
        self._prefix = subjects.prefix(host)
        self._stream = declared.stream if owner is None else f"{owner}.>"
        self._elsewhere = (
            ()
            if owner is not None
            else tuple(said for said in declared.says if said.startswith(("evt.", "store.")) and said != declared.stream)
        )
        self._order = Order()
        self._waiting: deque[Message] = deque()
        self._bytes = 0
        self._deaf = True
        self._taken = 0
        self._judged = 0
        self._beat: tuple[str, int] | None = None
        self._quiet = _QUIET
        self._doubt: _Doubt | None = None
        self._assured = 0.0
        self._stir = anyio.Event()
        self._why = "first"
        self._away = False
        self._tries = 0
        self._read_at = 0.0
        self._subscriptions: list[Subscription] = []
        self._cut_off = False
        self._denied: set[str] = set()
        self._forget: Callable[[], None] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        """Nothing is asked before the first item is awaited."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As `aclose`."""
        await self.aclose()

    async def aclose(self) -> None:
        """End the subscriptions; may be called twice."""
        self._closed = True
        if self._forget is not None:
            self._forget()
            self._forget = None
        await self._unsubscribe()
        self._hold_nothing()

    async def __anext__(self) -> Followed:
        """The next item; waits for it. May be cancelled and called again: nothing is lost by that.

        Raises:
            StopAsyncIteration: `aclose` was called.
            errors.BusClosed: the bus was closed.
            errors.Forbidden: this bus user may not hear the events, or not ask for the snapshot.
        """
        while not self._closed:
            item = await self._resync() if self._why else await self._next()
            if item is not None:
                return item
        raise StopAsyncIteration

    # -- what comes in -------------------------------------------------------------------------------------------------------------

    def _heard(self, message: Message) -> None:
        if self._deaf:
            if self._away and message.subject.endswith(".started"):
                self._stir.set()
        elif len(self._waiting) >= _MESSAGES or self._bytes + len(message.data) > _BYTES:
            self._need("slow")
        else:
            self._waiting.append(message)
            self._bytes += len(message.data)
            self._taken += 1
            self._stir.set()

    def _heard_beat(self, message: Message) -> None:
        try:
            beat = _heartbeat.decode(message.data)
        except _MALFORMED:
            self.counters["malformed"] += 1
            return
        self._beat = (beat.boot, beat.seq)
        self._quiet = _BEATS * beat.period
        self._stir.set()

    def _heard_state(self, state: BusState) -> None:
        if state is BusState.UP:
            self._need("reconnect")
        self._stir.set()

    def _was_cut(self) -> None:
        self._cut_off = True
        self._need("slow")

    def _need(self, why: str) -> None:
        """Only a new snapshot helps: until it is asked for, nothing is worth holding."""
        if not self._why:
            self._why = why
            self._tries = self._tries + 1 if time.monotonic() - self._read_at < _CALM else 0
        self.counters[why] += 1
        self._hold_nothing()
        self._stir.set()

    def _hold_nothing(self) -> None:
        self._deaf = True
        self._waiting.clear()
        self._bytes = 0
        self._judged = self._taken
        self._doubt = None

    async def _subscribe(self) -> None:
        if self._forget is None:
            self._forget = self._bus.on_state(self._heard_state)
        if self._cut_off:
            self._cut_off = False
            await self._unsubscribe()
        if self._subscriptions:
            return
        stream = f"{self._prefix}.{self._stream}"
        self._subscriptions.append(await self._bus.subscribe(stream, self._heard, on_cut=self._was_cut))
        try:
            await self._bus.settle()
        except Forbidden as error:
            if error.subject == stream:
                await self._unsubscribe()  # deaf, it must not be taken for one that hears nothing
                raise
        # What else helps may be denied: the read-only account hears no heartbeats, a service not what another says of itself.
        for below, heard in (
            *((each, self._heard) for each in self._elsewhere),
            (subjects.heartbeat(self._name), self._heard_beat),
        ):
            pattern = f"{self._prefix}.{below}"
            if pattern not in self._denied:
                self._subscriptions.append(await self._bus.subscribe(pattern, heard, on_cut=self._was_cut))
                await self._settle()

    async def _unsubscribe(self) -> None:
        while self._subscriptions:
            await self._subscriptions.pop().close()

    async def _settle(self) -> None:
        try:
            await self._bus.settle()
        except Forbidden as error:
            self._denied.add(error.subject)

    # -- the next event ------------------------------------------------------------------------------------------------------------

    async def _next(self) -> Followed | None:
        if self._doubt is not None and self._judged >= self._doubt.due:
            return await self._resolve(self._doubt)
        if self._beat is not None:
            return await self._look_at_beat(*self._beat)
        if self._waiting:
            message = self._waiting.popleft()
            self._bytes -= len(message.data)
            self._judged += 1
            return self._judge(message)
        if self._bus.state is not BusState.UP:
            return self._lost()
        left = self._assured + self._quiet - time.monotonic()
        if left <= 0 and self._doubt is None:
            return await self._resolve(_Doubt(self._taken, self._order.boot, 0))
        with anyio.move_on_after(max(left, 0.0)):
            await self._stir.wait()
        self._stir = anyio.Event()
        return None

    def _judge(self, message: Message) -> Envelope[Item] | None:
        try:
            subject = subjects.below(message.subject)
            said = envelope.decode(message.data, EVENTS)
            if not subjects.matches(self._stream, subject):
                self._order.other(said.boot, said.seq)
                return None
            verdict = self._order.event(subjects.owner_of(subject), said.boot, said.seq, said.prev)
        except _MALFORMED:
            self.counters["malformed"] += 1
            return None
        if verdict is Verdict.NEXT:
            self.counters["events"] += 1
            if isinstance(said.event, Unknown):
                self.counters["unknown"] += 1
            return said
        if verdict is Verdict.OLD:
            self.counters["old"] += 1
        else:
            self._need(verdict.value)
        return None

    async def _look_at_beat(self, boot: str, seq: int) -> Followed | None:
        """A heartbeat may be ahead of what was heard: if so, what is on its way is looked at first."""
        verdict = self._order.ahead(boot, seq)
        if verdict is Verdict.GAP and self._doubt is None:
            try:
                await self._settle()
            except BusLost as error:
                return self._gone(error.sentence)
            if not self._why:
                self._doubt = _Doubt(self._taken, boot, seq)
        elif verdict is Verdict.BOOT:
            self._need("boot")
        self._assured = time.monotonic()
        self._beat = None
        return None

    async def _resolve(self, doubt: _Doubt) -> Followed | None:
        """All that was on its way has been looked at. Is something missing still?"""
        if doubt.newest is not None:
            self._doubt = None
            if self._order.lacks(doubt.newest, self._owner):
                self._need("heartbeat")
            else:
                self._order.sure(doubt.seq)
            return None
        if doubt.seq and self._order.ahead(doubt.boot, doubt.seq) is Verdict.OLD:
            self._doubt = None
            return None
        try:
            where = await self._position()
            await self._settle()
        except (NoResponders, Timeout, BusLost) as error:
            return self._gone(error.sentence)
        self._assured = time.monotonic()
        self._doubt = None
        if self._why or where is None:
            return None
        if where.boot == self._order.boot:
            self._doubt = _Doubt(self._taken, where.boot, where.seq, where.newest)
        else:
            self._need("boot")
        return None

    async def _position(self) -> Position | None:
        """Where the service is; None: it is there, and cannot tell now (its source is lost, say): the next heartbeat asks again."""
        try:
            pattern = self._stream if self._owner is None else self._owner
            return await ask(
                self._bus, self._host, self._name, "barrier", Barrier(owner=pattern), Position, timeout=self._timeout
            )
        except (Refused, ProtocolError):
            return None
        except Timeout:
            await ask(self._bus, self._host, self._name, "health", Health(), HealthReport, timeout=self._timeout)
            return None

    # -- the snapshot --------------------------------------------------------------------------------------------------------------

    async def _resync(self) -> Followed | None:
        await self._pause()
        self._stir = anyio.Event()
        if self._bus.state is not BusState.UP:
            return self._lost()
        try:
            await self._subscribe()
            self._hold_nothing()
            self._deaf = False
            self._beat = None
            await self._settle()
            read = await self._read()
        except (NoResponders, Timeout, BusLost, ProtocolError) as error:
            return self._gone(error.sentence)
        except Refused as error:
            if error.code not in {"stale-cut", "too-busy"}:
                return self._gone(error.sentence)
            read = None
        if read is None or self._deaf:  # too slow, or the bus was lost and came back meanwhile: all of it again
            self._hold_nothing()
            self._tries += 1
            return None
        self._order.begin(read.boot, read.seq)
        self._read_at = self._assured = time.monotonic()
        self._why = ""
        self._away = False
        self.counters["snapshots"] += 1
        return read

    async def _read(self) -> Snapshot | None:
        items: list[Item] = []
        asked = request.Snapshot(owner=self._owner)
        while True:
            page = await ask(self._bus, self._host, self._name, "snapshot", asked, SnapshotPage, timeout=self._timeout)
            items.extend(envelope.decode_item(bytes(raw), EVENTS) for raw in page.items)
            if self._deaf:
                return None
            if page.next is None:
                self.counters["unknown"] += sum(isinstance(item, Unknown) for item in items)
                return Snapshot(boot=page.boot, seq=page.seq, items=items, why=self._why)
            if page.next <= asked.page or asked.cut not in {None, page.cut}:
                raise ProtocolError(
                    what="a page of a snapshot", why=f"after page {asked.page} it names page {page.next} of {page.cut}"
                )
            asked = request.Snapshot(owner=self._owner, cut=page.cut, page=page.next)

    async def _pause(self) -> None:
        """Before all but the first try: a while, at random, so that many consumers do not ask in step. A sign of life ends it early."""
        if not self._away and self._why == "first" and not self._tries:
            return
        spread = min(_LONGEST, _PAUSE * 2 ** min(self._tries, 10))
        with anyio.move_on_after(self._rng.uniform(0, spread)) as waited:
            if self._away:
                await self._stir.wait()
            else:
                await anyio.sleep(spread)
        if not waited.cancelled_caught:
            await anyio.sleep(self._rng.uniform(0, _PAUSE))

    def _lost(self) -> Away | None:
        if self._bus.state is BusState.CLOSED:
            raise BusClosed
        return self._gone("The bus is lost.")

    def _gone(self, why: str) -> Away | None:
        """No answer: told once; what was known stands, and a snapshot is tried for until there is one."""
        self._why = self._why or "away"
        self._hold_nothing()
        self._tries += 1
        if self._away:
            return None
        self._away = True
        self.counters["away"] += 1
        return Away(why=why)


def follow(
    bus: Bus,
    host: str,
    service: Declaration | str,
    *,
    owner: str | None = None,
    timeout: float = 5.0,
    rng: random.Random | None = None,
) -> Follower:
    """Follow the events of ``service`` on ``host``: a `Snapshot` first, then each event after it, for ever.

    ``owner`` (``store.5``, ``evt.domain.<uuid>``): its part alone. ``timeout``: seconds for one page of a snapshot.
    A gap, a new boot, a reconnect, a heartbeat ahead, or a consumer that was too slow gives a new `Snapshot`; a service that is away gives one
    `Away`, then a `Snapshot` when it is back. Nobody is ever told that something is gone because an answer was missing.

    Raises:
        KeyError: there is no service of that name.
        ValueError: it answers no snapshot, so it cannot be followed; or ``host`` cannot be part of a subject.
    """
    declared = subjects.declaration(service) if isinstance(service, str) else service
    if "snapshot" not in {verb.name for verb in declared.verbs}:
        raise ValueError(f"{declared.name} answers no snapshot: subscribe to {declared.stream} instead")
    return Follower(bus, host, declared, owner, timeout, rng or random.Random())  # noqa: S311 - jitter


_heartbeat = msgspec.json.Decoder(service.Heartbeat)
