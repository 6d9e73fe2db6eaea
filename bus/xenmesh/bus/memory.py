"""The bus inside one process: the same rules as NATS, by the same order of things, and no waiting but for the event loop.

`MemoryServer` stands for nats-server: it can be cut off and mended, for one user or all. What it keeps is lost with it.
"""

from __future__ import annotations

import asyncio
import time as clocks
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping

from xenmesh.schemas.subjects import matches, prefix

from .abc import Bus, Subscription
from .errors import BusClosed, BusLost, NoHistory, NoResponders, NotKept, Timeout, TooLarge
from .message import BusState, Handler, Kept, Message
from .wire import check_pattern, check_subject

__all__ = ["MemoryBus", "MemoryServer"]

_MESSAGES = 1000
_BYTES = 4 << 20
_PENDING = 1 << 20
_PAUSE = 128
"""A publisher in a tight loop lets the others run after so many messages."""

_STREAMS = ("xen.v1.*.evt.>", "xen.v1.*.audit.>")
"""What the history takes in, each numbered by itself."""


class MemoryServer:
    """What joins the `MemoryBus`es made on it. ``history`` False: as a nats-server without JetStream."""

    def __init__(self, *, history: bool = True, clock: Callable[[], float] = clocks.time) -> None:
        self.history = history
        self.clock = clock
        self.buses: list[MemoryBus] = []
        self.values: dict[tuple[str, str], bytes] = {}
        """The last values, by host and key."""

        self._streams: dict[str, list[Kept]] = {pattern: [] for pattern in _STREAMS}
        self._last: dict[str, int] = dict.fromkeys(_STREAMS, 0)
        self._identities: set[str] = set()
        self._turns: dict[str, int] = {}
        self._subscriptions: dict[str, dict[_MemorySubscription, None]] = {}
        """By the part of their patterns before the first wildcard."""

    def cut(self, user: str | None = None) -> None:
        """Break the connections of ``user``, or all."""
        for bus in self._of(user):
            bus._become(BusState.LOST)  # noqa: SLF001 - one whole: the server and its connections

    def mend(self, user: str | None = None) -> None:
        """Bring them back: what was held back is sent first."""
        for bus in self._of(user):
            bus._become(BusState.UP)  # noqa: SLF001

    def restart(self) -> None:
        """Cut all, forget the last values (they are in memory on the real server too), mend all; the history stays."""
        self.cut()
        self.values.clear()
        self.mend()

    def discard(self, pattern: str, before: int) -> None:
        """Discard what one stream kept before that number, as its limits would; ``pattern`` as in ``xen.v1.*.evt.>``."""
        self._streams[pattern] = [kept for kept in self._streams[pattern] if kept.number >= before]

    def route(self, message: Message) -> int:
        """Hand ``message`` to all who hear it; returns how many."""
        groups: dict[str, list[_MemorySubscription]] = {}
        heard = 0
        for subscription in self._hearers(message.subject):
            if subscription.queue:
                groups.setdefault(subscription.queue, []).append(subscription)
            else:
                subscription.take(message)
                heard += 1
        for queue, members in groups.items():
            turn = self._turns[queue] = self._turns.get(queue, -1) + 1
            members[turn % len(members)].take(message)
        self._keep(message)
        return heard + len(groups)

    def keep(self, message: Message, identity: str) -> None:
        """`route` it, once for each identity."""
        if not self.history:
            self.route(message)
            raise NotKept(subject=message.subject, why="this server keeps no history")
        if not any(matches(pattern, message.subject) for pattern in _STREAMS):
            self.route(message)
            raise NotKept(subject=message.subject, why="no stream takes it")
        if identity not in self._identities:
            self._identities.add(identity)
            self.route(message)

    def kept(self, pattern: str) -> list[Kept]:
        """What the history holds under ``pattern``, oldest first."""
        if not self.history:
            raise NoHistory(why="this server keeps no history")
        return [kept for stream in self._streams.values() for kept in stream if matches(pattern, kept.subject)]

    def join(self, subscription: _MemorySubscription) -> None:
        """Its messages come from now on."""
        self._subscriptions.setdefault(subscription.literal, {})[subscription] = None

    def leave(self, subscription: _MemorySubscription) -> None:
        """No more; may be called twice."""
        alike = self._subscriptions.get(subscription.literal, {})
        alike.pop(subscription, None)
        if not alike:
            self._subscriptions.pop(subscription.literal, None)

    def _hearers(self, subject: str) -> list[_MemorySubscription]:
        """Those subscriptions that are up: found by how their patterns begin, which many share."""
        return [
            subscription
            for literal, alike in self._subscriptions.items()
            if subject.startswith(literal)
            for subscription in alike
            if subscription.hears(subject)
        ]

    def _keep(self, message: Message) -> None:
        if self.history:
            for pattern in _STREAMS:
                if matches(pattern, message.subject):
                    self._last[pattern] += 1
                    self._streams[pattern].append(Kept(self._last[pattern], self.clock(), message.subject, message.data))

    def _of(self, user: str | None) -> list[MemoryBus]:
        return [bus for bus in list(self.buses) if user is None or bus.user == user]


