# ruff: noqa: D102 - the requests' methods are those of Request, documented there
"""Requests and replies as values: what the payload of each packet type means, both ways.

A client makes a request (`Read("/a")`), sends `payload()` and reads the answer with `parse_reply()`. A server reads a
request with the module's `parse(op, payload)` and answers with the request's `format_reply(value)`, or with
`format_error("ENOENT")`. Source of the forms: docs/misc/xenstore.txt.

Values and watch tokens are opaque bytes; paths, being ASCII by law, are str.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Generic, NamedTuple, TypeVar, Union

from xenmesh.xenstore.errors import PayloadError, PermError, ReplyError, UsageError
from xenmesh.xenstore.packets import Op
from xenmesh.xenstore.paths import validate
from xenmesh.xenstore.perms import Perm

__all__ = [
    "OK",
    "AnyRequest",
    "Control",
    "Directory",
    "DirectoryPart",
    "GetDomainPath",
    "GetFeature",
    "GetPerms",
    "GetQuota",
    "Introduce",
    "IsDomainIntroduced",
    "Message",
    "Mkdir",
    "Part",
    "Read",
    "Release",
    "Request",
    "ResetWatches",
    "Resume",
    "Rm",
    "SetFeature",
    "SetPerms",
    "SetQuota",
    "SetTarget",
    "TransactionEnd",
    "TransactionStart",
    "Unwatch",
    "Watch",
    "WatchEvent",
    "Write",
    "format_error",
    "parse",
    "parse_error",
]

OK = b"OK\0"

R = TypeVar("R")
P = TypeVar("P", bound="_OfPath")
D = TypeVar("D", bound="_OfDomain")

_NUMBER = re.compile(b"[0-9]{1,20}").fullmatch


def _fields(untrusted_payload: bytes, least: int, most: int) -> list[bytes]:
    """Split NUL-terminated fields."""
    if untrusted_payload[-1:] != b"\0":
        raise PayloadError("nul")
    fields = untrusted_payload[:-1].split(b"\0")
    if not least <= len(fields) <= most:
        raise PayloadError("fields", count=len(fields))
    return fields


def _text(untrusted_field: bytes) -> str:
    try:
        return untrusted_field.decode("ascii")
    except UnicodeDecodeError:
        raise PayloadError("ascii") from None


def _number(untrusted_field: bytes) -> int:
    if _NUMBER(untrusted_field) is None:
        raise PayloadError("number")
    return int(untrusted_field)


def _perm(untrusted_field: bytes) -> Perm:
    try:
        return Perm.parse(_text(untrusted_field))
    except PermError:
        raise PayloadError("perm") from None


def _joined(*fields: object) -> bytes:
    return b"".join(str(field).encode() + b"\0" for field in fields)


def _names(payload: bytes) -> list[str]:
    """Read the child names of a reply."""
    if not payload:
        return []
    if payload[-1:] != b"\0":
        raise ReplyError("a list of names without its last NUL")
    return _reply_text(payload[:-1]).split("\0")


def _reply_text(payload: bytes) -> str:
    try:
        return payload.decode("ascii")
    except UnicodeDecodeError:
        raise ReplyError("text that is not ASCII") from None


def _reply_number(payload: bytes) -> int:
    digits = payload[:-1] if payload[-1:] == b"\0" else payload
    if _NUMBER(digits) is None:
        raise ReplyError("a reply that should be a number")
    return int(digits)


def _token(token: bytes) -> bytes:
    if b"\0" in token:
        raise UsageError("a watch token may not hold a NUL")
    return token


class Message:
    """What can be sent to a server.

    `op` is its packet type; `repeatable` tells whether doing it twice leaves the store as doing it once.
    """

    op: ClassVar[Op]
    repeatable: ClassVar[bool] = False

    def payload(self) -> bytes:
        """Return the payload. Raises UsageError (PathError, ...) for what no server accepts."""
        raise NotImplementedError

    def __str__(self) -> str:
        name = self.op.name
        path = getattr(self, "path", None)
        return name if path is None else f"{name} {path}"


class Request(Message, Generic[R]):
    """A message whose answer is an R."""

    def parse_reply(self, payload: bytes) -> R:
        """Read the answer. Raises ReplyError."""
        raise NotImplementedError

    def format_reply(self, value: R) -> bytes:
        """Return the payload of the answer `value`."""
        raise NotImplementedError


class _Acknowledged(Request[None]):
    """Answered by "OK"."""

    def parse_reply(self, payload: bytes) -> None:
        if payload.rstrip(b"\0") != b"OK":
            raise ReplyError(f"{self.op.name} was answered neither OK nor an error")

    def format_reply(self, value: None) -> bytes:  # noqa: ARG002 - there is but one answer
        return OK


@dataclass(frozen=True)
class _OfPath:
    """Payload `path|`."""

    path: str

    def payload(self) -> bytes:
        return validate(self.path).encode("ascii") + b"\0"

    @classmethod
    def parse(cls: type[P], untrusted_payload: bytes) -> P:  # noqa: PYI019 - Self needs 3.11
        (path,) = _fields(untrusted_payload, 1, 1)
        return cls(_text(path))


@dataclass(frozen=True)
class _OfDomain:
    """Payload `domid|`."""

    domid: int

    def payload(self) -> bytes:
        return _joined(self.domid)

    @classmethod
    def parse(cls: type[D], untrusted_payload: bytes) -> D:  # noqa: PYI019
        (domid,) = _fields(untrusted_payload, 1, 1)
        return cls(_number(domid))


@dataclass(frozen=True)
class Control(Request[str]):
    """Ask the daemon itself (`Control((b"print", b"hello"))`); dom0 only. The commands differ by server."""

    op = Op.CONTROL
    arguments: tuple[bytes, ...]

    def payload(self) -> bytes:
        if any(b"\0" in argument for argument in self.arguments) or not self.arguments:
            raise UsageError("a control request needs arguments without NUL")
        return b"".join(argument + b"\0" for argument in self.arguments)

    @classmethod
    def parse(cls, untrusted_payload: bytes) -> Control:
        return cls(tuple(_fields(untrusted_payload, 1, 4096)))

    def parse_reply(self, payload: bytes) -> str:
        return payload.rstrip(b"\0").decode("utf-8", "replace")

    def format_reply(self, value: str) -> bytes:
        return value.encode() + b"\0"


class Directory(_OfPath, Request[list[str]]):
    """List the children's names. Above 4096 bytes: E2BIG, then see DirectoryPart."""

    op = Op.DIRECTORY
    repeatable = True

    def parse_reply(self, payload: bytes) -> list[str]:
        return _names(payload)

    def format_reply(self, value: list[str]) -> bytes:
        return b"".join(name.encode("ascii") + b"\0" for name in value)


