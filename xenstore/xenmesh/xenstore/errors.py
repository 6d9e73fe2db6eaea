"""What can go wrong at the store, and whose fault it is.

    XenstoreError
    ├── UsageError               ours: refused before a byte was sent
    │   ├── PathError
    │   ├── PermError
    │   └── TooLongError         more than the link or the portable limits allow
    ├── ServerError              theirs: an ERROR reply; `code` is its string as sent
    │   ├── NotFoundError        ENOENT
    │   ├── AccessError          EACCES, EPERM
    │   ├── ExistsError          EEXIST
    │   ├── ConflictError        EAGAIN: the transaction must be run again
    │   ├── UnsupportedError     ENOSYS
    │   └── LimitError           ENOSPC, E2BIG
    │       └── QuotaError       EQUOTA (oxenstored's own)
    ├── ProtocolError            theirs: the peer broke the protocol
    │   ├── FramingError         the stream is out of step: close it
    │   ├── PayloadError         a request that cannot be read (server side); has an errno `code`
    │   └── ReplyError           a reply that cannot be read (client side)
    └── LinkError                the world's
        ├── UnreachableError     no xenstored answers there
        ├── DisconnectedError    asked while there is no connection; nothing was sent
        ├── TransactionLostError the connection went before the commit: nothing of it was done
        ├── OutcomeUnknown       the connection went while a request was under way
        └── ListingError         a directory could not be listed whole

Each carries `code` (a word that does not change), `facts` (what it is about) and makes its own sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Union

if TYPE_CHECKING:
    from xenmesh.xenstore.packets import Packet

__all__ = [
    "CODES",
    "AccessError",
    "ConflictError",
    "DisconnectedError",
    "ExistsError",
    "Fact",
    "FramingError",
    "LimitError",
    "LinkError",
    "ListingError",
    "NotFoundError",
    "OutcomeUnknown",
    "PathError",
    "PayloadError",
    "PermError",
    "ProtocolError",
    "QuotaError",
    "ReplyError",
    "ServerError",
    "TooLongError",
    "TransactionLostError",
    "UnreachableError",
    "UnsupportedError",
    "UsageError",
    "XenstoreError",
]

Fact = Union[str, int, bool, None]

CODES = frozenset(
    (
        *("EINVAL", "EACCES", "EEXIST", "EISDIR", "ENOENT", "ENOMEM", "ENOSPC", "EIO", "ENOTEMPTY", "ENOSYS"),
        *("EROFS", "EBUSY", "EAGAIN", "EISCONN", "E2BIG", "EPERM"),
    )
)
"""The error strings of the protocol's own table; oxenstored adds EQUOTA, and a client must bear any other."""


class XenstoreError(Exception):
    """Base of all errors of this room.

    `origin` is "ours", "theirs" or "world"; `code` a fixed word; `facts` what it is about.
    """

    origin: ClassVar[str] = "world"
    code: str = "xenstore"

    def __init__(self, sentence: str, **facts: Fact) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.facts: Mapping[str, Fact] = facts


class UsageError(XenstoreError):
    """The caller asked for what cannot be sent. Nothing was sent."""

    origin = "ours"
    code = "usage"


class PathError(UsageError):
    """A path that no xenstored accepts; `flaw` says in a word why."""

    code = "path"

    def __init__(self, path: str, flaw: str) -> None:
        super().__init__(f"not a xenstore path ({flaw}): {path[:80]!r}", path=path[:80], flaw=flaw)
        self.path = path
        self.flaw = flaw


class PermError(UsageError):
    """Not a permission of the form letter + decimal domid."""

    code = "perm"


class TooLongError(UsageError):
    """A request longer than the limit that `limit` names."""

    code = "too_long"

    def __init__(self, what: str, length: int, limit: int) -> None:
        super().__init__(f"{what} of {length} bytes; at most {limit} fit", what=what, length=length, limit=limit)
        self.length = length
        self.limit = limit


