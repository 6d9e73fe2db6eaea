"""The bus over NATS: the one module that imports nats.

nats-py does the transport: connecting, signing, reconnecting, pings, parsing. What is known to fail in it (2.16.0) is done here:
messages go from its parser straight to `Delivery`, with our own reading of headers; its read loop and its reconnecting are watched over;
a barrier keeps its place behind what was said before it; an error of the server's never closes the connection for good; JetStream is asked
by plain requests. `_Link` overrides private methods of nats-py's client: look through this file when its pinned version moves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.lowlevel
import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription as _Interest
from nats.nuid import NUID

from xenmesh.schemas import subjects

from . import jetstream
from .abc import Bus, Subscription
from .delivery import Delivery
from .errors import (
    BusClosed,
    BusError,
    BusLost,
    ConnectFailed,
    Forbidden,
    KeyFileError,
    NoHistory,
    NoResponders,
    NotKept,
    ProtocolError,
    Timeout,
    TooLarge,
)
from .message import BusState, Handler, Kept, Message
from .supervision import Quiet, supervise
from .wire import check_pattern, check_subject, encode_publish, parse_headers

__all__ = ["Counters", "NatsBus", "connect"]

_HELD_BACK = 1 << 20
"""Bytes that are held back while the bus is lost, or while the server does not take them."""

_STRAIGHT = 1 << 16
"""Bytes that may be written past nats-py's flusher before it must drain the socket once."""

_MOST_A_TURN = 128
"""Messages said, or read, in one turn of the event loop, before the others have theirs."""

_PING_INTERVAL = 5
_CONNECT_TIMEOUT = 2

_ANSWER = 2.0
"""Seconds that JetStream has to acknowledge, and that a lost bus has to come back before a request gives up."""

_CLOSE = 5.0
_KEEP_PAUSE = 0.25
_PERMISSION = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"')

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Counters:
    """What happened on one bus since it was connected."""

    published: int = 0
    received: int = 0
    malformed: int = 0
    """Messages left out because their subject is not text: none of ours."""

    lost: int = 0
    """Times the connection went."""

    reconnected: int = 0
    revived: int = 0
    """Times the connection was dead and its library did not notice."""

    cut: int = 0
    """Subscriptions that did not keep up."""

    refused: int = 0
    """Publishes and subscriptions that the server forbids this user."""

    not_kept: int = 0
    held_back_full: int = 0
    """Messages not taken because too many were held back already."""


