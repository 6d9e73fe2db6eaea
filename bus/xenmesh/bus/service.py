"""The service side: says events in order, answers requests with one outcome each, and shows that it lives.

service = Service(bus, subjects.declaration("store"), host, version="0.1.0")
service.snapshot_from(model.cut)
service.barrier_by(source.passed)
service.answer("read", read)            # async def read(request: store.Read, caller: Caller) -> store.Node
async with service.serve():             # hears and answers; "not-ready" until ready()
    ...                                 # read the source whole
    await service.ready()
    await service.emit_all(events)      # as they come
"""

from __future__ import annotations

import logging
import random
import secrets
import time as clocks
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec
from anyio.abc import TaskGroup

from xenmesh.schemas import subjects
from xenmesh.schemas.envelope import Event, State, encode
from xenmesh.schemas.request import Barrier, HealthReport, Position, Snapshot
from xenmesh.schemas.service import Heartbeat, ServiceState, Started, Stopping
from xenmesh.schemas.subjects import Declaration

from .abc import Bus, Subscription
from .emission import Emission
from .errors import BusError, Refused
from .message import BusState, Handler
from .micro import QUEUE, Micro
from .micro import subjects as discovery
from .outcomes import Outcomes
from .requests import Caller, Handle, Limits, Requests
from .snapshot import Cut, Cuts
from .states import States

__all__ = ["Caller", "Cut", "Handle", "Limits", "Service"]

_log = logging.getLogger(__name__)

_POLL = 0.05
"""Seconds between two looks whether a cut may be made."""


_REST = 0.1
"""Seconds from one tending to the next at least: what is refused or fails each time must not be tried without a rest."""


async def _at_once() -> None:
    """The barrier of a service that has no source to wait for."""


