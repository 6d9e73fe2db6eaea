"""What came of commands, by request id: for 24 hours and across restarts, so that nothing is done twice.

A file of JSON lines, appended to and synced: first the intention, before the command is begun, then the outcome, before it is answered. An
intention without an outcome means that a restart cut it short: nobody knows how far it came. A torn last line is what a crash leaves, and is
dropped. `Outcomes.begin` and `Outcomes.end` block on the disk: they are called in a thread, one at a time.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from xenmesh.schemas.envelope import encode
from xenmesh.schemas.request import Command

__all__ = ["KEPT", "Key", "Known", "Outcomes", "digest_of"]

KEPT = 24 * 3600.0
"""Seconds that an outcome is kept, from when the command was begun."""

_SLACK = 1000
_HELD = 10_000
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_log = logging.getLogger(__name__)


class Key(NamedTuple):
    """A request id, and whose: users do not meet each other's ids."""

    user: str
    request_id: str


class Known(NamedTuple):
    """A command that was begun; ``outcome`` None: it runs, or a restart cut it short, or the disk does not tell."""

    digest: str
    """Empty: the disk does not tell."""

    time: float
    outcome: bytes | None


_NONE = msgspec.Raw(b"")  # msgspec reads no ``Raw | None``


class _Line(msgspec.Struct, omit_defaults=True):
    user: str
    id: str
    digest: str
    time: float
    outcome: msgspec.Raw = _NONE


_decoder = msgspec.json.Decoder(_Line)


def digest_of(verb: str, request: Command) -> str:
    """What tells one request from another: all of it but the id and the deadline, which a client may set anew when it asks again."""
    body = encode(msgspec.structs.replace(request, request_id="", deadline=None))
    return hashlib.sha256(verb.encode() + b"\0" + body).hexdigest()


class Outcomes:
    """The record. ``file`` None: in memory alone.

    What the file holds is read from there: memory has only where, some 100 bytes a command. When the disk fails (full, read-only), the record
    goes on in memory, for the newest 10,000 commands, and ``unwritten`` counts what the file lacks.
    """

    def __init__(self, file: Path | None, now: float) -> None:
        self.unwritten = 0
        self.dropped = 0
        """Lines that could not be read at start."""

        self._file = file
        self._places: dict[int, int] = {}
        """Where in the file the newest line of each command is."""

        self._held: dict[Key, Known] = {}
        """What runs, and what the file lacks."""

        self._oldest = math.inf
        self._lines = 0
        self._moving = threading.Lock()
        self._salt = os.urandom(16)
        if file is not None:
            self._load(file)
            self.compact(now)

    def __len__(self) -> int:
        return len(self._places.keys() | set(map(self._mark, self._held)))

    def find(self, key: Key, now: float) -> Known | None:
        """What is known of that request; None: nothing, or it is too long ago. Reads one line of the file where there is something."""
        known = self._held.get(key) or self._read(key)
        return None if known is None or now - known.time > KEPT else known

    def begin(self, key: Key, digest: str, now: float) -> None:
        """It is about to be carried out."""
        self._held[key] = Known(digest, now, None)
        self._oldest = min(self._oldest, now)
        self._append(key, self._held[key])
        if len(self._held) > _HELD:
            del self._held[next(key for key, known in self._held.items() if known.outcome is not None)]

    def end(self, key: Key, outcome: bytes, now: float) -> None:
        """It has come to that ``outcome`` (JSON). Compacts the file when more than half of it is old."""
        begun = self._held[key]
        self._held[key] = Known(begun.digest, begun.time, outcome)
        if self._append(key, self._held[key]):
            del self._held[key]
        if self._lines > 2 * len(self._places) + _SLACK or now - self._oldest > KEPT + 3600:
            self.compact(now)

    def compact(self, now: float) -> None:
        """Forget what is older than `KEPT`, and write the file anew, line by line, with what it lacked."""
        self._held = {key: known for key, known in self._held.items() if known.outcome is None or now - known.time <= KEPT}
        self._oldest = min((known.time for known in self._held.values()), default=math.inf)
        if self._file is None:
            return
        fresh = self._file.with_name(self._file.name + ".new")
        places: dict[int, int] = {}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with open(fresh, "wb", opener=_private) as out:
                for place, line in self._walk():
                    key = Key(line.user, line.id)
                    if self._places.get(self._mark(key)) == place and key not in self._held and now - line.time <= KEPT:
                        places[self._mark(key)] = out.tell()
                        self._oldest = min(self._oldest, line.time)
                        out.write(msgspec.json.encode(line) + b"\n")
                for key, known in self._held.items():
                    places[self._mark(key)] = out.tell()
                    out.write(_line(key, known))
                out.flush()
                os.fsync(out.fileno())
            with self._moving:
                fresh.replace(self._file)
                self._places = places
            self._held = {key: known for key, known in self._held.items() if known.outcome is None}
            self._lines = len(places)
            _sync_directory(self._file.parent)
        except OSError as error:
            self._failed(error)

    def _mark(self, key: Key) -> int:
        """64 bits that stand for the key, salted so that nobody can make two keys meet; what is read is compared all the same."""
        text = f"{len(key.user)} {key.user} {key.request_id}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=self._salt).digest(), "big")

    def _read(self, key: Key) -> Known | None:
        with self._moving:
            place = self._places.get(self._mark(key))
            if place is None or self._file is None:
                return None
            try:
                with self._file.open("rb") as lines:
                    lines.seek(place)
                    line = _decoder.decode(lines.readline())
            except (OSError, *_MALFORMED) as error:
                _log.error("an outcome cannot be read from %s (%s)", self._file, error)
                # That it was begun is certain, and it must not be done again.
                return Known("", math.inf, None)
        return _known(line) if (line.user, line.id) == key else None

    def _append(self, key: Key, known: Known) -> bool:
        if self._file is None:
            return False
        try:
            with open(self._file, "ab", opener=_private) as out:
                if self.unwritten:  # a write that failed may have left half a line
                    out.write(b"\n")
                place = out.tell()
                out.write(_line(key, known))
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            self._failed(error)
            return False
        self._places[self._mark(key)] = place
        self._lines += 1
        return True

    def _failed(self, error: OSError) -> None:
        self.unwritten += 1
        _log.error("outcomes are not recorded in %s (%s): a restart will forget them", self._file, error.strerror)

    def _walk(self) -> Iterator[tuple[int, _Line]]:
        """Every line of the file that can be read, and where it is."""
        if self._file is None or not self._file.exists():
            return
        place, self.dropped = 0, 0
        with self._file.open("rb") as lines:
            for data in lines:
                here, place = place, place + len(data)
                if data.isspace():
                    continue
                try:
                    yield here, _decoder.decode(data)
                except _MALFORMED:
                    self.dropped += 1

    def _load(self, file: Path) -> None:
        try:
            for place, line in self._walk():
                self._places[self._mark(Key(line.user, line.id))] = place
        except OSError as error:
            self._failed(error)
            return
        if self.dropped:
            _log.warning("%s: %d lines could not be read and were dropped", file, self.dropped)


def _known(line: _Line) -> Known:
    return Known(line.digest, line.time, bytes(line.outcome) or None)


def _line(key: Key, known: Known) -> bytes:
    outcome = _NONE if known.outcome is None else msgspec.Raw(known.outcome)
    return msgspec.json.encode(_Line(key.user, key.request_id, known.digest, known.time, outcome)) + b"\n"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
