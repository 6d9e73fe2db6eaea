"""Frames: a header of four 32-bit integers (type, req_id, tx_id, len), then the payload.

The same on the unix socket, on /dev/xen/xenbus and in the shared ring; byte order is the machine's (Xen: little endian).
Source: xs_wire.h, docs/misc/xenstore.txt.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from xenmesh.xenstore.errors import FramingError, TooLongError

__all__ = ["HEADER_SIZE", "PAYLOAD_MAX", "Op", "Packet", "Parser", "encode", "pack_header"]

PAYLOAD_MAX = 4096
"""Most bytes of payload in one packet, either way; the header is not counted."""

_HEADER = struct.Struct("<IIII")
HEADER_SIZE = _HEADER.size
pack_header = _HEADER.pack
"""`pack_header(op, req_id, tx_id, length)`; for senders that have checked the length, else use `encode`."""


class Op(IntEnum):
    """The packet types."""

    CONTROL = 0
    DIRECTORY = 1
    READ = 2
    GET_PERMS = 3
    WATCH = 4
    UNWATCH = 5
    TRANSACTION_START = 6
    TRANSACTION_END = 7
    INTRODUCE = 8
    RELEASE = 9
    GET_DOMAIN_PATH = 10
    WRITE = 11
    MKDIR = 12
    RM = 13
    SET_PERMS = 14
    WATCH_EVENT = 15
    ERROR = 16
    IS_DOMAIN_INTRODUCED = 17
    RESUME = 18
    SET_TARGET = 19
    RESTRICT = 20
    """Removed from the protocol; servers answer ENOSYS."""
    RESET_WATCHES = 21
    DIRECTORY_PART = 22
    GET_FEATURE = 23
    SET_FEATURE = 24
    GET_QUOTA = 25
    SET_QUOTA = 26
    INVALID = 65535
    """Guaranteed never to be a type: seen in a header, it means the stream is out of step."""


_DIRECTORY = int(Op.DIRECTORY)
_INVALID = int(Op.INVALID)


class Packet(NamedTuple):
    """One frame. `op` is an int, as a peer may send types that `Op` does not know."""

    op: int
    req_id: int
    tx_id: int
    payload: bytes


def encode(packet: Packet) -> bytes:
    """Return the packet's bytes. Raises TooLongError above PAYLOAD_MAX: a server would drop the connection."""
    op, req_id, tx_id, payload = packet
    if len(payload) > PAYLOAD_MAX:
        raise TooLongError("payload", len(payload), PAYLOAD_MAX)
    return pack_header(op, req_id, tx_id, len(payload)) + payload


class Parser:
    """Bytes in, packets out.

    `max_payload` bounds a packet; `max_directory`, if given, bounds replies of type DIRECTORY instead, since
    oxenstored 4.17 sends those whole whatever their length. Both may be changed at any time.
    """

    def __init__(self, max_payload: int = PAYLOAD_MAX, max_directory: int | None = None) -> None:
        self.max_payload = max_payload
        self.max_directory = max_directory
        self._wanted = HEADER_SIZE
        self._pieces: list[bytes] = []
        self._held = 0
        self._failed = False

    def feed(self, data: bytes) -> list[Packet]:
        """Return the packets that `data`, cut anywhere, completes.

        Raises FramingError at a type of 65535 or a length above the limit, with the packets before it in `intact`;
        from then on every call raises: close the connection.
        """
        if self._failed:
            raise FramingError("the stream is already out of step")
        if self._held:
            # Joined only once the awaited length is there, so that a packet sent byte by byte costs no more.
            self._pieces.append(data)
            self._held += len(data)
            if self._held < self._wanted:
                return []
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._held = 0
        packets: list[Packet] = []
        position, end = 0, len(data)
        self._wanted = HEADER_SIZE
        unpack = _HEADER.unpack_from
        limit = self.max_payload
        while end - position >= HEADER_SIZE:
            op, req_id, tx_id, length = unpack(data, position)
            if op == _INVALID or length > limit:
                self._check(op, length, packets)
            stop = position + HEADER_SIZE + length
            if stop > end:
                self._wanted = HEADER_SIZE + length
                break
            packets.append(Packet(op, req_id, tx_id, data[position + HEADER_SIZE : stop]))
            position = stop
        if position < end:
            self._pieces.append(data[position:])
            self._held = end - position
        return packets

    def _check(self, op: int, length: int, intact: list[Packet]) -> None:
        limit = self.max_payload
        if op == _DIRECTORY and self.max_directory is not None:
            limit = self.max_directory
        if op == _INVALID or length > limit:
            self._failed = True
            flaw = "the invalid type" if op == _INVALID else f"{length} bytes, above {limit}"
            raise FramingError(f"a packet of {flaw}", intact, op=op, length=length)

    @property
    def held(self) -> int:
        """How many bytes of an unfinished packet are kept."""
        return self._held
