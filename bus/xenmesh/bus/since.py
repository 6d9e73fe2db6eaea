"""``q.events.since``: kept events in pages, for consumers without rights to JetStream. The paging rule is pure; `since` feeds it from a bus."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager

import msgspec

from xenmesh.schemas import request
from xenmesh.schemas.errors import Fact
from xenmesh.schemas.request import Since, SincePage
from xenmesh.schemas.subjects import matches, prefix

from .abc import Bus
from .errors import NoHistory, Refused
from .message import Kept

__all__ = ["MOST", "Pager", "check", "lost_before", "since"]

MOST = 1000
"""Events of one page, at most."""

_BYTES = 256 << 10
_CLASS = "evt.>"
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_any = msgspec.json.Decoder()


def check(asked: Since) -> None:
    """Raises `errors.Refused` (``bad-request``) where ``asked`` cannot be answered."""
    verb: Fact = "events.since"
    if not 1 <= asked.limit <= MOST:
        raise Refused.of("bad-request", verb=verb, why=f"limit must be 1 to {MOST}")
    tokens = asked.pattern.split(".")
    if tokens[0] != "evt" or len(tokens) < 2 or not all(tokens) or ">" in tokens[:-1]:
        raise Refused.of("bad-request", verb=verb, why="pattern must be a subject pattern within evt, such as evt.domain.>")
    if any(not (part.isascii() and part.isprintable()) or " " in part for part in tokens):
        raise Refused.of("bad-request", verb=verb, why="pattern has a character that no subject has")
    if asked.cursor is not None and asked.cursor < 0:
        raise Refused.of("bad-request", verb=verb, why="cursor must be one that a page named")


def lost_before(asked: Since, oldest: Kept | None) -> bool:
    """Whether events between ``asked``'s begin and the oldest that is kept have been discarded. A bound: of its pattern, perhaps none was."""
    if oldest is None:
        return False
    if asked.cursor is not None:
        return oldest.number > asked.cursor + 1
    return asked.time is not None and oldest.number > 1 and oldest.time > asked.time


class Pager:
    """Fills one page: `take` kept events in their order until it says that there is no more room."""

    def __init__(self, asked: Since, *, lost: bool = False) -> None:
        self._asked = asked
        self._lost = lost
        self._events: list[request.Kept] = []
        self._bytes = 0
        self._last: int | None = None
        self._full = False

    def take(self, kept: Kept) -> bool:
        """False: the page was full already, and ``kept`` belongs to the next one."""
        size = len(kept.data) + len(kept.subject) + 48
        if len(self._events) >= self._asked.limit or (self._events and self._bytes + size > _BYTES):
            self._full = True
            return False
        self._last = kept.number
        if _is_json(kept.data):  # nothing else is ever said there; one page must not break for it
            self._events.append(request.Kept(time=kept.time, subject=kept.subject, event=msgspec.Raw(kept.data)))
            self._bytes += size
        return True

    def page(self) -> SincePage:
        """What it holds."""
        return SincePage(events=self._events, next=self._last if self._full else None, lost=self._lost)

    @classmethod
    def fill(cls, kept: Iterable[Kept], asked: Since, *, lost: bool = False) -> SincePage:
        """The page of ``asked`` from ``kept``, which begin after its cursor or at its time."""
        pager = cls(asked, lost=lost)
        for each in kept:
            if not pager.take(each):
                break
        return pager.page()


async def since(bus: Bus, host: str, asked: Since) -> SincePage:
    """The page of ``asked`` from the bus's history.

    Raises:
        errors.Refused: ``bad-request``, or ``no-history``.
    """
    check(asked)
    mine = prefix(host)
    try:
        pager = Pager(asked, lost=lost_before(asked, await _oldest(bus, f"{mine}.{_CLASS}")))
        time = asked.time if asked.cursor is None else None
        async with _ending(bus.history(f"{mine}.{asked.pattern}", time=time, number=asked.cursor)) as events:
            async for kept in events:
                if matches(f"{mine}.{asked.pattern}", kept.subject) and not pager.take(kept):
                    break
    except NoHistory as error:
        raise Refused.of("no-history", why=str(error.facts["why"])) from None
    return pager.page()


async def _oldest(bus: Bus, pattern: str) -> Kept | None:
    async with _ending(bus.history(pattern)) as events:
        async for kept in events:
            return kept
    return None


@asynccontextmanager
async def _ending(events: AsyncIterator[Kept]) -> AsyncIterator[AsyncIterator[Kept]]:
    """So that a history that is not read to its end gives back what it holds of the server."""
    try:
        yield events
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()


def _is_json(data: bytes) -> bool:
    try:
        data.decode()
        _any.decode(data)
    except _MALFORMED:
        return False
    return True
