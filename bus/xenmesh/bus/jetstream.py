"""What is said to JetStream, as bytes and back: pure, no connection.

Only three of its services are used: a publish that is acknowledged, batched direct get (nats-server 2.11) and, by the user ``provision``,
streams. No consumer is ever made: nothing stays behind at the server, and no user needs the right to make one, which would let it
deliver stored messages to any subject.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import msgspec

from .errors import NoHistory, ProtocolError
from .message import Kept, Message

__all__ = [
    "AUDIT",
    "BUCKET",
    "EVENTS",
    "PURGE",
    "STATE",
    "Republish",
    "StreamConfig",
    "acknowledged",
    "direct_get",
    "next_batch",
    "read_batch_message",
    "read_stream",
    "seconds",
    "state_subject",
]

EVENTS = "XEN_EVT"
"""The stream of events."""

AUDIT = "XEN_AUDIT"
"""The stream of who asked for what."""

BUCKET = "xen_state"
"""The key-value bucket of last values."""

STATE = f"KV_{BUCKET}"
"""The stream under the bucket."""

PURGE: Mapping[str, str] = {"KV-Operation": "PURGE", "Nats-Rollup": "sub", "Nats-TTL": "60s"}
"""Headers that take a value of the bucket away; what marks the place goes by itself, so that the bucket never fills with marks."""

_BATCH = 256
_BATCH_BYTES = 1 << 20


def state_subject(key: str) -> str:
    """Where the value of ``key`` is put: ``$KV.xen_state.<key>``."""
    return f"$KV.{BUCKET}.{key}"


def direct_get(stream: str) -> str:
    """Where batches of a stream are asked for."""
    return f"$JS.API.DIRECT.GET.{stream}"


class Republish(msgspec.Struct, frozen=True):
    """What is stored under ``src`` is also said on ``dest``."""

    src: str
    dest: str


class StreamConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a stream's configuration that we lay down; the names are JetStream's. Times in nanoseconds, 0: none."""

    name: str
    subjects: list[str]
    storage: str = "file"
    retention: str = "limits"
    discard: str = "old"
    max_age: int = 0
    max_bytes: int = -1
    max_msgs_per_subject: int = -1
    duplicate_window: int = 120_000_000_000
    allow_direct: bool = True
    allow_rollup_hdrs: bool = False
    allow_msg_ttl: bool = False
    deny_delete: bool = False
    num_replicas: int = 1
    republish: Republish | None = None


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: _Error | None = None


class _StreamAnswer(msgspec.Struct):
    config: StreamConfig | None = None
    error: _Error | None = None


_ack = msgspec.json.Decoder(_Ack)
_stream = msgspec.json.Decoder(_StreamAnswer)


def acknowledged(data: bytes) -> str | None:
    """Why the stream did not take a message, or nothing where it did."""
    try:
        ack = _ack.decode(data)
    except msgspec.DecodeError as error:
        return f"the acknowledgement cannot be read ({error})"
    if ack.error is not None:
        return ack.error.description or f"error {ack.error.code}"
    return None if ack.stream else "the answer is no acknowledgement"


def read_stream(data: bytes) -> StreamConfig | None:
    """The configuration in an answer about a stream; nothing where there is no such stream.

    Raises:
        NoHistory: JetStream refused.
        ProtocolError: not an answer of JetStream's.
    """
    try:
        answer = _stream.decode(data)
    except msgspec.DecodeError as error:
        raise ProtocolError(what="JetStream's answer", why=str(error)) from error
    if answer.error is not None:
        if answer.error.code == 404:
            return None
        raise NoHistory(why=answer.error.description or f"JetStream's error {answer.error.code}")
    if answer.config is None:
        raise ProtocolError(what="JetStream's answer", why="it has no configuration")
    return answer.config


def next_batch(pattern: str, *, number: int | None, time: float | None) -> bytes:
    """The request for the messages of ``pattern`` after ``number``, else from ``time`` (seconds since 1970), else from the first."""
    ask: dict[str, str | int] = {"batch": _BATCH, "max_bytes": _BATCH_BYTES, "next_by_subj": pattern}
    if number is None and time is not None:
        ask["start_time"] = dt.datetime.fromtimestamp(max(time, 0.0), dt.UTC).isoformat()
    else:
        ask["seq"] = (number or 0) + 1
    return msgspec.json.encode(ask)


def read_batch_message(message: Message) -> Kept | int:
    """One message of an answer to `next_batch`: a kept message, or at the end, how many more there were.

    Raises:
        NoHistory: there is nothing that answers so.
        ProtocolError: it cannot be read.
    """
    headers = message.headers or {}
    match headers.get("Status"):
        case "204":
            return _number(headers, "Nats-Num-Pending")
        case "404":
            return 0
        case None:
            return Kept(
                _number(headers, "Nats-Sequence"),
                seconds(headers.get("Nats-Time-Stamp", "")),
                headers.get("Nats-Subject", ""),
                message.data,
            )
        case status:
            raise NoHistory(why=f"JetStream answered {status} {headers.get('Description', '')}".rstrip())


def _number(headers: Mapping[str, str], name: str) -> int:
    text = headers.get(name, "")
    if not (text.isascii() and text.isdigit()):
        raise ProtocolError(what="JetStream's answer", why=f"no number in {name}: {text!r}")
    return int(text)


def seconds(stamp: str) -> float:
    """Seconds since 1970 of JetStream's time stamp (RFC 3339 with nanoseconds, UTC).

    Raises:
        ProtocolError: not one.
    """
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    try:
        base = dt.datetime.fromisoformat(whole).replace(tzinfo=dt.UTC).timestamp()
        return base + (int(fraction) / 10 ** len(fraction) if fraction else 0.0)
    except ValueError as error:
        raise ProtocolError(what="JetStream's time", why=repr(stamp)) from error
