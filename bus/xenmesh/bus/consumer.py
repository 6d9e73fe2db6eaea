"""The consumer side: the contract with a service behind one async iterator, and typed requests.

async with follow(bus, host, "store") as items:
    async for item in items:
        match item:
            case Snapshot():  state = {...}       # forget what was: this is all there is, as of (boot, seq)
            case Envelope():  apply(item.event)   # the next event; none was left out
            case Away():      ...                 # the last known state stands; a Snapshot follows when it is back
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TypeVar

import msgspec

from xenmesh.schemas.envelope import Envelope, Item
from xenmesh.schemas.request import Command, Query
from xenmesh.schemas.subjects import Declaration

from .abc import Bus

__all__ = ["Away", "Followed", "Follower", "Snapshot", "ask", "command", "follow"]

R = TypeVar("R", bound=msgspec.Struct)


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All there is as of ``(boot, seq)``: replaces whatever was known before."""

    boot: str
    seq: int
    items: list[Item]
    why: str
    """``first``, ``gap``, ``boot``, ``reconnect``, ``heartbeat``, ``slow``, ``away``."""


class Away(msgspec.Struct, frozen=True, kw_only=True):
    """The service or the bus does not answer: nothing new is known, and what was known stands."""

    why: str


Followed = Snapshot | Envelope[Item] | Away
"""What a follower gives. The event of a type unknown here comes as `envelope.Unknown`, in its place, and is counted."""


class Follower(AsyncIterator[Followed]):
    """Follows one service for ever; use it by ``async with``. Made by `follow`."""

    counters: dict[str, int]
    """``events``, ``snapshots``, ``duplicates``, ``gaps``, ``slow``, ``unknown``, ``malformed``, ..."""

    async def __aenter__(self) -> Follower:
        """Nothing is asked before the first item is awaited."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As `aclose`."""
        await self.aclose()

    async def aclose(self) -> None:
        """End the subscriptions; may be called twice."""
        raise NotImplementedError

    async def __anext__(self) -> Followed:
        """The next item; waits for it. May be cancelled and called again: nothing is lost by that."""
        raise NotImplementedError


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
    """
    raise NotImplementedError


async def ask(bus: Bus, host: str, service: str, verb: str, request: Query, result: type[R], *, timeout: float = 5.0) -> R:
    """Ask ``q.<service>.<verb>``.

    Raises:
        errors.Refused: the service's error outcome.
        errors.NoResponders, errors.Timeout, errors.BusLost: no outcome; a query may simply be asked again.
        errors.ProtocolError: the answer cannot be read.
    """
    raise NotImplementedError


async def command(
    bus: Bus,
    host: str,
    service: str,
    verb: str,
    request: Command,
    result: type[R],
    *,
    timeout: float = 60.0,
    attempt: float = 10.0,
) -> R:
    """Have ``cmd.<user>.<service>.<verb>`` carried out, once: asked again with the same ``request_id`` after ``attempt`` seconds without an
    answer, or when the service was away or too busy, until ``timeout`` seconds have passed.

    Raises:
        errors.Refused: the error outcome.
        errors.Timeout: no outcome in time; it may have been carried out. The same ``request_id`` later tells.
        errors.NoResponders, errors.BusLost: the service was never reached.
    """
    raise NotImplementedError