class _Link(Client):
    """nats-py's client, with its known faults mended."""

    def __init__(self, bus: NatsBus) -> None:
        super().__init__()
        self._bus = bus
        self._takers: dict[int, tuple[_Interest, Callable[[Message], None]]] = {}
        self._said_this_turn = 0
        self._read_this_turn = 0
        self._straight = 0
        self._ends = False

    # What the bus uses.

    @property
    def has_jetstream(self) -> bool:
        """The server keeps streams, for some account at least."""
        return bool(self._server_info.get("jetstream"))

    @property
    def room(self) -> int:
        """Bytes that can still be held back."""
        return _HELD_BACK - self._pending_data_size

    async def say(self, command: bytes) -> None:
        """Put a command in its place in the order, before waiting for anything.

        The first of a turn of the event loop is written at once, for latency; those that follow in the same turn go together, for
        throughput; all that is past `_HELD_BACK` waits until the server takes it.
        """
        first = not self._said_this_turn
        self._said_this_turn += 1
        if first:
            asyncio.get_running_loop().call_soon(self._next_turn)
        transport = self._transport
        if (
            first
            and transport is not None
            and self.is_connected
            and not self._pending
            and self._straight + len(command) <= _STRAIGHT
        ):
            self._straight += len(command)
            transport.write(command)
            return
        self._straight = 0
        self._pending.append(command)
        self._pending_data_size += len(command)
        if self.is_connected:
            await self._flush_pending(force_flush=self._pending_data_size > _HELD_BACK)
        if self._said_this_turn >= _MOST_A_TURN:
            await anyio.lowlevel.checkpoint()

    def _next_turn(self) -> None:
        self._said_this_turn = 0

    async def ping(self) -> asyncio.Future[bool]:
        """What comes true when the server has taken in all that was said before. On a connection that goes it never does."""
        pong: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        await self._send_ping(pong)
        return pong

    async def hear(self, pattern: str, queue: str, taker: Callable[[Message], None]) -> int:
        """Subscribe; returns the number of the subscription."""
        self._sid += 1
        number = self._sid
        interest = _Interest(self, number, pattern, queue=queue, pending_msgs_limit=1)
        self._takers[number] = (interest, taker)
        self._subs[number] = interest  # replayed by nats-py at each reconnect
        if self.is_connected:
            await self.say(f"SUB {pattern} {queue + ' ' if queue else ''}{number}\r\n".encode())
        return number

    def deafen(self, number: int) -> None:
        """Deliver nothing more of that subscription."""
        self._takers.pop(number, None)
        self._subs.pop(number, None)

    async def unhear(self, number: int) -> None:
        """End a subscription, at the server too."""
        self.deafen(number)
        if self.is_connected:
            await self.say(b"UNSUB %d\r\n" % number)

    async def end(self) -> None:
        """Close for good."""
        self._ends = True
        if not self.is_connected:  # there is nobody to send it to
            self._pending.clear()
            self._pending_data_size = 0
        if self._flush_queue is not None:
            with contextlib.suppress(OSError):
                await self._close(Client.CLOSED, do_cbs=False)

    # supervision.Link

    def fault(self) -> str | None:
        """What nats-py does not notice about itself."""
        if self._ends:
            return None
        if self.is_closed:
            return "nats-py closed the connection"
        if self.is_reconnecting:
            task = self._reconnection_task
            return "nats-py stopped reconnecting" if task is None or task.done() else None
        if self.is_connected and (self._reading_task is None or self._reading_task.done()):
            return "nats-py stopped reading"
        return None

    async def revive(self, fault: str) -> None:
        """Connect anew, with every subscription."""
        self._bus.heard_revival(fault)
        self._subs.update({number: interest for number, (interest, _) in self._takers.items()})
        self._status = Client.CONNECTED
        await self.force_reconnect()

    # What is mended.

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        taker = self._takers.get(sid)
        if taker is None:
            return
        try:
            message = Message(subject.decode(), data, reply.decode(), parse_headers(headers) if headers else None)
        except UnicodeDecodeError:
            self._bus.heard_malformed(subject)
            return
        taker[1](message)
        self._read_this_turn += 1
        if self._read_this_turn >= _MOST_A_TURN:
            # One read may hold ten thousand small messages: without a turn between, quick handlers would look slow.
            self._read_this_turn = 0
            await asyncio.sleep(0)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        # nats-py writes it past all that is pending: no barrier.
        self._pongs.append(asyncio.get_running_loop().create_future() if future is None else future)
        await self.say(b"PING\r\n")

    async def _process_pong(self) -> None:
        # nats-py's reader dies where whoever waited for this pong was cancelled.
        self._pings_outstanding = 0
        if self._pongs:
            pong = self._pongs.pop(0)
            if not pong.done():
                pong.set_result(True)

    async def _process_err(self, err_msg: str) -> None:
        # nats-py closes for good at any error but "stale connection" and permissions: also "slow consumer", "maximum connections exceeded".
        violation = _PERMISSION.search(err_msg)
        if violation:
            self._bus.heard_violation(violation[1], violation[2])
            return
        error = nats.errors.Error(f"nats: {err_msg.strip(chr(39))}")
        self._bus.heard_error(error)
        await self._process_op_err(error)


class _NatsSubscription(Subscription):
    def __init__(self, bus: NatsBus, pattern: str, handler: Handler, on_cut: Callable[[], None] | None) -> None:
        self.pattern = pattern
        self.number = 0
        self.delivery = Delivery(handler, self._cut)
        self.task = weakref.ref(_this_task())
        self._bus = bus
        self._on_cut = on_cut

    def _cut(self) -> None:
        self._bus.heard_cut(self)
        self.over()

    def over(self) -> None:
        """It ended without the subscriber's wish; tell, once."""
        self.delivery.end()
        told, self._on_cut = self._on_cut, None
        if told is not None:
            asyncio.get_running_loop().call_soon(told)  # its failure is not the reader's

    async def close(self) -> None:
        self._on_cut = None
        self.delivery.end()
        await self._bus.leave(self)


