"""One connection's life: who waits for which answer.

Answers resolve futures straight from the reader's callback; there is no task per request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from xenmesh.xen.xenstore.transport import Transport
from xenmesh.xenstore.client import Event, Failure, Reply
from xenmesh.xenstore.errors import ServerError, XenstoreError
from xenmesh.xenstore.messages import (
    Message,
    Request,
    TransactionEnd,
    TransactionStart,
    WatchEvent,
)
from xenmesh.xenstore.packets import Op

__all__ = ["Session"]

R = TypeVar("R")


class _Batch:
    """Answers to many requests, and one future for all."""

    __slots__ = ("answers", "done", "missing")

    def __init__(self, count: int, done: asyncio.Future[None]) -> None:
        self.answers: dict[int, bytes | XenstoreError] = {}
        self.missing = count
        self.done = done

    def settle(self, req_id: int, answer: bytes | XenstoreError) -> None:
        self.answers[req_id] = answer
        self.missing -= 1
        if not self.missing and not self.done.done():
            self.done.set_result(None)


class Session:
    """Requests in, futures out; watch events and the end to the two callbacks."""

    def __init__(
        self,
        transport: Transport,
        on_watch: Callable[[WatchEvent], None],
        on_lost: Callable[[Session, XenstoreError], None],
    ) -> None:
        self._transport = transport
        self._connection = transport.connection
        self._on_watch = on_watch
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._waiters: dict[int, asyncio.Future[bytes] | _Batch] = {}
        self._flushing = False
        self.open = True
        self.kernel = transport.connection.link.kernel
        """Whether Linux's device stands between us and xenstored."""
        self.depth: bool | None = False if self.kernel else None
        """Whether the server knows watch depths; None: not asked yet."""
        transport.start(self._handle, self.lose)

    @property
    def stray_events(self) -> int:
        """Events that no watch wanted (any more)."""
        return self._connection.stray_events

    def send(self, message: Message, tx_id: int = 0) -> asyncio.Future[bytes]:
        """Send a request; the future gets the answer's payload."""
        req_id = self._connection.request(message, tx_id)
        future = self._waiters[req_id] = self._loop.create_future()
        if self._connection.pending == 1:
            self._transport.flush()
        else:
            self._flush_soon()
        return future

    def post(self, message: Message, tx_id: int = 0) -> None:
        """Send a request whose answer nobody awaits."""
        if self.open:
            self._connection.request(message, tx_id)
            self._flush_soon()

    def _send_all(self, messages: Sequence[Request[R]], tx_id: int) -> tuple[list[int], _Batch]:
        batch = _Batch(len(messages), self._loop.create_future())
        request = self._connection.request
        waiters = self._waiters
        req_ids = []
        try:
            for message in messages:
                req_id = request(message, tx_id)
                waiters[req_id] = batch
                req_ids.append(req_id)
        finally:
            self._transport.flush()
        return req_ids, batch

    async def answers(self, messages: Sequence[Request[R]], tx_id: int = 0) -> list[R | ServerError]:
        """Send many requests at once and return each answer or the server's refusal, in order.

        Raises UsageError for a message that must not be sent; those before it may have been.
        """
        if not messages:
            return []
        req_ids, batch = self._send_all(messages, tx_id)
        await batch.done
        answers: list[R | ServerError] = []
        for req_id, message in zip(req_ids, messages, strict=True):
            answer = batch.answers[req_id]
            if isinstance(answer, bytes):
                answers.append(message.parse_reply(answer))
            elif isinstance(answer, ServerError):
                answers.append(answer)
            else:
                raise answer
        return answers

    def _flush_soon(self) -> None:
        # Requests made in one turn of the loop leave in one write.
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._transport.flush()

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Reply):
                waiter = self._waiters.pop(event.req_id, None)
                if waiter is None:
                    continue
                if isinstance(waiter, _Batch):
                    waiter.settle(event.req_id, event.payload)
                elif not waiter.done():
                    waiter.set_result(event.payload)
                elif event.request.op is Op.TRANSACTION_START:
                    # Its task was cancelled: nobody else would end it.
                    with suppress(XenstoreError):
                        tx_id = TransactionStart().parse_reply(event.payload)
                        self.post(TransactionEnd(commit=False), tx_id)
            elif isinstance(event, WatchEvent):
                self._on_watch(event)
            elif isinstance(event, Failure):
                self._settle(event)
            else:
                self.lose(event.error)
        if self._connection.waiting:
            self._transport.flush()

    def _settle(self, failure: Failure) -> None:
        waiter = self._waiters.pop(failure.req_id, None)
        if isinstance(waiter, _Batch):
            waiter.settle(failure.req_id, failure.error)
        elif waiter is not None and not waiter.done():
            waiter.set_exception(failure.error)

    def lose(self, error: XenstoreError) -> None:
        """End the session: all that is under way fails."""
        if self.open:
            self.open = False
            self._transport.close()
            for failure in self._connection.connection_lost():
                self._settle(failure)
            self._on_lost(self, error)
