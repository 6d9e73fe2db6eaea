"""What passes over a bus: messages, kept messages, the state of the connection."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import NamedTuple

__all__ = ["BusState", "Handler", "Kept", "Message"]


class Message(NamedTuple):
    """What arrives: whole subject, payload, where to answer (empty: nowhere), headers."""

    subject: str
    data: bytes
    reply: str = ""
    headers: Mapping[str, str] | None = None


class Kept(NamedTuple):
    """A message of the history: its number there, when it was stored (seconds since 1970), subject, payload."""

    number: int
    time: float
    subject: str
    data: bytes


class BusState(enum.Enum):
    """Of the connection. After UP again, all subscriptions stand; what was said meanwhile is missed: take a snapshot."""

    UP = "up"
    LOST = "lost"
    CLOSED = "closed"


Handler = Callable[[Message], None]
"""Called on the event loop for each message, in order; must not block, and should only take note of it."""