class NatsBus(Bus):
    """A connection to nats-server of one bus user. Make it with `connect`."""

    def __init__(self, *, user: str, host: str, inbox: str) -> None:
        self.user = user
        self.host = host
        self.counters = Counters()
        self._prefix = subjects.prefix(host)
        self._inbox = f"{inbox}.{NUID().next().decode()}."
        self._state = BusState.LOST
        self._heard_states: list[Callable[[BusState], None]] = []
        self._link = _Link(self)
        self._quiet = Quiet(_log)
        self._subscriptions: set[_NatsSubscription] = set()
        self._refused: list[tuple[weakref.ref[asyncio.Task[object]], Forbidden]] = []
        self._answers: dict[str, tuple[str, Callable[[Message | BusError], None]]] = {}
        self._asked = 0
        self._up = anyio.Event()
        self._ending: set[asyncio.Task[None]] = set()
        self._last_error = ""

    def __repr__(self) -> str:
        return f"<NatsBus {self.user} {self._state.value}>"

    # The connection.

    async def open(self, url: str, *, name: str, seed: str | None, deadline: float) -> None:
        """Connect; used by `connect`."""
        options: dict[str, object] = {"nkeys_seed_str": seed} if seed else {}
        hopeless = ""
        with anyio.move_on_after(deadline) as waiting:
            while not hopeless:
                try:
                    await self._link.connect(
                        url,
                        name=name,
                        allow_reconnect=False,
                        connect_timeout=_CONNECT_TIMEOUT,
                        reconnect_time_wait=0.25,  # type: ignore[arg-type]
                        max_reconnect_attempts=-1,
                        ping_interval=_PING_INTERVAL,
                        max_outstanding_pings=2,
                        pending_size=_HELD_BACK,
                        inbox_prefix=self._inbox,
                        error_cb=self._on_error,
                        disconnected_cb=self._on_disconnected,
                        reconnected_cb=self._on_reconnected,
                        **options,  # type: ignore[arg-type]
                    )
                    break
                except (OSError, nats.errors.Error, ValueError) as error:
                    self._last_error = str(error) or type(error).__name__
                    if "uthorization" in self._last_error:
                        hopeless = "the server does not know this user's key"
                    await self._link.end()
                    self._link = _Link(self)
                    await anyio.sleep(0 if hopeless else 0.25)
        if hopeless or waiting.cancelled_caught:
            await self._link.end()
            why = hopeless or self._last_error or "nothing answered"
            raise ConnectFailed(url=url, user=self.user, seconds=deadline, why=why)
        self._link.options["allow_reconnect"] = True
        self.max_payload = self._link.max_payload
        await self._link.hear(f"{self._inbox}*", "", self._on_answer)
        self._change(BusState.UP)

    async def watch_over(self) -> None:
        """Revive the connection whenever it is dead, for ever; used by `connect`."""
        await supervise(self._link)

    @property
    def state(self) -> BusState:
        """As `Bus.state`."""
        return self._state

    def on_state(self, heard: Callable[[BusState], None]) -> Callable[[], None]:
        """As `Bus.on_state`."""
        self._heard_states.append(heard)

        def end() -> None:
            with contextlib.suppress(ValueError):
                self._heard_states.remove(heard)

        return end

    def _change(self, state: BusState) -> None:
        if state is self._state or self._state is BusState.CLOSED:
            return
        self._state = state
        if state is BusState.LOST:
            self._up = anyio.Event()
        else:
            self._up.set()
        for heard in tuple(self._heard_states):
            try:
                heard(state)
            except Exception:  # noqa: BLE001 - a listener's failure is reported, and must not stop the reconnecting
                _log.exception("a listener for the state of the bus failed")

    async def _on_error(self, error: Exception) -> None:
        self.heard_error(error)

    async def _on_disconnected(self) -> None:
        self.counters.lost += 1
        self._change(BusState.LOST)
        lost = BusLost(why="the connection went before the answer came")
        for _, told in tuple(self._answers.values()):
            told(lost)

    async def _on_reconnected(self) -> None:
        self.counters.reconnected += 1
        self.max_payload = self._link.max_payload
        self._change(BusState.UP)

    # What the link tells.

    def heard_error(self, error: Exception) -> None:
        """An error of the connection; nats-py is mending it."""
        self._last_error = str(error) or type(error).__name__
        if self._state is not BusState.CLOSED:
            self._quiet.warning(type(error).__name__, f"bus of {self.user}: {self._last_error}")

    def heard_malformed(self, untrusted_subject: bytes) -> None:
        """A message whose subject is not text."""
        self.counters.malformed += 1
        self._quiet.warning("malformed", f"bus of {self.user}: left out a message on {untrusted_subject!r}, which is not text")

    def heard_revival(self, fault: str) -> None:
        """The supervisor found the connection dead."""
        self.counters.revived += 1
        self._quiet.warning("revival", f"bus of {self.user}: {fault}; connecting anew")

    def heard_cut(self, subscription: _NatsSubscription) -> None:
        """A subscriber did not keep up."""
        self.counters.cut += 1
        self._forget(subscription)
        self._link.deafen(subscription.number)
        asyncio.get_running_loop().call_soon(self._unhear_soon, subscription.number)
        self._quiet.warning("cut", f"bus of {self.user}: the subscriber to {subscription.pattern} does not keep up and was cut")

    def heard_violation(self, what: str, lowered_subject: str) -> None:
        """The server forbids something; the subject comes in lower case (nats-py)."""
        self.counters.refused += 1
        if what == "subscription":
            for subscription in tuple(self._subscriptions):
                if subscription.pattern.lower() == lowered_subject:
                    forbidden = Forbidden(user=self.user, what="hear", subject=subscription.pattern)
                    self._refused.append((subscription.task, forbidden))
                    self._forget(subscription)
                    self._link.deafen(subscription.number)
                    subscription.over()
            self._quiet.warning("hear", f"bus of {self.user}: the server does not let it hear {lowered_subject}")
            return
        for subject, told in tuple(self._answers.values()):
            if subject.lower() == lowered_subject:
                told(Forbidden(user=self.user, what="publish on", subject=subject))
        self._quiet.warning("publish", f"bus of {self.user}: the server does not let it publish on {lowered_subject}")

    def _unhear_soon(self, number: int) -> None:
        task = asyncio.get_running_loop().create_task(self._link.unhear(number))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    # Bus

    async def publish(
        self,
        subject: str,
        data: bytes,
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """As `Bus.publish`."""
        command = self._command(subject, data, reply, headers)
        if self._state is BusState.LOST and self._link.room < len(command):
            self.counters.held_back_full += 1
            raise BusLost(why=f"{_HELD_BACK} bytes are held back already; this message was not taken")
        self.counters.published += 1
        await self._link.say(command)

    def _command(self, subject: str, data: bytes, reply: str, headers: Mapping[str, str] | None) -> bytes:
        self._check_open()
        check_subject(subject)
        if reply:
            check_subject(reply)
        if len(data) > self.max_payload:
            raise TooLarge(subject=subject, size=len(data), limit=self.max_payload)
        return encode_publish(subject, reply, headers, data)

    def _check_open(self) -> None:
        if self._state is BusState.CLOSED:
            raise BusClosed

    async def subscribe(
        self,
        pattern: str,
        handler: Handler,
        *,
        queue: str = "",
        on_cut: Callable[[], None] | None = None,
    ) -> Subscription:
        """As `Bus.subscribe`. A pattern that the server forbids is over as one that was cut; the same task's next `settle` raises
        Forbidden."""
        self._check_open()
        check_pattern(pattern)
        if queue:
            check_subject(queue)
        subscription = _NatsSubscription(self, pattern, handler, on_cut)
        take = subscription.delivery.take
        counters = self.counters

        def taken(message: Message) -> None:
            counters.received += 1
            take(message)

        self._subscriptions.add(subscription)
        subscription.number = await self._link.hear(pattern, queue, taken)
        return subscription

    def _forget(self, subscription: _NatsSubscription) -> None:
        self._subscriptions.discard(subscription)

    async def leave(self, subscription: _NatsSubscription) -> None:
        """End a subscription; used by its ``close``."""
        if subscription in self._subscriptions:
            self._forget(subscription)
            await self._link.unhear(subscription.number)

    async def request(self, subject: str, data: bytes, *, timeout: float, headers: Mapping[str, str] | None = None) -> Message:
        """As `Bus.request`; also raises Forbidden. While the bus is lost, waits for it within ``timeout`` before asking."""
        with anyio.move_on_after(timeout):
            await self._come_up()
            heard: asyncio.Future[Message | BusError] = asyncio.get_running_loop().create_future()

            def told(answer: Message | BusError) -> None:
                if not heard.done():
                    heard.set_result(answer)

            async with self._asking(subject, told) as inbox:
                await self.publish(subject, data, reply=inbox, headers=headers)
                answer = await heard
            if isinstance(answer, BusError):
                raise answer
            if answer.headers is not None and not answer.data and answer.headers.get("Status") == "503":
                raise NoResponders(subject=subject)
            return answer
        if self._state is BusState.LOST:
            raise BusLost(why=f"it did not come back within {timeout} s")
        raise Timeout(subject=subject, seconds=timeout)

    async def _come_up(self) -> None:
        while self._state is BusState.LOST:
            await self._up.wait()
        self._check_open()

    @contextlib.asynccontextmanager
    async def _asking(self, subject: str, told: Callable[[Message | BusError], None]) -> AsyncIterator[str]:
        """An inbox of one's own, for one answer or many."""
        self._asked += 1
        token = f"{self._asked:x}"
        self._answers[token] = (subject, told)
        try:
            yield self._inbox + token
        finally:
            del self._answers[token]

    def _on_answer(self, message: Message) -> None:
        asked = self._answers.get(message.subject[len(self._inbox) :])
        if asked is not None:
            asked[1](message)

    async def ping(self) -> None:
        """As `Bus.ping`: waits 2 s for a lost bus, and for the answer until the connection goes."""
        await self._come_up_soon()
        lost: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        end = self.on_state(lambda _: None if lost.done() else lost.set_result(True))
        try:
            pong = await self._link.ping()
            await asyncio.wait((pong, lost), return_when=asyncio.FIRST_COMPLETED)
        finally:
            end()
        if not pong.done():
            self._check_open()
            raise BusLost(why="the connection went before the server had taken in everything")

    async def settle(self) -> None:
        """As `Bus.settle`; raises Forbidden for a subscription that the server refused to the task that settles, BusLost where the
        connection goes meanwhile."""
        await self.ping()
        while any(subscription.delivery.waiting for subscription in self._subscriptions):
            await anyio.lowlevel.checkpoint()
        self._raise_refusal()

    def _raise_refusal(self) -> None:
        mine = [forbidden for task, forbidden in self._refused if task() is _this_task()]
        self._refused = [(task, forbidden) for task, forbidden in self._refused if task() not in {None, _this_task()}]
        if mine:
            raise mine[0]

    async def _come_up_soon(self) -> None:
        with anyio.move_on_after(_ANSWER):
            await self._come_up()
            return
        raise BusLost(why=f"it did not come back within {_ANSWER} s")

    # JetStream

    async def keep(self, subject: str, data: bytes, *, identity: str) -> None:
        """As `Bus.keep`. What JetStream is not there to keep is said all the same; may take 7 s before it gives up."""
        try:
            await self._store(subject, data, {"Nats-Msg-Id": identity})
        except _NoJetStreamError as error:
            await self.publish(subject, data)  # the living hear it all the same
            self.counters.not_kept += 1
            raise NotKept(subject=subject, why=error.sentence) from None
        except NotKept:
            self.counters.not_kept += 1
            raise
        except (NoResponders, Timeout, BusLost) as error:
            self.counters.not_kept += 1
            raise NotKept(subject=subject, why=error.sentence.rstrip(".")) from error

    async def _store(self, subject: str, data: bytes, headers: Mapping[str, str] | None) -> None:
        """Publish into a stream; repeats where nobody answers (a server that starts) or the connection goes."""
        if self._state is BusState.UP and not self._link.has_jetstream:
            raise _NoJetStreamError
        for pause in (_KEEP_PAUSE, _KEEP_PAUSE, None):
            try:
                answer = await self.request(subject, data, timeout=_ANSWER, headers=headers)
            except (NoResponders, BusLost):
                if pause is None:
                    raise
                await anyio.sleep(pause)
                continue
            why = jetstream.acknowledged(answer.data)
            if why is not None:
                raise NotKept(subject=subject, why=why)
            return

    async def put(self, key: str, data: bytes) -> None:
        """As `Bus.put`. Raises NotKept where JetStream does not take it, BusLost."""
        await self._put(key, data, None)

    async def purge(self, key: str) -> None:
        """As `Bus.purge`; raises what `put` raises."""
        await self._put(key, b"", jetstream.PURGE)

    async def _put(self, key: str, data: bytes, headers: Mapping[str, str] | None) -> None:
        self._check_open()
        try:
            await self._store(jetstream.state_subject(key), data, headers)
        except (_NoJetStreamError, NoResponders):
            await self.publish(f"{self._prefix}.state.{key}", data)
        except (NotKept, Timeout):
            self.counters.not_kept += 1
            raise

    async def keys(self) -> list[str]:
        """As `Bus.keys`; raises Timeout, BusLost."""
        found: dict[str, bool] = {}
        start = jetstream.state_subject("")
        try:
            async for kept in self._batches(jetstream.STATE, jetstream.state_subject(">"), number=0, time=None):
                found[kept.subject.removeprefix(start)] = bool(kept.data)
        except NoHistory:
            return []
        return [key for key, there in found.items() if there]

    async def history(self, pattern: str, *, time: float | None = None, number: int | None = None) -> AsyncIterator[Kept]:
        """As `Bus.history`; also raises Timeout, BusLost, Forbidden."""
        self._check_open()
        check_pattern(pattern)
        stream = jetstream.AUDIT if pattern.split(".")[3:4] == ["audit"] else jetstream.EVENTS
        async for kept in self._batches(stream, pattern, number=number, time=time):
            yield kept

    async def _batches(self, stream: str, pattern: str, *, number: int | None, time: float | None) -> AsyncIterator[Kept]:
        if self._state is BusState.UP and not self._link.has_jetstream:
            raise NoHistory(why="the server keeps no streams")
        ask = jetstream.direct_get(stream)
        batch, left = await self._batch(ask, jetstream.next_batch(pattern, number=number, time=time))
        while batch:
            for kept in batch:
                yield kept
            if left <= 0:  # what was stored since this began is not followed
                return
            batch, _ = await self._batch(ask, jetstream.next_batch(pattern, number=batch[-1].number, time=None))
            left -= len(batch)

    async def _batch(self, ask: str, body: bytes) -> tuple[list[Kept], int]:
        await self._come_up_soon()
        batch: list[Kept] = []
        ended: asyncio.Future[int | BusError] = asyncio.get_running_loop().create_future()

        def told(answer: Message | BusError) -> None:
            if ended.done():
                return
            if isinstance(answer, BusError):
                ended.set_result(answer)
                return
            try:
                part = jetstream.read_batch_message(answer)
            except (NoHistory, ProtocolError) as error:
                ended.set_result(error)
                return
            if isinstance(part, Kept):
                batch.append(part)
            else:
                ended.set_result(part)

        async with self._asking(ask, told) as inbox:
            await self.publish(ask, body, reply=inbox)
            with anyio.move_on_after(_CLOSE):
                end = await ended
                if isinstance(end, BusError):
                    raise end
                return batch, end
        raise Timeout(subject=ask, seconds=_CLOSE)

    async def close(self) -> None:
        """As `Bus.close`."""
        if self._state is BusState.CLOSED:
            return
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSE):
            for subscription in tuple(self._subscriptions):
                subscription.delivery.end()
                await self.leave(subscription)
            if self._state is BusState.UP:
                with contextlib.suppress(BusError):
                    await self.settle()
        self._change(BusState.CLOSED)
        for _, told in tuple(self._answers.values()):
            told(BusClosed())
        with anyio.CancelScope(shield=True), anyio.move_on_after(1):
            await self._link.end()


