"""The server's side of one connection, without IO: bytes in, requests out; replies and watch events in, bytes out.

A `ServerDialect` holds what differs between the two real servers in framing and reading (docs: xenstore.txt; all of it
measured on C xenstored and oxenstored 4.17). What a request means is the caller's affair.

    wire = ServerConnection(domid=0, dialect=C)
    for request in wire.receive_data(data):
        if isinstance(request.message, PayloadError):
            wire.fail(request, request.message.code)
        else:
            wire.reply(request, b"OK\\0")
    transport.write(wire.data_to_send())
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from xenmesh.xenstore.errors import FramingError, PayloadError
from xenmesh.xenstore.messages import AnyRequest, TransactionEnd, format_error, parse
from xenmesh.xenstore.packets import HEADER_SIZE, PAYLOAD_MAX, Op

__all__ = ["OCAML", "C", "Incoming", "ServerConnection", "ServerDialect"]

_HEADER = struct.Struct("<IIII")
_NUMBER = re.compile(rb"\s*([0-9]+)")
_ONE_PATH = (Op.DIRECTORY, Op.READ, Op.GET_PERMS)
_EVENT = int(Op.WATCH_EVENT)
_ERROR = int(Op.ERROR)


class Incoming(NamedTuple):
    """One request. `message` is the PayloadError if it cannot be read: answer its `code`, in its turn."""

    op: int
    req_id: int
    tx_id: int
    message: AnyRequest | PayloadError
    payload: bytes


@dataclass(frozen=True)
class ServerDialect:
    """How one server frames and reads.

    `closes_oversize`: a packet above 4096 bytes ends the connection; otherwise (oxenstored) its length is cut to 4096,
    E2BIG is answered, and what follows is read as the next header, so the stream is out of step.
    `holds_empty`: a packet without payload is only seen when the next byte comes.
    `collapses`: an event equal to one that still waits to be sent is dropped.
    `echoes_watch_tx`: replies to WATCH and UNWATCH carry the request's tx_id (else 0).
    `atoi`: types whose numbers are read as C's atoi does (junk is 0), and which field that is.
    `flaws`: what is answered to a flawed payload, by (flaw, type), where it is not EINVAL.
    `loose_end`: the flag of TRANSACTION_END needs no NUL, and more than one does no harm.
    `unknown`: types it answers with ENOSYS.
    """

    name: str
    closes_oversize: bool
    holds_empty: bool
    collapses: bool
    echoes_watch_tx: bool
    loose_end: bool
    atoi: Mapping[int, int]
    flaws: Mapping[tuple[str, int], str] = field(default_factory=dict)
    unknown: frozenset[int] = frozenset()


_LATER = frozenset(int(op) for op in (Op.GET_FEATURE, Op.SET_FEATURE, Op.GET_QUOTA, Op.SET_QUOTA, Op.RESTRICT))

C = ServerDialect(
    name="c",
    closes_oversize=True,
    holds_empty=False,
    collapses=True,
    echoes_watch_tx=True,
    loose_end=False,
    atoi={Op.GET_DOMAIN_PATH: 0, Op.IS_DOMAIN_INTRODUCED: 0, Op.DIRECTORY_PART: 1},
    # It goes on with no path at all, and answers the error that happens to be left over.
    flaws={
        **{(flaw, int(op)): "ENOENT" for flaw in ("nul", "fields") for op in _ONE_PATH},
        **{(flaw, int(op)): "ENOMEM" for flaw in ("nul", "fields") for op in (Op.MKDIR, Op.RM)},
    },
    unknown=_LATER,
)

OCAML = ServerDialect(
    name="ocaml",
    closes_oversize=False,
    holds_empty=True,
    collapses=False,
    echoes_watch_tx=False,
    loose_end=True,
    atoi={Op.GET_DOMAIN_PATH: 0},
    unknown=_LATER | {int(Op.DIRECTORY_PART)},
)


class ServerConnection:
    """One client's connection. `domid` is who it is."""

    def __init__(self, domid: int, dialect: ServerDialect = C) -> None:
        self.domid = domid
        self.dialect = dialect
        self.dropped_events = 0
        """Events too long for a packet, or equal to one that waited."""
        self._held = b""
        self._out: list[bytes] = []
        self._waiting: set[bytes] = set()
        self._closed = False

    def receive_data(self, untrusted_data: bytes) -> list[Incoming]:
        """Return the requests that these bytes complete.

        Raises FramingError, with nothing to do but close, where the dialect closes; requests that came whole
        before are returned first, and `closed` is set.
        """
        if self._closed:
            raise FramingError("the connection is closed")
        data = self._held + untrusted_data if self._held else untrusted_data
        requests: list[Incoming] = []
        position, end = 0, len(data)
        while end - position >= HEADER_SIZE:
            op, req_id, tx_id, length = _HEADER.unpack_from(data, position)
            oversize = length > PAYLOAD_MAX
            if oversize:
                if self.dialect.closes_oversize:
                    self._closed = True
                    break
                length = PAYLOAD_MAX
            start = position + HEADER_SIZE
            stop = start + length
            if stop > end or (length == 0 and stop == end and self.dialect.holds_empty):
                break
            payload = data[start:stop]
            message = PayloadError("length", "E2BIG") if oversize else self._read(op, payload)
            requests.append(Incoming(op, req_id, tx_id, message, payload))
            position = stop
        self._held = data[position:]
        if self._closed and not requests:
            raise FramingError("a packet above 4096 bytes")
        return requests

    def forget_partial(self) -> None:
        """Drop the bytes of an unfinished request, as oxenstored's live update does."""
        self._held = b""

    @property
    def closed(self) -> bool:
        """Whether the client broke the framing: close once all is sent."""
        return self._closed

    def _read(self, op: int, payload: bytes) -> AnyRequest | PayloadError:
        dialect = self.dialect
        if op in dialect.unknown:
            return PayloadError("op", "ENOSYS", op=op)
        try:
            return parse(op, payload)
        except PayloadError as error:
            return self._read_loosely(op, payload, error)

    def _read_loosely(self, op: int, payload: bytes, error: PayloadError) -> AnyRequest | PayloadError:
        dialect = self.dialect
        if op == Op.TRANSACTION_END and dialect.loose_end and payload.rstrip(b"\0") in (b"T", b"F"):
            return TransactionEnd(commit=payload[:1] == b"T")
        if error.flaw == "number" and op in dialect.atoi:
            fields = payload[:-1].split(b"\0")
            number = _NUMBER.match(fields[dialect.atoi[op]])
            fields[dialect.atoi[op]] = number[1][:20] if number else b"0"
            return parse(op, b"\0".join(fields) + b"\0")
        code = dialect.flaws.get((error.flaw, op))
        return error if code is None else PayloadError(error.flaw, code)

    def reply(self, request: Incoming, payload: bytes) -> None:
        """Answer a request. A payload above 4096 bytes is sent as it is: oxenstored does so for DIRECTORY."""
        tx_id = request.tx_id
        if not self.dialect.echoes_watch_tx and request.op in (Op.WATCH, Op.UNWATCH):
            tx_id = 0
        self._out.append(_HEADER.pack(request.op, request.req_id, tx_id, len(payload)) + payload)

    def fail(self, request: Incoming, code: str) -> None:
        """Answer a request with an error, "ENOENT"."""
        payload = format_error(code)
        self._out.append(_HEADER.pack(_ERROR, request.req_id, request.tx_id, len(payload)) + payload)

    def fire(self, path: str, token: bytes) -> bool:
        """Send a watch event; return whether it goes out.

        Not if it would be longer than a packet (XSA-324), nor, where the dialect collapses, if an equal one waits.
        """
        payload = path.encode("ascii", "replace") + b"\0" + token + b"\0"
        if len(payload) > PAYLOAD_MAX or payload in self._waiting:
            self.dropped_events += 1
            return False
        if self.dialect.collapses:
            self._waiting.add(payload)
        self._out.append(_HEADER.pack(_EVENT, 0, 0, len(payload)) + payload)
        return True

    @property
    def queued(self) -> int:
        """How many packets wait to be sent."""
        return len(self._out)

    def frames_to_send(self) -> list[bytes]:
        """Return the packets that wait, each as its bytes, and forget them."""
        frames, self._out = self._out, []
        self._waiting.clear()
        return frames

    def data_to_send(self) -> bytes:
        """Return all bytes that wait, and forget them."""
        return b"".join(self.frames_to_send())
