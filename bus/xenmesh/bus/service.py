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

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from xenmesh.schemas.envelope import Event
from xenmesh.schemas.subjects import Declaration

from .abc import Bus

__all__ = ["Caller", "Cut", "Handle", "Limits", "Service"]

Cut = Mapping[str, Iterable[Event]]
"""A service's whole state at one moment: each owner (``store.5``) and its items, in order. Nothing in it may change afterwards; the iterables
are read lazily, page by page, for 30 s and more, and from the beginning each time (a tuple, never an iterator)."""


class Caller(NamedTuple):
    """Who asks: the bus user of a command (its subject says so), empty for a query, whose asker the bus does not tell."""

    user: str
    request_id: str


Handle = Callable[[Any, Caller], Awaitable[msgspec.Struct]]
"""Makes the result of a request, an instance of the verb's result type; raises `errors.Refused.of(code, **facts)` to refuse it. Any other
exception is answered ``internal`` and logged under an incident's number."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much a service takes on at once."""

    handlers: int = 16
    """Queries carried out at once."""

    commands: int = 8
    """Commands carried out at once."""

    waiting: int = 512
    """Requests that wait for a handler, of each kind; one more is refused as ``too-busy``."""

    request: int = 64 << 10
    """Bytes of one request."""

    query: float = 30.0
    """Seconds that a query may take (commands take as long as they take)."""

    page: int = 256 << 10
    """Bytes of a snapshot's page, about."""

    cuts: int = 8
    """Cuts of the state kept at once."""

    cut: float = 30.0
    """Seconds that a cut is kept after it was last asked for."""

    drain: float = 10.0
    """Seconds that running handlers get to finish when the service stops."""

    heartbeat: float = 5.0
    """Seconds from one heartbeat to the next."""


class Service:
    """One service of one host on a bus. Made first, then given its handlers, then run by `serve`."""

    boot: str
    """New and random for each `Service`."""

    seq: int
    """Of the newest event said; 0 before the first."""

    counters: dict[str, int]
    """What is counted: shown by ``q.<service>.health``. A service may add its own."""

    def __init__(
        self,
        bus: Bus,
        declaration: Declaration,
        host: str,
        *,
        version: str,
        outcomes: Path | None = None,
        clock: Callable[[], float] = time.time,
        limits: Limits = Limits(),
    ) -> None:
        """``outcomes``: the file that holds the outcomes of commands over restarts; None keeps them in memory alone."""

    async def emit(self, event: Event, *, time: float | None = None) -> int:
        """Say one event: stamp it with its place in the order and publish it; returns its ``seq``.

        Takes its place before it first waits. ``time``: when it was learned of, seconds since 1970; None: now. Never fails because of the
        bus: what cannot be sent is counted (``events.lost``), and consumers see the gap and take a snapshot.

        Raises:
            TypeError: the event has no subject (a bug of the caller).
        """
        raise NotImplementedError

    async def emit_all(self, events: Iterable[Event], *, time: float | None = None) -> int:
        """Say the events of one step of the model: all take their places at once, so that no snapshot falls between them."""
        raise NotImplementedError

    async def put(self, state: Event) -> None:
        """Set the last value of one thing (``state.*``). Kept here too, and put again when the bus was lost."""
        raise NotImplementedError

    async def purge(self, key: str) -> None:
        """Take a last value away, e.g. ``domain.<uuid>``."""
        raise NotImplementedError

    async def purge_ghosts(self, keep: set[str]) -> None:
        """At start: take away the last values of this service's kinds that an earlier boot left, but for the keys in ``keep``."""
        raise NotImplementedError

    def answer(self, verb: str, handler: Handle) -> None:
        """Answer ``verb`` of the declaration by ``handler``.

        Raises:
            KeyError: the declaration has no such verb.
        """
        raise NotImplementedError

    def snapshot_from(self, cut: Callable[[], Cut]) -> None:
        """Answer ``snapshot`` from the views that ``cut`` gives at once: one for all who ask at the same ``seq``."""
        raise NotImplementedError

    def barrier_by(self, passed: Callable[[], Awaitable[None]]) -> None:
        """Answer ``barrier`` when ``passed()`` returns: all that the source had shown when it was called has been emitted. Without it, the
        barrier is passed at once. ``passed`` may raise `errors.Refused`, e.g. ``store-lost``."""
        raise NotImplementedError

    def status(self, line: str) -> None:
        """What it is doing, one line for people; shown by health and in ``state.service.<name>``."""
        raise NotImplementedError

    async def ready(self) -> None:
        """The source has been read whole: say `Started`, and take requests from now on."""
        raise NotImplementedError

    @property
    def is_ready(self) -> bool:
        """`ready` was called, and it is not stopping."""
        raise NotImplementedError

    @property
    def lame_duck(self) -> bool:
        """It is stopping, and refuses new requests as ``draining``."""
        raise NotImplementedError

    async def drain(self, reason: str = "stopped") -> None:
        """Stop in an orderly way: refuse new requests, let those running finish (bounded), say `Stopping`. `serve` does it on the way out."""
        raise NotImplementedError

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Service]:
        """Hear, answer, beat and be found by ``$SRV`` until the block ends; then `drain`.

        Health and ``$SRV`` are answered from the start; other requests are refused as ``not-ready`` until `ready`.
        """
        raise NotImplementedError
        yield self