class _NoJetStreamError(BusError):
    form = "the server keeps no streams"


def _this_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - every coroutine runs in one
    return task


def _read_seed(seed: bytes | str | Path) -> str:
    if isinstance(seed, Path):
        try:
            return seed.read_text("ascii").strip()
        except (OSError, ValueError) as error:
            raise KeyFileError(file=str(seed), why=f"it cannot be read ({error})") from error
    return (seed.decode("ascii", "replace") if isinstance(seed, bytes) else seed).strip()


@contextlib.asynccontextmanager
async def connect(
    url: str,
    *,
    user: str,
    host: str,
    seed: bytes | str | Path | None = None,
    name: str = "",
    inbox: str = "",
    deadline: float = 10.0,
) -> AsyncIterator[NatsBus]:
    """A bus of ``user`` at the nats-server at ``url``, open inside ``async with`` and closed after it.

    ``seed`` is the user's nkey seed, or the path of the file that holds it; ``host`` the host's id. ``inbox`` is the prefix of the user's
    inboxes, by default ``_INBOX.<user>``: the server lets it hear no others. Once connected it reconnects for ever (`Bus.on_state`).

    Raises:
        ConnectFailed: no connection within ``deadline`` seconds, or the server does not know the key.
        KeyFileError: the seed cannot be read, or cannot be used because the package nkeys is not installed.
    """
    text = None if seed is None else _read_seed(seed)
    if text is not None:
        _check_seed(text, "the seed" if not isinstance(seed, Path) else str(seed))
    bus = NatsBus(user=user, host=host, inbox=inbox or f"_INBOX.{subjects.token(user)}")
    await bus.open(url, name=name or f"{user}@{host}", seed=text, deadline=deadline)
    # A task group would wrap the caller's own exceptions.
    watch = asyncio.create_task(bus.watch_over(), name=f"watch over the bus of {user}")
    try:
        yield bus
    finally:
        watch.cancel()
        await bus.close()


def _check_seed(text: str, source: str) -> None:
    from .keys import public_key

    public_key(text.encode(), source)