class _MemorySubscription(Subscription):
    """Interest in one pattern: takes messages now, hands them on in the loop's next turn."""

    def __init__(self, bus: MemoryBus, pattern: str, handler: Handler, queue: str, on_cut: Callable[[], None] | None) -> None:
        self.pattern = pattern
        self.queue = queue
        self._bus = bus
        self._handler = handler
        self._on_cut = on_cut
        self._waiting: deque[Message] = deque()
        self._bytes = 0
        self._pumping = False
        self.taken = 0
        self.handed = 0
        self.literal = pattern.partition("*")[0].partition(">")[0]

    def hears(self, subject: str) -> bool:
        return self._bus.state is BusState.UP and matches(self.pattern, subject)

    def take(self, message: Message) -> None:
        if len(self._waiting) >= _MESSAGES or self._bytes + len(message.data) > _BYTES:
            self._end()
            if self._on_cut is not None:
                asyncio.get_running_loop().call_soon(self._on_cut)
            return
        self.taken += 1
        self._waiting.append(message)
        self._bytes += len(message.data)
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        for _ in range(len(self._waiting)):
            if not self._waiting:  # closed by its own handler
                return
            message = self._waiting.popleft()
            self._bytes -= len(message.data)
            self.handed += 1
            try:
                self._handler(message)
            except Exception as error:  # noqa: BLE001 - a handler's bug is reported, and costs nobody else a message
                loop = asyncio.get_running_loop()
                loop.call_exception_handler({"message": f"handler of {self.pattern} failed", "exception": error})

    def _end(self) -> None:
        self._waiting.clear()
        self._bytes = 0
        self.handed = self.taken
        self._bus.leave(self)

    async def close(self) -> None:
        """As `Subscription.close`."""
        self._end()


