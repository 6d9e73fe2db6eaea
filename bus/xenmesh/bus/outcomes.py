"""What came of commands, by request id: for 24 hours and across restarts, so that nothing is done twice.

A file of JSON lines, appended to and synced: first the intention, before the command is begun, then the outcome, before it is answered. An
intention without an outcome means that a restart cut it short: nobody knows how far it came. A torn last line is what a crash leaves, and is
dropped. Methods here block on the disk; `service` calls them in a thread, one at a time.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import NamedTuple

import msgspec

from xenmesh.schemas.envelope import encode
from xenmesh.schemas.request import Command

__all__ = ["KEPT", "Key", "Known", "Outcomes", "digest_of"]

KEPT = 24 * 3600.0
"""Seconds that an outcome is kept, from when the command was begun."""

_SLACK = 1000
_log = logging.getLogger(__name__)


class Key(NamedTuple):
    """A request id, and whose: users do not meet each other's ids."""

    user: str
    request_id: str


class Known(NamedTuple):
    """A command that was begun; ``outcome`` None: it runs, or a restart cut it short."""

    digest: str
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

    When the disk fails (full, read-only), the record goes on in memory and ``unwritten`` counts what the file lacks.
    """

    def __init__(self, file: Path | None, now: float) -> None:
        self.unwritten = 0
        self.dropped = 0
        """Lines that could not be read at start."""

        self._file = file
        self._known: dict[Key, Known] = {}
        self._lines = 0
        if file is not None:
            self._load(file)
            self.compact(now)

    def __len__(self) -> int:
        return len(self._known)

    def find(self, key: Key, now: float) -> Known | None:
        """What is known of that request; None: nothing, or it is too long ago."""
        known = self._known.get(key)
        return None if known is None or now - known.time > KEPT else known

    def begin(self, key: Key, digest: str, now: float) -> None:
        """It is about to be carried out."""
        self._known[key] = Known(digest, now, None)
        self._append(key, self._known[key])

    def end(self, key: Key, outcome: bytes, now: float) -> None:
        """It has come to that ``outcome`` (JSON). Compacts the file when more than half of it is old."""
        begun = self._known[key]
        self._known[key] = Known(begun.digest, begun.time, outcome)
        self._append(key, self._known[key])
        if self._lines > 2 * len(self._known) + _SLACK or self._stale(now):
            self.compact(now)

    def compact(self, now: float) -> None:
        """Forget what is older than `KEPT`, and write the file anew."""
        self._known = {key: known for key, known in self._known.items() if now - known.time <= KEPT}
        if self._file is None:
            return
        fresh = self._file.with_name(self._file.name + ".new")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with open(fresh, "wb", opener=_private) as out:
                out.writelines(_line(key, known) for key, known in self._known.items())
                out.flush()
                os.fsync(out.fileno())
            fresh.replace(self._file)
            _sync_directory(self._file.parent)
            self._lines = len(self._known)
        except OSError as error:
            self._failed(error)

    def _stale(self, now: float) -> bool:
        """The oldest is long over: those in front are the oldest, for a dict keeps its order."""
        oldest = next(iter(self._known.values()))
        return now - oldest.time > KEPT + 3600

    def _append(self, key: Key, known: Known) -> None:
        if self._file is None:
            return
        try:
            with open(self._file, "ab", opener=_private) as out:
                out.write(
                    (b"\n" if self.unwritten else b"") + _line(key, known)
                )  # a write that failed may have left half a line
                out.flush()
                os.fsync(out.fileno())
            self._lines += 1
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        self.unwritten += 1
        _log.error("outcomes are not recorded in %s (%s): a restart will forget them", self._file, error.strerror)

    def _load(self, file: Path) -> None:
        try:
            lines = file.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            self._failed(error)
            return
        for data in lines:
            if not data:
                continue
            try:
                line = _decoder.decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self.dropped += 1
                continue
            outcome = bytes(line.outcome) or None
            self._known[Key(line.user, line.id)] = Known(line.digest, line.time, outcome)
        if self.dropped:
            _log.warning("%s: %d lines could not be read and were dropped", file, self.dropped)


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