class Service:
    """One service of one host on a bus. Made first, then given its handlers, then run by `serve`."""

    boot: str
    """New and random for each `Service`."""

    counters: Counter[str]
    """What is counted, shown by ``q.<service>.health``; a service may add its own. Here: ``events``, ``events.lost``, ``requests``,
    ``requests.failed``, ``requests.unanswerable`` (no reply subject), ``requests.dropped``, ``incidents``, ``answers.lost``, ``commands.attached``,
    ``commands.repeated``, ``outcomes.unwritten``, ``audit.unkept``, ``audit.lost``, ``audit.dropped``, ``states``, ``states.late``, ``cuts``,
    ``resubscribed``."""

    def __init__(
        self,
        bus: Bus,
        declaration: Declaration,
        host: str,
        *,
        version: str,
        outcomes: Path | None = None,
        clock: Callable[[], float] = clocks.time,
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        """``outcomes``: the file that holds the outcomes of commands over restarts; None keeps them in memory alone."""
        self.boot = secrets.token_hex(8)
        self.counters = Counter()
        self._bus = bus
        self._declaration = declaration
        self._host = host
        self._version = version
        self._clock = clock
        self._limits = limits
        self._since = clock()
        self._line = "starting"
        self._passed: Callable[[], Awaitable[None]] = _at_once
        self._make_cut: Callable[[], Cut] = dict
        self._emission = Emission(bus, host, declaration.name, self.boot, self.counters)
        self._states = States(bus, declaration, self.counters)
        self._cuts = Cuts(self.boot, most=limits.cuts, kept=limits.cut, page=limits.page)
        self._requests = Requests(
            bus,
            declaration,
            host,
            self.boot,
            seq=lambda: self.seq,
            clock=clock,
            limits=limits,
            outcomes=Outcomes(outcomes, self._since),
            micro=Micro(host, declaration, self.boot, version, self._since),
            counters=self.counters,
        )
        self._requests.instant["health"] = self._health
        self._requests.handlers["barrier"] = self._barrier
        self._subscriptions: dict[str, Subscription] = {}
        self._cut_off: list[str] = []
        self._stir = anyio.Event()
        self._served = False

    @property
    def seq(self) -> int:
        """Of the newest event said; 0 before the first."""
        return self._emission.seq

    # -- saying --------------------------------------------------------------------------------------------------------------------

    async def emit(self, event: Event, *, time: float | None = None) -> int:
        """Say one event: stamp it with its place in the order and publish it; returns its ``seq``.

        Takes its place before it first waits. ``time``: when it was learned of, seconds since 1970; None: now. Never fails because of the
        bus: what cannot be sent is counted (``events.lost``), and consumers see the gap and take a snapshot.

        Raises:
            TypeError: the event has no subject (a bug of the caller).
        """
        return await self.emit_all((event,), time=time)

    async def emit_all(self, events: Iterable[Event], *, time: float | None = None) -> int:
        """Say the events of one step of the model: all take their places at once, so that no snapshot falls between them. Returns the last
        one's ``seq``."""
        when = self._clock() if time is None else time
        for event in events:
            self._emission.stamp(event, when)
        seq = self.seq
        await self._emission.flush()
        return seq

    async def put(self, state: Event) -> None:
        """Set the last value of one thing (``state.*``). Kept here too, and put again when the bus was lost. Never fails because of the bus."""
        said = State(
            host=self._host,
            service=self._declaration.name,
            boot=self.boot,
            seq=self.seq,
            time=self._clock(),
            state=state,
        )
        self._states.note(subjects.state_key(state), encode(said))
        await self._states.flush()

    async def purge(self, key: str) -> None:
        """Take a last value away, e.g. ``domain.<uuid>``."""
        self._states.note(key, None)
        await self._states.flush()

    async def purge_ghosts(self, keep: set[str]) -> None:
        """At start: take away the last values of this service's kinds that an earlier boot left, but for the keys in ``keep``."""
        try:
            ghosts = await self._states.ghosts(keep | {f"service.{self._declaration.name}"})
        except BusError as error:
            _log.warning("last values of an earlier boot may stand: %s", error.sentence)
            return
        for key in ghosts:
            await self.purge(key)

    # -- answering -----------------------------------------------------------------------------------------------------------------

    def answer(self, verb: str, handler: Handle) -> None:
        """Answer ``verb`` of the declaration by ``handler``.

        Raises:
            KeyError: the declaration has no such verb.
        """
        if verb not in {known.name for known in self._declaration.answers}:
            raise KeyError(f"{self._declaration.name} declares no verb {verb!r}")
        self._requests.handlers[verb] = handler

    def snapshot_from(self, cut: Callable[[], Cut]) -> None:
        """Answer ``snapshot`` from the views that ``cut`` gives at once: one for all who ask at the same ``seq``."""
        self._make_cut = cut
        self.answer("snapshot", self._snapshot)

    def barrier_by(self, passed: Callable[[], Awaitable[None]]) -> None:
        """Answer ``barrier`` when ``passed()`` returns: all that the source had shown when it was called has been emitted. Without it, the
        barrier is passed at once. ``passed`` may raise `errors.Refused`, e.g. ``store-lost``."""
        self._passed = passed

    async def _snapshot(self, request: Snapshot, _: Caller) -> msgspec.Struct:
        arrived = self._cuts.made
        if request.cut is not None:
            opened = self._cuts.find(request.cut, clocks.monotonic())
            if opened is None:
                raise Refused.of("stale-cut", cut=request.cut[:128])
        else:
            opened = self._cuts.open(self.seq, clocks.monotonic(), self._cut, arrived=arrived)
            if opened is None:
                self._requests.park()
            while opened is None:
                await anyio.sleep(_POLL)
                opened = self._cuts.open(self.seq, clocks.monotonic(), self._cut, arrived=arrived)
        page = opened.page(request.page, request.owner) if request.page >= 0 else None
        if page is None:
            raise Refused.of("bad-request", verb=f"{self._declaration.name}.snapshot", why=f"there is no page {request.page}")
        return msgspec.Raw(page)  # type: ignore[return-value]  # a SnapshotPage, encoded already

    def _cut(self) -> Cut:
        self.counters["cuts"] += 1
        return self._make_cut()

    async def _barrier(self, request: Barrier, _: Caller) -> Position:
        self._requests.park()
        await self._passed()
        await self._emission.flush()
        return Position(boot=self.boot, seq=self.seq, newest=self._emission.newest(request.owner))

    def _health(self) -> HealthReport:
        return HealthReport(
            ready=self.is_ready,
            status=self._line,
            version=self._version,
            since=self._since,
            lame_duck=self.lame_duck,
            counters=dict(sorted(self.counters.items())),
        )

    # -- living --------------------------------------------------------------------------------------------------------------------

    def status(self, line: str) -> None:
        """What it is doing, one line for people; shown by health and in ``state.service.<name>``."""
        if line != self._line:
            self._line = line
            self._show()

    async def ready(self) -> None:
        """The source has been read whole: say `Started`, and take requests from now on."""
        if not self._requests.ready:
            self._requests.ready = True
            if self._line == "starting":
                self._line = "ready"
            self._show()
            await self.emit(Started(version=self._version))

    @property
    def is_ready(self) -> bool:
        """`ready` was called, and it is not stopping."""
        return self._requests.ready and not self._requests.draining

    @property
    def lame_duck(self) -> bool:
        """It is stopping, and refuses new requests as ``draining``."""
        return self._requests.draining

    async def drain(self, reason: str = "stopped") -> None:
        """Stop in an orderly way: refuse new requests, let those running finish (bounded), say `Stopping`. `serve` does it on the way out.

        Afterwards requests are still refused as ``draining`` until the block of `serve` ends.
        """
        if self._requests.draining:
            return
        self._requests.draining = True
        self._line = f"stopping: {reason}"
        self._show()
        await self._beat()
        await self._requests.drain()
        await self.emit(Stopping(reason=reason))
        with anyio.move_on_after(self._limits.drain):
            await self._states.flush()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Service]:
        """Hear, answer, beat and be found by ``$SRV`` until the block ends; then `drain`.

        Health and ``$SRV`` are answered from the start; other requests are refused as ``not-ready`` until `ready`. The bus need not be up.

        Raises:
            RuntimeError: it was served before; make a new `Service` (a new boot).
            errors.BusClosed: the bus is closed.
        """
        if self._served:
            raise RuntimeError("a service is served once: make a new one")
        self._served = True
        try:
            async with anyio.create_task_group() as tasks:
                forget = self._bus.on_state(self._heard_state)
                try:
                    await self._open(tasks)
                    yield self
                finally:
                    with anyio.CancelScope(shield=True):
                        await self.drain()
                        await self._close()
                    forget()
                    tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None
            raise

    async def _open(self, tasks: TaskGroup) -> None:
        self._requests.serve(tasks)
        for pattern in self._hears():
            await self._hear(pattern)
        try:
            await self._bus.settle()
        except BusError as error:
            _log.warning("the bus did not settle: %s", error.sentence)
        self._show()
        tasks.start_soon(self._beats)
        tasks.start_soon(self._tend)

    async def _close(self) -> None:
        for subscription in self._subscriptions.values():
            await subscription.close()
        self._subscriptions.clear()
        with anyio.move_on_after(self._limits.drain):
            await self._requests.finish()
            try:
                await self._bus.settle()
            except BusError as error:
                _log.warning("the last answers may not have left: %s", error.sentence)

    def _hears(self) -> dict[str, Handler]:
        mine, name = subjects.prefix(self._host), self._declaration.name
        patterns: dict[str, Handler] = {f"{mine}.q.{name}.*": self._requests.hear}
        if any(verb.commands for verb in self._declaration.answers):
            patterns[f"{mine}.cmd.*.{name}.*"] = self._requests.hear
        return patterns | dict.fromkeys(discovery(name, self.boot), self._requests.discover)

    async def _hear(self, pattern: str) -> None:
        def cut_off() -> None:
            self._cut_off.append(pattern)
            self._stir.set()

        queue = "" if pattern.startswith("$SRV.") else QUEUE
        self._subscriptions[pattern] = await self._bus.subscribe(pattern, self._hears()[pattern], queue=queue, on_cut=cut_off)

    def _heard_state(self, state: BusState) -> None:
        if state is BusState.UP:
            self._states.again()
            self._stir.set()

    def _show(self) -> None:
        """Have ``state.service.<name>`` put, soon."""
        shown = ServiceState(
            name=self._declaration.name,
            version=self._version,
            boot=self.boot,
            ready=self.is_ready,
            status=self._line,
            since=self._since,
            lame_duck=self.lame_duck,
        )
        said = State(
            host=self._host,
            service=self._declaration.name,
            boot=self.boot,
            seq=self.seq,
            time=self._clock(),
            state=shown,
        )
        self._states.note(subjects.state_key(shown), encode(said))
        self._stir.set()

    async def _tend(self) -> None:
        """What was put off: states, subscriptions that were cut, events that wait because whoever sent them was cancelled."""
        while True:
            with anyio.move_on_after(self._limits.heartbeat):
                await self._stir.wait()
            self._stir = anyio.Event()
            again, self._cut_off = self._cut_off, []
            for pattern in again:
                self.counters["resubscribed"] += 1
                await self._hear(pattern)
            await self._emission.flush()
            await self._states.flush()
            await anyio.sleep(_REST)

    async def _beats(self) -> None:
        await anyio.sleep(random.random() * self._limits.heartbeat)  # noqa: S311 - so that services do not beat in step
        while True:
            await self._beat()
            await anyio.sleep(self._limits.heartbeat)

    async def _beat(self) -> None:
        beat = Heartbeat(
            host=self._host,
            service=self._declaration.name,
            boot=self.boot,
            seq=self.seq,
            time=self._clock(),
            version=self._version,
            period=self._limits.heartbeat,
            lame_duck=self.lame_duck,
        )
        try:
            await self._bus.publish(f"{subjects.prefix(self._host)}.{subjects.heartbeat(self._declaration.name)}", encode(beat))
        except BusError as error:
            _log.debug("a heartbeat was not sent: %s", error.sentence)
