"""What the stream commands print for programs: every line has ``time``, ``subject`` and ``event``, so that it is also a recording.

Events stand under their own subject. What the command itself has to say stands under ``xenmesh.<what>``, which no bus carries:
``xenmesh.snapshot`` and ``xenmesh.item`` (the state before the events), ``xenmesh.gap`` (events were missed), ``xenmesh.away`` (a service does
not answer), ``xenmesh.up`` (what was started).
"""

from __future__ import annotations

import time as clocks

import msgspec

from xenmesh.schemas.envelope import Envelope, Item, Unknown
from xenmesh.schemas.subjects import prefix

__all__ = ["MARKS", "event_record", "mark"]

MARKS = "xenmesh."


def event_record(host: str, subject: str, envelope: Envelope[Item]) -> dict[str, object]:
    """The line of an event; ``subject`` below the host's prefix."""
    body = envelope.event
    event: object = envelope
    if isinstance(body, Unknown):
        event = {**msgspec.structs.asdict(envelope), "event": msgspec.Raw(body.raw)}
    return {"time": envelope.time, "subject": f"{prefix(host)}.{subject or 'unknown'}", "event": event}


def mark(what: str, facts: dict[str, object]) -> dict[str, object]:
    """A line of the command's own, said now."""
    return {"time": clocks.time(), "subject": f"{MARKS}{what}", "event": facts}
