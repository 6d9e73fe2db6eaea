"""What every service says of itself: heartbeats, its state, its coming and going, its source lost and found."""

from __future__ import annotations

import enum

import msgspec

from .envelope import Event

__all__ = [
    "Audit",
    "Heartbeat",
    "ServiceEvent",
    "ServiceState",
    "Source",
    "SourceState",
    "Started",
    "Stopping",
]


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """``hb.<service>``, every 5 s: it lives, and has said this much. Not part of the order of events."""

    host: str
    service: str
    boot: str
    seq: int
    """The newest event said. Ahead of what you heard, after a moment for it to arrive: you have missed some."""

    time: float
    version: str
    period: float
    """Seconds until the next one."""

    lame_duck: bool
    """It is about to stop, and takes no new requests."""


class Started(Event, frozen=True, kw_only=True, tag="service.started"):
    """A service has read its source whole and takes requests."""

    version: str


class Stopping(Event, frozen=True, kw_only=True, tag="service.stopping"):
    """A service stops in an orderly way; what it owns goes on."""

    reason: str


class SourceState(enum.Enum):
    """Of a service's source."""

    LOST = "lost"
    """It does not answer: what was last known stands."""

    RESYNCED = "resynced"
    """It answers again and was read whole: what is published is what it holds."""


class Source(Event, frozen=True, kw_only=True, tag="service.source"):
    """What a service observes (xenstored, the hypervisor) was lost or is back."""

    source: str
    state: SourceState
    why: str
    lost: int
    """How often it was lost since the service started."""


class ServiceState(Event, frozen=True, kw_only=True, tag="service.state"):
    """``state.service.<name>``: what a service is and does."""

    name: str
    version: str
    boot: str
    ready: bool
    status: str
    """One line for people."""

    since: float
    lame_duck: bool


class Audit(Event, frozen=True, kw_only=True, tag="audit"):
    """``audit.<service>.<verb>``: who asked for what, and what came of it."""

    user: str
    """The bus user, from the subject that it alone may publish on."""

    verb: str
    request_id: str
    code: str
    """``ok`` or the error's code."""

    seconds: float
    """From request to outcome."""


ServiceEvent = Started | Stopping | Source
"""What a service says of itself, on ``evt.service.<name>.<what>``."""