class Read(_OfPath, Request[bytes]):
    """Read a node's value."""

    op = Op.READ
    repeatable = True

    def parse_reply(self, payload: bytes) -> bytes:
        return payload

    def format_reply(self, value: bytes) -> bytes:
        return value


class GetPerms(_OfPath, Request[list[Perm]]):
    """Read a node's permissions."""

    op = Op.GET_PERMS
    repeatable = True

    def parse_reply(self, payload: bytes) -> list[Perm]:
        try:
            perms = [Perm.parse(text) for text in _names(payload)]
        except PermError as error:
            raise ReplyError("a permission list that is none") from error
        if not perms:
            raise ReplyError("an empty permission list")
        return perms

    def format_reply(self, value: list[Perm]) -> bytes:
        return _joined(*value)


@dataclass(frozen=True)
class Watch(_Acknowledged):
    """Watch a node and all below it; (path, token) names the watch.

    `depth`: levels below `path` that count (0: the node alone). Only servers with WATCHDEPTH know it, others answer
    EINVAL: probe with a throw-away watch first.
    """

    op = Op.WATCH
    path: str
    token: bytes
    depth: int | None = None

    def payload(self) -> bytes:
        head = validate(self.path).encode("ascii") + b"\0" + _token(self.token) + b"\0"
        return head if self.depth is None else head + _joined(self.depth)

    @classmethod
    def parse(cls, untrusted_payload: bytes) -> Watch:
        path, token, *depth = _fields(untrusted_payload, 2, 3)
        return cls(_text(path), token, _number(depth[0]) if depth else None)


