"""The envelope of every event and every state, and how they are read.

An event travels as one JSON object: who said it, when, in which order, and what. Reading goes in two steps, so that a consumer
older than its host counts an event of a type it does not know and keeps the order all the same (docs/structure.md, the gap rule).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import msgspec

__all__ = [
    "Envelope",
    "Event",
    "Item",
    "State",
    "Unknown",
    "decode",
    "decode_item",
    "decode_state",
    "encode",
]


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """What happened: the base of every event's own facts. The tag, ``type``, never changes once it was said."""


class Unknown(msgspec.Struct, frozen=True, kw_only=True):
    """An event or state of a type this release does not know, or whose facts it cannot read: count it and go on."""

    type: str
    """The tag, or an empty string where there was none."""

    why: str = "unknown type"
    """What was wrong with it."""

    raw: bytes = b""
    """The event as it came, JSON."""


T = TypeVar("T")
Item = Event | Unknown


class Envelope(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One event of one service: its place in the order, and its facts."""

    host: str
    """Id of the host (never its name)."""

    service: str
    """Name of the service that says it."""

    boot: str
    """New at each start of the service; ``seq`` begins again with it."""

    seq: int
    """Counted from 1 over all events of this service and boot."""

    prev: int
    """``seq`` of the event before it of the same owner, 0 for the first: tells a gap from a filter."""

    time: float
    """Seconds since 1970, by the host's clock, when the service learned of it."""

    event: T
    """The facts."""


class State(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """The last whole value of one thing, as of ``(boot, seq)`` of the service that owns it."""

    host: str
    service: str
    boot: str
    seq: int
    time: float
    """Seconds since 1970, when it was published."""

    state: T


class _Tag(msgspec.Struct):
    type: str = ""


_encoder = msgspec.json.Encoder()
_envelope = msgspec.json.Decoder(Envelope[msgspec.Raw])
_state = msgspec.json.Decoder(State[msgspec.Raw])
_tag = msgspec.json.Decoder(_Tag)
_decoders: dict[type[Event], msgspec.json.Decoder[Event]] = {}


def encode(value: msgspec.Struct) -> bytes:
    """JSON of any struct of this room."""
    return _encoder.encode(value)


def decode(data: bytes, types: Mapping[str, type[Event]]) -> Envelope[Item]:
    """The event in ``data``; ``types`` maps each known tag to its class (``xenmesh.schemas.EVENTS``).

    An event whose type is unknown or whose facts are malformed comes as `Unknown`, in its place in the order.

    Raises:
        msgspec.DecodeError: the envelope itself is not one, or something in it is nested too deeply to be passed over.
    """
    raw = _read(_envelope, data)
    return Envelope(
        host=raw.host,
        service=raw.service,
        boot=raw.boot,
        seq=raw.seq,
        prev=raw.prev,
        time=raw.time,
        event=decode_item(bytes(raw.event), types),
    )


def decode_state(data: bytes, types: Mapping[str, type[Event]]) -> State[Item]:
    """The state in ``data``, as `decode` reads an event; raises what it raises."""
    raw = _read(_state, data)
    return State(
        host=raw.host,
        service=raw.service,
        boot=raw.boot,
        seq=raw.seq,
        time=raw.time,
        state=decode_item(bytes(raw.state), types),
    )


def decode_item(data: bytes, types: Mapping[str, type[Event]]) -> Item:
    """One tagged object: an item of a snapshot, or the ``event`` of an envelope. Never raises for what a peer may send."""
    try:
        tag = _read(_tag, data).type
    except msgspec.DecodeError as error:
        return Unknown(type="", why=str(error), raw=data)
    kind = types.get(tag)
    if kind is None:
        return Unknown(type=tag, raw=data)
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        return _read(decoder, data)
    except msgspec.DecodeError as error:
        return Unknown(type=tag, why=str(error), raw=data)


def _read(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """msgspec's two other ways to refuse what a peer sent, told as the one."""
    try:
        return decoder.decode(data)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(str(error)) from None
    except RecursionError:
        raise msgspec.DecodeError("nested too deeply") from None
