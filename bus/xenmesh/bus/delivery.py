"""From the reader of a connection to a handler: at once while the handler is quick, by a short queue while it is not, and not at all once
the queue is full.

A quick handler is called right where the message was read: no task, no queue, no wait. A handler that uses up its share of one turn of the
event loop gets the rest in later turns, so that it holds up neither the connection nor its neighbours; when it falls too far behind,
the delivery is cut: nothing more comes, and whoever asked for it is told once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

from .message import Handler, Message

__all__ = ["MOST_BYTES", "MOST_MESSAGES", "Delivery"]

MOST_MESSAGES = 1000
MOST_BYTES = 4 << 20
_SHARE = 0.005
"""Seconds of one turn of the loop that a handler may use."""

_log = logging.getLogger(__name__)


class Delivery:
    """The way of one subscription's messages to its handler."""

    def __init__(self, handler: Handler, on_cut: Callable[[], None]) -> None:
        self._handler = handler
        self._on_cut = on_cut
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Message] = deque()
        self._bytes = 0
        self._spent = 0.0
        self._turn: asyncio.Handle | None = None
        self._over = False

    @property
    def waiting(self) -> bool:
        """Some messages have not reached the handler yet."""
        return bool(self._waiting)

    def take(self, message: Message) -> None:
        """Deliver it, now or soon."""
        if self._over:
            return
        if not self._waiting and self._spent < _SHARE:
            self._hand(message)
            return
        self._bytes += len(message.data)
        self._waiting.append(message)
        if len(self._waiting) > MOST_MESSAGES or self._bytes > MOST_BYTES:
            self.end()
            self._on_cut()

    def end(self) -> None:
        """Deliver nothing more. May be called twice, and by the handler itself."""
        self._over = True
        self._waiting.clear()
        if self._turn is not None:
            self._turn.cancel()

    def _hand(self, message: Message) -> None:
        began = time.perf_counter()
        try:
            self._handler(message)
        except Exception:  # noqa: BLE001 - a handler's failure is reported, and must not end the reader
            _log.exception("the handler of %s failed", message.subject)
        self._spent += time.perf_counter() - began
        if self._turn is None and not self._over:
            self._turn = self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn = None
        self._spent = 0.0
        while self._waiting and self._spent < _SHARE and not self._over:
            message = self._waiting.popleft()
            self._bytes -= len(message.data)
            self._hand(message)