class MemoryBus(Bus):
    """A connection to a `MemoryServer` as ``user``; up at once. ``host``: whose state bucket `put` and `purge` mean."""

    def __init__(self, server: MemoryServer, *, user: str = "memory", host: str = "memory") -> None:
        self.user = user
        self.host = host
        self.subscriptions: list[_MemorySubscription] = []
        """What it hears now."""

        self._server = server
        self._state = BusState.UP
        self._listeners: list[Callable[[BusState], None]] = []
        self._held: deque[Message] = deque()
        self._held_bytes = 0
        self._inboxes = 0
        self._published = 0
        server.buses.append(self)

    @property
    def state(self) -> BusState:
        """As `Bus.state`; the server's `cut` and `mend` change it."""
        return self._state

    def on_state(self, heard: Callable[[BusState], None]) -> Callable[[], None]:
        """As `Bus.on_state`."""
        self._listeners.append(heard)

        def end() -> None:
            if heard in self._listeners:
                self._listeners.remove(heard)

        return end

    async def publish(self, subject: str, data: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None) -> None:
        """As `Bus.publish`; holds back 1 MiB while it is lost."""
        self._check(subject, data)
        message = Message(subject, data, reply, headers)
        if self._state is BusState.LOST:
            if self._held_bytes + len(data) > _PENDING:
                raise BusLost(why=f"{_PENDING} bytes are held back already; {subject} was not sent")
            self._held.append(message)
            self._held_bytes += len(data)
            return
        self._server.route(message)
        self._published += 1
        if self._published % _PAUSE == 0:
            await asyncio.sleep(0)

    async def keep(self, subject: str, data: bytes, *, identity: str) -> None:
        """As `Bus.keep`."""
        self._check(subject, data)
        if self._state is BusState.LOST:
            raise NotKept(subject=subject, why="the bus is lost")
        self._server.keep(Message(subject, data), identity)
        await asyncio.sleep(0)

    async def subscribe(
        self, pattern: str, handler: Handler, *, queue: str = "", on_cut: Callable[[], None] | None = None
    ) -> Subscription:
        """As `Bus.subscribe`; takes effect at once."""
        self._check(pattern, b"", wild=True)
        subscription = _MemorySubscription(self, pattern, handler, queue, on_cut)
        self.subscriptions.append(subscription)
        self._server.join(subscription)
        return subscription

    def leave(self, subscription: _MemorySubscription) -> None:
        """A subscription has ended."""
        self._server.leave(subscription)
        if subscription in self.subscriptions:
            self.subscriptions.remove(subscription)

    async def request(self, subject: str, data: bytes, *, timeout: float, headers: Mapping[str, str] | None = None) -> Message:
        """As `Bus.request`."""
        self._check(subject, data)
        self._need_up()
        self._inboxes += 1
        inbox = f"_INBOX.{self.user}.{id(self)}.{self._inboxes}"
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        def heard(message: Message) -> None:
            if not answer.done():
                answer.set_result(message)

        subscription = await self.subscribe(inbox, heard)
        try:
            if not self._server.route(Message(subject, data, inbox, headers)):
                await asyncio.sleep(0)
                raise NoResponders(subject=subject)
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise Timeout(subject=subject, seconds=timeout) from None
        finally:
            await subscription.close()

    async def ping(self) -> None:
        """As `Bus.ping`."""
        self._need_up()
        await asyncio.sleep(0)
        self._need_up()

    async def settle(self) -> None:
        """As `Bus.settle`; raises `errors.BusLost`."""
        self._need_up()
        wanted = [(subscription, subscription.taken) for subscription in self.subscriptions]
        await asyncio.sleep(0)
        while any(subscription.handed < taken for subscription, taken in wanted):  # noqa: ASYNC110 - the pumps run in the loop's turns
            await asyncio.sleep(0)
        self._need_up()

    async def put(self, key: str, data: bytes) -> None:
        """As `Bus.put`; raises `errors.BusLost`."""
        self._check(f"state.{key}", data)
        self._need_up()
        self._server.values[self.host, key] = data
        await self._tell(key, data)

    async def purge(self, key: str) -> None:
        """As `Bus.purge`; raises `errors.BusLost`."""
        self._check(f"state.{key}", b"")
        self._need_up()
        if self._server.values.pop((self.host, key), None) is not None:
            await self._tell(key, b"")

    async def keys(self) -> list[str]:
        """As `Bus.keys`; raises `errors.BusLost`."""
        self._need_up()
        await asyncio.sleep(0)
        return sorted(key for host, key in self._server.values if host == self.host)

    async def _tell(self, key: str, data: bytes) -> None:
        self._server.route(Message(f"{prefix(self.host)}.state.{key}", data))
        await asyncio.sleep(0)

    async def history(self, pattern: str, *, time: float | None = None, number: int | None = None) -> AsyncIterator[Kept]:
        """As `Bus.history`."""
        self._check(pattern, b"", wild=True)
        self._need_up()
        for kept in self._server.kept(pattern):
            if (time is None or kept.time >= time) and (number is None or kept.number > number):
                yield kept
                await asyncio.sleep(0)

    async def close(self) -> None:
        """As `Bus.close`."""
        if self._state is not BusState.CLOSED:
            self._become(BusState.CLOSED)
            for subscription in list(self.subscriptions):
                await subscription.close()
            self._held.clear()
            self._server.buses.remove(self)
            self._listeners.clear()

    def _become(self, state: BusState) -> None:
        if state is self._state or self._state is BusState.CLOSED:
            return
        self._state = state
        if state is BusState.UP:
            while self._held:
                self._server.route(self._held.popleft())
            self._held_bytes = 0
        for heard in list(self._listeners):
            heard(state)

    def _need_up(self) -> None:
        if self._state is BusState.CLOSED:
            raise BusClosed
        if self._state is BusState.LOST:
            raise BusLost(why="the server was cut off")

    def _check(self, subject: str, data: bytes, *, wild: bool = False) -> None:
        if self._state is BusState.CLOSED:
            raise BusClosed
        if wild:
            check_pattern(subject)
        else:
            check_subject(subject)
        if len(data) > self.max_payload:
            raise TooLarge(subject=subject, size=len(data), limit=self.max_payload)