class ServerError(XenstoreError):
    """The server's ERROR reply; `code` is its string as sent ("ENOENT"). Make it with `ServerError.of`."""

    origin = "theirs"
    _classes: ClassVar[dict[str, type[ServerError]]] = {}
    codes: ClassVar[Sequence[str]] = ()

    def __init__(self, code: str, request: str = "") -> None:
        about = f" to {request}" if request else ""
        super().__init__(f"xenstored answered {code}{about}", request=request)
        self.code = code

    def __init_subclass__(cls) -> None:
        for code in cls.codes:
            ServerError._classes[code] = cls

    @staticmethod
    def of(code: str, request: str = "") -> ServerError:
        """Return the error for `code`, of the class that a caller can catch; `request` says what was asked."""
        return ServerError._classes.get(code, ServerError)(code, request)


class NotFoundError(ServerError):
    """ENOENT: there is no such node (or watch, or transaction)."""

    codes = ("ENOENT",)


class AccessError(ServerError):
    """EACCES or EPERM: not for us. On a re-read after a watch event, treat it as "gone"."""

    codes = ("EACCES", "EPERM")


class ExistsError(ServerError):
    """EEXIST: that watch is already set."""

    codes = ("EEXIST",)


class ConflictError(ServerError):
    """EAGAIN: the transaction met another one and is gone; run it again from its start."""

    codes = ("EAGAIN",)


class UnsupportedError(ServerError):
    """ENOSYS: this server does not know the request."""

    codes = ("ENOSYS",)


class LimitError(ServerError):
    """ENOSPC or E2BIG: a limit of the server's; C xenstored says so of quotas too."""

    codes: ClassVar[Sequence[str]] = ("ENOSPC", "E2BIG")


class QuotaError(LimitError):
    """EQUOTA: a quota of oxenstored's; not in the protocol's table."""

    codes = ("EQUOTA",)


class ProtocolError(XenstoreError):
    """The peer broke the protocol."""

    origin = "theirs"
    code = "protocol"


class FramingError(ProtocolError):
    """The stream is out of step and cannot be trusted again: close the connection.

    `intact` holds the packets that came whole before the violation, in the same piece of bytes.
    """

    code = "framing"

    def __init__(self, sentence: str, intact: Sequence[Packet] = (), **facts: Fact) -> None:
        super().__init__(sentence, **facts)
        self.intact: list[Packet] = list(intact)


class PayloadError(ProtocolError):
    """A request whose payload cannot be read. The server answers `code`.

    `flaw` tells what is wrong, for dialects that answer otherwise: "nul" (no closing NUL), "fields" (too many or
    too few), "number", "ascii", "perm", "op" (unknown type; `code` is ENOSYS).
    """

    code = "EINVAL"

    def __init__(self, flaw: str, code: str = "EINVAL", **facts: Fact) -> None:
        super().__init__(f"malformed request ({flaw})", flaw=flaw, **facts)
        self.flaw = flaw
        self.code = code


class ReplyError(ProtocolError):
    """A reply whose payload is not of the form its type demands."""

    code = "reply"


class LinkError(XenstoreError):
    """The way to the server failed."""

    code = "link"


class UnreachableError(LinkError):
    """No xenstored can be reached: none runs, or the endpoint is not ours to open."""

    code = "unreachable"


class DisconnectedError(LinkError):
    """Asked while there is no connection. Nothing was sent; ask again once the state is UP."""

    code = "disconnected"


class TransactionLostError(LinkError):
    """The connection went before the commit was sent: nothing of the transaction was done. Run it again once UP."""

    code = "transaction_lost"


class OutcomeUnknown(LinkError):  # noqa: N818 - says what is the case, as anyio's names do
    """The connection went before the answer came: the request may or may not have been done.

    `safe_to_repeat` tells whether sending it again ends in the same state as sending it once: reads, requests that
    were never sent, and idempotent writes outside a transaction. A commit never is; look at the store instead.
    """

    code = "outcome_unknown"

    def __init__(self, request: str, *, safe_to_repeat: bool, sent: bool) -> None:
        super().__init__(
            f"connection lost before xenstored answered {request}",
            request=request,
            safe_to_repeat=safe_to_repeat,
            sent=sent,
        )
        self.safe_to_repeat = safe_to_repeat
        self.sent = sent


class ListingError(LinkError):
    """A directory larger than one reply could not be listed whole; `reason` is "unsupported" or "unsteady"."""

    code = "listing"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} is too large to be listed ({reason})", path=path, reason=reason)
        self.path = path
        self.reason = reason