@dataclass(frozen=True)
class Unwatch(_Acknowledged):
    """Drop a watch; path and token must be as registered. Events queued before may still come: drop them."""

    op = Op.UNWATCH
    path: str
    token: bytes

    def payload(self) -> bytes:
        return validate(self.path).encode("ascii") + b"\0" + _token(self.token) + b"\0"

    @classmethod
    def parse(cls, untrusted_payload: bytes) -> Unwatch:
        path, token = _fields(untrusted_payload, 2, 2)
        return cls(_text(path), token)


@dataclass(frozen=True)
class TransactionStart(Request[int]):
    """Start a transaction; the answer is its id. The packet's own tx_id must be 0."""

    op = Op.TRANSACTION_START

    def payload(self) -> bytes:
        return b"\0"

    @classmethod
    def parse(cls, untrusted_payload: bytes) -> TransactionStart:  # noqa: ARG003 - clients send "", NUL or more
        return cls()

    def parse_reply(self, payload: bytes) -> int:
        return _reply_number(payload)

    def format_reply(self, value: int) -> bytes:
        return _joined(value)


@dataclass(frozen=True)
class TransactionEnd(_Acknowledged):
    """Commit or drop the transaction named by the packet's tx_id. EAGAIN: a conflict; the id is gone all the same."""

    op = Op.TRANSACTION_END
    commit: bool

    def payload(self) -> bytes:
        return b"T\0" if self.commit else b"F\0"

    @classmethod
    def parse(cls, untrusted_payload: bytes) -> TransactionEnd:
        (flag,) = _fields(untrusted_payload, 1, 1)
        if flag not in (b"T", b"F"):
            raise PayloadError("fields")
        return cls(commit=flag == b"T")


@dataclass(frozen=True)
class Introduce(_Acknowledged):
    """Tell of a new domain: its id, the frame of its ring page, its event channel. Dom0 only."""

    op = Op.INTRODUCE
    domid: int
    gfn: int
    port: int

    def payload(self) -> bytes:
        return _joined(self.domid, self.gfn, self.port)

    @classmethod
    def parse(cls, untrusted_payload: bytes) -> Introduce:
        domid, gfn, port = _fields(untrusted_payload, 3, 3)
        return cls(_number(domid), _number(gfn), _number(port))


class Release(_OfDomain, _Acknowledged):
    """Drop the connection to a domain. Dom0 only."""

    op = Op.RELEASE


class GetDomainPath(_OfDomain, Request[str]):
    """Return the domain's home, /local/domain/N; no check that it exists."""

    op = Op.GET_DOMAIN_PATH
    repeatable = True

    def parse_reply(self, payload: bytes) -> str:
        return _reply_text(payload.rstrip(b"\0"))

    def format_reply(self, value: str) -> bytes:
        return value.encode("ascii") + b"\0"


@dataclass(frozen=True)
class Write(_Acknowledged):
    """Set a node's value, making it and missing parents. No NUL is added; one that is sent is stored."""

    op = Op.WRITE
    repeatable = True
    path: str
    value: bytes

    def payload(self) -> bytes:
        return validate(self.path).encode("ascii") + b"\0" + self.value

    @classmethod
    def parse(cls, untrusted_payload: bytes) -> Write:
        path, nul, value = untrusted_payload.partition(b"\0")
        if not nul:
            raise PayloadError("nul")
        return cls(_text(path), value)


class Mkdir(_OfPath, _Acknowledged):
    """Make an empty node; one that exists stays as it is, and no watch fires."""

    op = Op.MKDIR
    repeatable = True


class Rm(_OfPath, _Acknowledged):
    """Remove a node and all below. OK for a missing node whose parent exists."""

    op = Op.RM
    repeatable = True


@dataclass(frozen=True)
class SetPerms(_Acknowledged):
    """Set a node's whole permission list; the first entry names the owner."""

    op = Op.SET_PERMS
    repeatable = True
    path: str
    perms: tuple[Perm, ...]

    def payload(self) -> bytes:
        if not self.perms:
            raise UsageError("a permission list names at least the owner")
        return validate(self.path).encode("ascii") + b"\0" + _joined(*self.perms)

    @classmethod
    def parse(cls, untrusted_payload: bytes) -> SetPerms:
        path, *perms = _fields(untrusted_payload, 2, 4096)
        return cls(_text(path), tuple(_perm(perm) for perm in perms))


