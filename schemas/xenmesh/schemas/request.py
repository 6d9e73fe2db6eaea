"""Requests, their one outcome, and the requests that every service answers.

Clients leave out fields at their default (``omit_defaults``), so that a newer client can ask an older host. Queries skip fields they do not
know; commands refuse them, demand an ``op`` that names them and a reply subject, so that no reply to something else can be taken for one.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from .errors import Failure

__all__ = [
    "Barrier",
    "Command",
    "Health",
    "HealthReport",
    "Kept",
    "Outcome",
    "Position",
    "Query",
    "Since",
    "SincePage",
    "Snapshot",
    "SnapshotPage",
    "decode_command",
]

R = TypeVar("R")


class Query(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of every read-only request."""

    request_id: str = ""
    """Any text of at most 128 characters; given back with the answer."""

    deadline: float | None = None
    """Seconds since 1970 after which nobody waits for the answer: it is then not made."""


class Command(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="op",
):
    """The base of every request that changes something; the tag ``op`` is ``<service>.<verb>``."""

    request_id: str
    """Chosen by the client, unique (a uuid). The same id again within 24 hours gets the same outcome, and nothing is done twice."""

    deadline: float | None = None
    """As for `Query`; a command whose deadline has passed is refused before anything is touched."""


class _Op(msgspec.Struct):
    op: str


C = TypeVar("C", bound=Command)


def decode_command(data: bytes, kind: type[C]) -> C:
    """The command of that kind in ``data``.

    msgspec takes a lone tagged struct without its tag; here ``op`` is demanded, so that no answer or event can pass for a command.

    Raises:
        msgspec.DecodeError: it is not one: another ``op`` or none, a field that ``kind`` does not know, a value of the wrong type.
    """
    msgspec.json.decode(data, type=_Op)
    return msgspec.json.decode(data, type=kind)


class Outcome(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """The one answer to a request: a result or an error."""

    request_id: str
    boot: str
    """Of the service that answers."""

    seq: int
    """The newest event of that service when it answered."""

    result: R | None = None
    error: Failure | None = None


class Snapshot(Query, frozen=True, kw_only=True, omit_defaults=True):
    """``q.<service>.snapshot``: a page of the service's whole state as of one ``(boot, seq)``.

    Ask without ``cut`` first; then for each next page with the ``cut`` and ``page`` that the answer named. All pages of a cut are of one
    moment. A cut is kept for 30 s after it was last asked for; after that the answer is the error ``stale-cut``: begin again.
    """

    owner: str | None = None
    """Only this owner's part, e.g. ``store.5``."""

    cut: str | None = None
    page: int = 0


class SnapshotPage(msgspec.Struct, frozen=True, kw_only=True):
    """Part of a snapshot."""

    boot: str
    seq: int
    cut: str
    page: int
    next: int | None
    """The page to ask for next; None: this was the last."""

    items: list[msgspec.Raw]
    """Tagged structs of the service, those that its events carry or name."""


class Barrier(Query, frozen=True, kw_only=True, omit_defaults=True):
    """``q.<service>.barrier``: wait until the service has taken in all that its source had shown when this was asked, and say where it is.

    Whoever writes to xenstore and then passes the barrier finds his write in the next snapshot, and its event has a ``seq`` of at most that of
    the answer.
    """

    owner: str | None = None
    """A subject pattern of owners, e.g. ``store.5`` or ``evt.>``: the answer's ``newest`` is for these alone."""


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Where a service is."""

    boot: str
    seq: int
    newest: int
    """``seq`` of the newest event of the owners that were asked for; 0: none in this boot."""


class Health(Query, frozen=True, kw_only=True, omit_defaults=True):
    """``q.<service>.health``: is it well, and what is it doing."""


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a service is."""

    ready: bool
    """It has read its source whole and takes requests."""

    status: str
    """One line for people."""

    version: str
    since: float
    """Seconds since 1970 when it started."""

    lame_duck: bool
    counters: dict[str, int]
    """What it counts: events, requests, refusals, drops, resyncs, ..."""


class Since(Query, frozen=True, kw_only=True, omit_defaults=True):
    """``q.events.since``: a page of kept events, oldest first, for those who have no rights to JetStream. Answered by `SincePage`."""

    time: float | None = None
    """Seconds since 1970: events from then on. None: from the oldest kept."""

    pattern: str = "evt.>"
    """Subject pattern below the host's prefix; must lie within ``evt``."""

    cursor: int | None = None
    """The ``next`` of the page before."""

    limit: int = 500
    """At most so many events (1 to 1000); a page also ends at 256 KiB."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One kept event: when it was stored, under which subject, and what was said (an envelope)."""

    time: float
    subject: str
    event: msgspec.Raw


class SincePage(msgspec.Struct, frozen=True, kw_only=True):
    """Part of the kept events."""

    events: list[Kept]
    next: int | None
    """Ask again with this as ``cursor``; None: no more for now."""

    lost: bool = False
    """True when events between ``time`` or ``cursor`` and the first of this page have been discarded by the stream's limits."""
