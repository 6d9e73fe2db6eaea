"""The client's end of a connection, without IO.

Commands in, bytes out: `request()`, then send `data_to_send()` (or, on the device, each `next_frame()`). Bytes in, events
out: `receive_data()`. When the connection ends call `connection_lost()`; a connection is never used again after that.

Rules held here, each for a reason met in the field:

- Answers are matched by req_id alone: servers differ in the tx_id they answer with, and the header of a WATCH_EVENT
  holds garbage when it comes through the Linux device.
- Anything that breaks the framing, answers what was not asked, or answers with another type ends in `Broken`: the stream
  is out of step, and guessing would give one request's answer to another.
- At most `link.window` requests are under way; the others wait here.
- A request with an empty payload is followed by another, since oxenstored looks at a bare header only when more bytes come.
- On the Linux device one request is under way at a time: the kernel has one buffer for their payloads.
- Events are passed on for tokens of watches that are set or being set (an event may overtake the OK), and dropped after
  the UNWATCH was asked for (events queued before it still come).
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Union

from xenmesh.xenstore.errors import (
    DisconnectedError,
    FramingError,
    OutcomeUnknown,
    ProtocolError,
    ReplyError,
    ServerError,
    TooLongError,
    UsageError,
    XenstoreError,
)
from xenmesh.xenstore.messages import (
    GetDomainPath,
    Message,
    ResetWatches,
    Rm,
    TransactionStart,
    Unwatch,
    Watch,
    WatchEvent,
    Write,
    parse_error,
)
from xenmesh.xenstore.packets import PAYLOAD_MAX, Op, Packet, Parser, pack_header
from xenmesh.xenstore.paths import PORTABLE_PATH_MAX, PORTABLE_VALUE_MAX

__all__ = [
    "DEVICE",
    "SOCKET",
    "Broken",
    "ClientConnection",
    "Event",
    "Failure",
    "Link",
    "Reply",
]

DIRECTORY_MAX = 1 << 20
"""oxenstored 4.17 answers DIRECTORY whole, above PAYLOAD_MAX; this bounds what we take."""


class Link(NamedTuple):
    """What the way to the server bears."""

    window: int
    """Most requests under way at once; at least 2, but for the kernel's device."""
    payload_max: int
    kernel: bool
    """Whether Linux's xenbus device stands between: it answers WATCH and UNWATCH itself."""


SOCKET = Link(window=128, payload_max=PAYLOAD_MAX, kernel=False)
DEVICE = Link(window=1, payload_max=PAYLOAD_MAX - 16, kernel=True)
"""The kernel keeps a request's payload in the one buffer that the next write goes to, until it has sent it (xenbus_dev_request_and_reply,
Linux 6.1): a second request before the first one's answer gives the first the second's payload. Its buffer of 4096 includes the header."""


class Reply(NamedTuple):
    """The server did what `request` asked; read `payload` with `request.parse_reply`."""

    req_id: int
    request: Message
    payload: bytes


class Failure(NamedTuple):
    """The request failed: a ServerError, or OutcomeUnknown when the connection went."""

    req_id: int
    request: Message
    error: XenstoreError


class Broken(NamedTuple):
    """The stream is out of step: close the connection, then call `connection_lost()`. Nothing more comes out of it."""

    error: ProtocolError


Event = Union[Reply, Failure, WatchEvent, Broken]

_WATCH_EVENT = int(Op.WATCH_EVENT)
_ERROR = int(Op.ERROR)
_PUSH = GetDomainPath(0)
"""Follows a request with an empty payload; known by identity, its answer is nobody's."""