class IsDomainIntroduced(_OfDomain, Request[bool]):
    """Whether the server talks to the domain. Dom0 only in C."""

    op = Op.IS_DOMAIN_INTRODUCED
    repeatable = True

    def parse_reply(self, payload: bytes) -> bool:
        answer = payload.rstrip(b"\0")
        if answer not in (b"T", b"F"):
            raise ReplyError("neither T nor F")
        return answer == b"T"

    def format_reply(self, value: bool) -> bytes:  # noqa: FBT001 - the answer is a truth value
        return b"T\0" if value else b"F\0"


class Resume(_OfDomain, _Acknowledged):
    """Forget that the domain has shut down, so that @releaseDomain can fire for it again. Dom0 only."""

    op = Op.RESUME


@dataclass(frozen=True)
class SetTarget(_Acknowledged):
    """Give a stub domain its target's rights. Dom0 only."""

    op = Op.SET_TARGET
    domid: int
    target: int

    def payload(self) -> bytes:
        return _joined(self.domid, self.target)

    @classmethod
    def parse(cls, untrusted_payload: bytes) -> SetTarget:
        domid, target = _fields(untrusted_payload, 2, 2)
        return cls(_number(domid), _number(target))


@dataclass(frozen=True)
class ResetWatches(_Acknowledged):
    """Drop this connection's watches and transactions. Never through /dev/xen/xenbus: it would drop the kernel's."""

    op = Op.RESET_WATCHES

    def payload(self) -> bytes:
        return b"\0"

    @classmethod
    def parse(cls, untrusted_payload: bytes) -> ResetWatches:  # noqa: ARG003 - nothing in it counts
        return cls()


class Part(NamedTuple):
    """One piece of a long directory: the list's generation, some whole names, and whether they are the last."""

    generation: str
    names: list[str]
    last: bool

    @property
    def size(self) -> int:
        """How far the next offset lies: the bytes of the names and their NULs."""
        return sum(len(name) + 1 for name in self.names)


@dataclass(frozen=True)
class DirectoryPart(Request[Part]):
    """List the children's names from `offset`, a count of bytes into the whole list."""

    op = Op.DIRECTORY_PART
    repeatable = True
    path: str
    offset: int

    def payload(self) -> bytes:
        return validate(self.path).encode("ascii") + b"\0" + _joined(self.offset)

    @classmethod
    def parse(cls, untrusted_payload: bytes) -> DirectoryPart:
        path, offset = _fields(untrusted_payload, 2, 2)
        return cls(_text(path), _number(offset))

    def parse_reply(self, payload: bytes) -> Part:
        generation, nul, rest = payload.partition(b"\0")
        if not nul:
            raise ReplyError("a part without its generation")
        # The last part ends with an empty name; no child has one.
        last = rest[-2:] in (b"\0", b"\0\0")
        return Part(_reply_text(generation), _names(rest[:-1] if last else rest), last)

    def format_reply(self, value: Part) -> bytes:
        return _joined(value.generation, *value.names) + (b"\0" if value.last else b"")


@dataclass(frozen=True)
class GetFeature(Request[int]):
    """Return the feature bits of the server, or of a domain. C xenstored 4.21 and later only.

    Without a domid its payload is empty, which oxenstored does not process until more bytes come.
    """

    op = Op.GET_FEATURE
    repeatable = True
    domid: int | None = None

    def payload(self) -> bytes:
        return b"" if self.domid is None else _joined(self.domid)

    @classmethod
    def parse(cls, untrusted_payload: bytes) -> GetFeature:
        if not untrusted_payload:
            return cls()
        (domid,) = _fields(untrusted_payload, 1, 1)
        return cls(_number(domid))

    def parse_reply(self, payload: bytes) -> int:
        return _reply_number(payload)

    def format_reply(self, value: int) -> bytes:
        return _joined(value)


@dataclass(frozen=True)
class SetFeature(_Acknowledged):
    """Set a domain's feature bits, before it runs. Dom0 only."""

    op = Op.SET_FEATURE
    domid: int
    value: int

    def payload(self) -> bytes:
        return _joined(self.domid, self.value)

    @classmethod
    def parse(cls, untrusted_payload: bytes) -> SetFeature:
        domid, value = _fields(untrusted_payload, 2, 2)
        return cls(_number(domid), _number(value))


