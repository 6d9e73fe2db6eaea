"""Recorded streams: NDJSON of time, subject and event; written as heard, read back, and said again at any speed.

    {"time":1790000000.25,"subject":"xen.v1.<host>.store.5.data","event":{"host":...}}

The event stands as it travelled, byte for byte. What is not one line of JSON (nothing of ours; the empty message of a purged state) stands as
base64 in ``raw`` instead.
"""

from __future__ import annotations

import errno
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from io import RawIOBase
from pathlib import Path

import anyio
import msgspec

from xenmesh.schemas.subjects import ROOT, token

from .abc import Bus
from .errors import RecordingError
from .message import Message

__all__ = ["Record", "Recorder", "read", "record", "rehosted", "replay"]

Say = Callable[[str, bytes], Awaitable[None]]


_NONE = msgspec.Raw(b"")  # msgspec reads no ``Raw | None``


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message as it was heard."""

    time: float
    """Seconds since 1970."""

    subject: str
    """Whole, with the host's prefix."""

    event: msgspec.Raw = _NONE
    """What was said: JSON of one line; empty where it is none."""

    raw: bytes | None = None
    """What was said, where it is no such JSON."""

    @classmethod
    def of(cls, time: float, subject: str, data: bytes) -> Record:
        """The record of a message."""
        if _is_line(data):
            return cls(time, subject, msgspec.Raw(data))
        return cls(time, subject, raw=data)

    @property
    def data(self) -> bytes:
        """The message's payload, byte for byte."""
        return self.raw if self.raw is not None else bytes(self.event)

    def line(self) -> bytes:
        """As it stands in the file, with the line's end."""
        return _encoder.encode(self) + b"\n"


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_any = msgspec.json.Decoder()
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _is_line(data: bytes) -> bool:
    if b"\n" in data or b"\r" in data or data != data.strip():
        return False
    try:
        _any.decode(data)
        data.decode()
    except _MALFORMED:
        return False
    return True


def read(file: Path) -> Iterator[Record]:
    """The records of ``file``, in their order; blank lines are passed over.

    Raises:
        errors.RecordingError: a line cannot be read, or the file cannot be opened; names both.
    """
    try:
        lines = file.open("rb")
    except OSError as error:
        raise RecordingError(file=str(file), line=0, why=str(error.strerror)) from None
    with lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _parse(file, number, line)


def _parse(file: Path, number: int, line: bytes) -> Record:
    try:
        line.decode()
        found = _decoder.decode(line)
    except _MALFORMED as error:
        raise RecordingError(file=str(file), line=number, why=str(error)) from None
    if not bytes(found.event) and found.raw is None:
        raise RecordingError(file=str(file), line=number, why="it has neither an event nor raw bytes")
    return found


class Recorder:
    """Appends records to an unbuffered file, each one whole before the next begins."""

    def __init__(self, out: RawIOBase, clock: Callable[[], float] = time.time) -> None:
        self.count = 0
        self._out = out
        self._clock = clock

    def heard(self, message: Message) -> None:
        """Write ``message`` down; a bus's handler.

        Raises:
            OSError: the disk does not take it.
        """
        line = Record.of(self._clock(), message.subject, message.data).line()
        if self._out.write(line) != len(line):
            raise OSError(errno.ENOSPC, "only part of a line was written")
        self.count += 1


@asynccontextmanager
async def record(
    bus: Bus, patterns: Iterable[str], file: Path, *, clock: Callable[[], float] = time.time
) -> AsyncIterator[Recorder]:
    """Append what is heard on ``patterns`` (whole subjects) to ``file`` while the block runs; all that was said before its end is in it.

    Raises:
        errors.RecordingError: the file cannot be written, or this recorder was too slow and the recording would have a hole.
    """
    troubles: list[str] = []
    try:
        out = file.open("ab", buffering=0)
    except OSError as error:
        raise RecordingError(file=str(file), line=0, why=str(error.strerror)) from None
    with out:
        recorder = Recorder(out, clock)

        def heard(message: Message) -> None:
            try:
                if not troubles:
                    recorder.heard(message)
            except OSError as error:
                troubles.append(str(error.strerror))

        def cut_off() -> None:
            troubles.append("it was too slow, and was cut off")

        subscriptions = [await bus.subscribe(pattern, heard, on_cut=cut_off) for pattern in patterns]
        await bus.settle()
        try:
            yield recorder
            await bus.settle()
        finally:
            with anyio.CancelScope(shield=True):
                for subscription in subscriptions:
                    await subscription.close()
    if troubles:
        raise RecordingError(file=str(file), line=recorder.count, why=troubles[0])


def rehosted(given: Record, host: str) -> Record:
    """The record as if it came from ``host``: in its subject and in its envelope.

    Raises:
        ValueError: its subject is not one of ours, or ``host`` cannot be part of one.
    """
    parts = given.subject.split(".", 3)
    if len(parts) < 4 or f"{parts[0]}.{parts[1]}" != ROOT:
        raise ValueError(f"{given.subject!r} is not a subject of xenmesh")
    subject = f"{ROOT}.{token(host)}.{parts[3]}"
    if not bytes(given.event).startswith(b"{"):
        return Record(given.time, subject, given.event, given.raw)
    fields = _fields.decode(given.event)
    if "host" in fields:
        fields["host"] = msgspec.Raw(_encoder.encode(host))
    return Record(given.time, subject, msgspec.Raw(_encoder.encode(fields)))


async def replay(
    records: Iterable[Record],
    to: Bus | Say,
    *,
    speed: float | None = 1.0,
    rehost: str | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> int:
    """Say the records again, to a bus or a function of (subject, data); returns how many.

    ``speed`` 1.0 keeps their distances in time, 10.0 is ten times as fast, None is at once. Time is measured from the first record, so that
    delays do not add up; one whose time lies before that of its forerunner follows it at once.

    Raises:
        ValueError: ``speed`` is not above 0.
    """
    if speed is not None and not speed > 0:
        raise ValueError(f"a speed of {speed} never ends: give one above 0, or None for at once")
    say = to.publish if isinstance(to, Bus) else to
    began = first = None
    count = 0
    for given in records:
        if speed is not None:
            if began is None or first is None:
                began, first = clock(), given.time
            left = (given.time - first) / speed - (clock() - began)
            if left > 0:
                await sleep(left)
        shown = given if rehost is None else rehosted(given, rehost)
        await say(shown.subject, shown.data)
        count += 1
    return count