class ClientConnection:
    """One connection's state: what is asked, what is under way, which watches are set.

    `portable` refuses what one of the two servers would: paths above 1024 bytes, values above 2048.
    """

    def __init__(self, link: Link = SOCKET, *, portable: bool = False) -> None:
        if link.window < (1 if link.kernel else 2):
            raise UsageError("a window of less than two requests cannot work", window=link.window)
        self.link = link
        self.portable = portable
        self.stray_events = 0
        """Events dropped because no watch has their token (any more)."""
        self._parser = Parser(max_directory=DIRECTORY_MAX)
        self._pending: dict[int, tuple[Message, int]] = {}
        self._queue: deque[tuple[int, bytes]] = deque()
        self._watches: set[tuple[str, bytes]] = set()
        self._tokens: dict[bytes, int] = {}
        self._last_id = 0
        self._open = True

    @property
    def pending(self) -> int:
        """How many requests have no answer yet, sent or not."""
        return len(self._pending)

    @property
    def waiting(self) -> int:
        """How many requests have not been sent yet."""
        return len(self._queue)

    def request(self, message: Message, tx_id: int = 0) -> int:
        """Take a request and return its req_id; next, send `data_to_send()`.

        Raises UsageError (PathError, TooLongError, ...) for what must not be sent, DisconnectedError once the connection has ended.
        """
        if not self._open:
            raise DisconnectedError("the connection has ended")
        payload = message.payload()
        if len(payload) > self.link.payload_max:
            raise TooLongError("payload", len(payload), self.link.payload_max)
        if self.portable:
            self._check_portable(message)
        if isinstance(message, (Watch, Unwatch, TransactionStart, ResetWatches, Rm)):
            self._prepare(message, tx_id)
        if not payload and self.link.kernel:
            raise UsageError("the device has no room for what must follow a request without a payload", request=str(message))
        req_id = self._enqueue(message, tx_id, payload)
        if not payload:
            self._enqueue(_PUSH, 0, _PUSH.payload())
        return req_id

    def _enqueue(self, message: Message, tx_id: int, payload: bytes) -> int:
        req_id = self._last_id % 0xFFFFFFFF + 1
        while req_id in self._pending:
            req_id = req_id % 0xFFFFFFFF + 1
        self._last_id = req_id
        self._pending[req_id] = (message, tx_id)
        header = pack_header(message.op, req_id, tx_id, len(payload))
        self._queue.append((req_id, header + payload))
        return req_id

    @staticmethod
    def _check_portable(message: Message) -> None:
        path = getattr(message, "path", "")
        if len(path) > PORTABLE_PATH_MAX:
            raise TooLongError("path", len(path), PORTABLE_PATH_MAX)
        if isinstance(message, Write) and len(message.value) > PORTABLE_VALUE_MAX:
            raise TooLongError("value", len(message.value), PORTABLE_VALUE_MAX)

    def _prepare(self, message: Watch | Unwatch | TransactionStart | ResetWatches | Rm, tx_id: int) -> None:
        if isinstance(message, Rm):
            # C xenstored refuses it, oxenstored wipes the store.
            if message.path == "/":
                raise UsageError("the root is not removed")
        elif isinstance(message, TransactionStart):
            if tx_id:
                raise UsageError("transactions do not nest", tx_id=tx_id)
        elif isinstance(message, ResetWatches):
            # XSA-484: inside a transaction it brought C xenstored down.
            if tx_id or self.link.kernel:
                raise UsageError("RESET_WATCHES has no place in a transaction or on the device")
            self._watches.clear()
            self._tokens.clear()
        elif isinstance(message, Unwatch):
            self._forget(message.path, message.token)
        else:
            watch = (message.path, message.token)
            if watch in self._watches:
                raise UsageError("that watch is set already", path=message.path)
            if self.link.kernel and message.depth is not None:
                raise UsageError("the device takes no notice of a depth", path=message.path)
            self._watches.add(watch)
            self._tokens[message.token] = self._tokens.get(message.token, 0) + 1

    def _forget(self, path: str, token: bytes) -> None:
        if (path, token) in self._watches:
            self._watches.remove((path, token))
            self._tokens[token] -= 1
            if not self._tokens[token]:
                del self._tokens[token]

    def data_to_send(self) -> bytes:
        """Return what may be sent now; send all of it. More may be due after `receive_data`."""
        queue = self._queue
        if not queue:
            return b""
        room = self.link.window - len(self._pending) + len(queue)
        if room >= len(queue):
            data = b"".join([frame for _, frame in queue])
            queue.clear()
            return data
        return b"".join([queue.popleft()[1] for _ in range(max(room, 0))])

    def next_frame(self) -> tuple[int, bytes] | None:
        """Return the next request to write, alone, or None.

        The Linux device wants one message a write. If the write fails, tell `refused`.
        """
        if not self._queue or len(self._pending) - len(self._queue) >= self.link.window:
            return None
        return self._queue.popleft()

    def refused(self, req_id: int, code: str) -> list[Event]:
        """Take the errno, by name, of a write of the frame `req_id`: so the device answers a WATCH it refuses."""
        request, _ = self._pending.pop(req_id)
        return [self._failed(req_id, request, code)]

    def receive_data(self, data: bytes) -> list[Event]:
        """Return what `data`, cut anywhere, tells. Next, send `data_to_send()`: answers make room for requests."""
        events: list[Event] = []
        if not self._open:
            return events
        try:
            packets = self._parser.feed(data)
        except FramingError as error:
            self._dispatch(error.intact, events)
            self._break(error, events)
        else:
            self._dispatch(packets, events)
        return events

    def _dispatch(self, packets: list[Packet], events: list[Event]) -> None:
        pending = self._pending
        for op, req_id, _tx_id, payload in packets:
            if op == _WATCH_EVENT:
                try:
                    event = WatchEvent.parse(payload)
                except ReplyError as error:
                    return self._break(error, events)
                if event.token in self._tokens:
                    events.append(event)
                else:
                    self.stray_events += 1
                continue
            asked = pending.pop(req_id, None)
            if asked is None:
                if not self._zeroed(op, req_id):
                    violation = FramingError("an answer to nothing asked", op=op, req_id=req_id)
                    return self._break(violation, events)
                req_id = self._oldest(op)
                asked = pending.pop(req_id)
            request = asked[0]
            if request is _PUSH:
                continue
            if op == request.op:
                events.append(Reply(req_id, request, payload))
            elif op == _ERROR:
                events.append(self._failed(req_id, request, parse_error(payload)))
            else:
                pending[req_id] = asked
                violation = FramingError("an answer of another type", op=op, asked=int(request.op))
                return self._break(violation, events)
        return None

    def _zeroed(self, op: int, req_id: int) -> bool:
        """Whether it is an old kernel's answer to a watch, which comes without its req_id."""
        return self.link.kernel and req_id == 0 and self._oldest(op) != 0

    def _oldest(self, op: int) -> int:
        """Return the oldest WATCH or UNWATCH of type `op` under way, or 0; the kernel answers them in turn."""
        if op in (Op.WATCH, Op.UNWATCH):
            for req_id, (request, _) in self._pending.items():
                if request.op == op:
                    return req_id
        return 0

    def _failed(self, req_id: int, request: Message, code: str) -> Failure:
        if isinstance(request, Watch):
            self._forget(request.path, request.token)
        return Failure(req_id, request, ServerError.of(code, str(request)))

    def _break(self, error: ProtocolError, events: list[Event]) -> None:
        if self._open:
            self._open = False
            events.append(Broken(error))

    def connection_lost(self) -> list[Failure]:
        """End the connection: every request without an answer fails with OutcomeUnknown, oldest first.

        Watches and transactions are gone with it: set them again on the next connection.
        """
        self._open = False
        unsent = {req_id for req_id, _ in self._queue}
        failures = []
        for req_id, (request, tx_id) in self._pending.items():
            if request is _PUSH:
                continue
            sent = req_id not in unsent
            safe = not sent or (request.repeatable and not tx_id)
            error = OutcomeUnknown(str(request), safe_to_repeat=safe, sent=sent)
            failures.append(Failure(req_id, request, error))
        self._pending.clear()
        self._queue.clear()
        self._watches.clear()
        self._tokens.clear()
        return failures