def _quota(name: str) -> str:
    if not name or "\0" in name or not name.isascii():
        raise UsageError("a quota's name is ASCII without NUL", name=name[:40])
    return name


@dataclass(frozen=True)
class GetQuota(Request[str]):
    """Return one quota's value (as text), or, without a name, the names known, separated by spaces. C only."""

    op = Op.GET_QUOTA
    repeatable = True
    quota: str | None = None
    domid: int | None = None

    def payload(self) -> bytes:
        if self.quota is None:
            if self.domid is not None:
                raise UsageError("a domain's quota needs its name", domid=self.domid)
            return b""
        name = _quota(self.quota)
        return _joined(name) if self.domid is None else _joined(self.domid, name)

    @classmethod
    def parse(cls, untrusted_payload: bytes) -> GetQuota:
        if not untrusted_payload:
            return cls()
        *domid, quota = _fields(untrusted_payload, 1, 2)
        return cls(_text(quota), _number(domid[0]) if domid else None)

    def parse_reply(self, payload: bytes) -> str:
        return _reply_text(payload.rstrip(b"\0"))

    def format_reply(self, value: str) -> bytes:
        return value.encode("ascii") + b"\0"


@dataclass(frozen=True)
class SetQuota(_Acknowledged):
    """Set a quota, of one domain or for all. C only."""

    op = Op.SET_QUOTA
    quota: str
    value: int
    domid: int | None = None

    def payload(self) -> bytes:
        name = _quota(self.quota)
        tail = _joined(name, self.value)
        return tail if self.domid is None else _joined(self.domid) + tail

    @classmethod
    def parse(cls, untrusted_payload: bytes) -> SetQuota:
        *domid, quota, value = _fields(untrusted_payload, 2, 3)
        return cls(_text(quota), _number(value), _number(domid[0]) if domid else None)


class WatchEvent(NamedTuple):
    """Something under a watch changed, or may have: read it. Server to client only, and never an answer."""

    path: str
    token: bytes

    def payload(self) -> bytes:
        """Return the payload of the WATCH_EVENT packet."""
        return self.path.encode("ascii") + b"\0" + self.token + b"\0"

    @classmethod
    def parse(cls, payload: bytes) -> WatchEvent:
        """Read the payload of a WATCH_EVENT packet. Raises ReplyError."""
        path, nul, token = payload.partition(b"\0")
        if not nul or token[-1:] != b"\0":
            raise ReplyError("a watch event without path and token")
        return cls(_reply_text(path), token[:-1])


AnyRequest = Union[
    Control,
    Directory,
    Read,
    GetPerms,
    Watch,
    Unwatch,
    TransactionStart,
    TransactionEnd,
    Introduce,
    Release,
    GetDomainPath,
    Write,
    Mkdir,
    Rm,
    SetPerms,
    IsDomainIntroduced,
    Resume,
    SetTarget,
    ResetWatches,
    DirectoryPart,
    GetFeature,
    SetFeature,
    GetQuota,
    SetQuota,
]

_REQUESTS: tuple[type[AnyRequest], ...] = AnyRequest.__args__  # type: ignore[attr-defined]
_BY_OP: dict[int, type[AnyRequest]] = {int(request.op): request for request in _REQUESTS}


def parse(op: int, untrusted_payload: bytes) -> AnyRequest:
    """Read a request, as a server must.

    Raises PayloadError, whose `code` is what to answer: ENOSYS for a type that is no request, EINVAL for a payload
    that cannot be read (`flaw` says why, for servers that answer otherwise). Paths are not validated here: servers
    differ on them.
    """
    request = _BY_OP.get(op)
    if request is None:
        raise PayloadError("op", "ENOSYS", op=op)
    return request.parse(untrusted_payload)


def format_error(code: str) -> bytes:
    """Return the payload of an ERROR packet."""
    return code.encode("ascii") + b"\0"


def parse_error(payload: bytes) -> str:
    """Return the code of an ERROR packet, as sent."""
    return payload.rstrip(b"\0").decode("ascii", "replace")
