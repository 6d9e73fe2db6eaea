"""The bus, as every service and consumer sees it. `memory.MemoryBus` and `nats.NatsBus` are siblings: neither is the other's mock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping

from .message import BusState, Handler, Kept, Message

__all__ = ["Bus", "Subscription"]


class Subscription(ABC):
    """Interest in one pattern."""

    @abstractmethod
    async def close(self) -> None:
        """No more messages; ends at once and may be called twice."""


class Bus(ABC):
    """A connection of one bus user. Every method raises `errors.BusClosed` after `close`."""

    user: str
    max_payload: int = 1 << 20

    @property
    @abstractmethod
    def state(self) -> BusState:
        """How the connection is now."""

    @abstractmethod
    def on_state(self, heard: Callable[[BusState], None]) -> Callable[[], None]:
        """Call ``heard`` at each change of `state`; returns what ends that."""

    @abstractmethod
    async def publish(
        self,
        subject: str,
        data: bytes,
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Say it, without an answer. Takes its place in the order before it first waits; while the bus is lost it is held back as far as
        memory allows, then raises `errors.BusLost`. Larger than ``max_payload``: `errors.TooLarge`."""

    @abstractmethod
    async def keep(self, subject: str, data: bytes, *, identity: str) -> None:
        """Say it and be sure that the history has it, once (``identity`` tells repetitions); raises `errors.NotKept`."""

    @abstractmethod
    async def subscribe(
        self,
        pattern: str,
        handler: Handler,
        *,
        queue: str = "",
        on_cut: Callable[[], None] | None = None,
    ) -> Subscription:
        """Hear ``pattern``. Known to the server only after `settle`. Whoever does not keep up (1,000 messages, 4 MiB) hears nothing more:
        ``on_cut`` is called once and the subscription is over; never is a single message left out."""

    @abstractmethod
    async def request(self, subject: str, data: bytes, *, timeout: float, headers: Mapping[str, str] | None = None) -> Message:
        """Ask and wait for one answer; raises `errors.NoResponders`, `errors.Timeout`, `errors.BusLost`."""

    @abstractmethod
    async def ping(self) -> None:
        """One round trip to the server, behind all that was said before; raises `errors.BusLost`. Takes no refusal away from `settle`."""

    @abstractmethod
    async def settle(self) -> None:
        """Wait until the server has taken in all that was published and subscribed, and all it had sent before has reached the handlers."""

    @abstractmethod
    async def put(self, key: str, data: bytes) -> None:
        """Set the last value under ``key`` of the state bucket; subscribers hear it on ``<prefix>.state.<key>``."""

    @abstractmethod
    async def purge(self, key: str) -> None:
        """Take the last value away, if there is one; subscribers hear an empty message."""

    @abstractmethod
    async def keys(self) -> list[str]:
        """The keys that have a value. May be empty though there are some: never a proof that something is gone."""

    @abstractmethod
    def history(self, pattern: str, *, time: float | None = None, number: int | None = None) -> AsyncIterator[Kept]:
        """Kept events of ``pattern``, oldest first, from ``time`` or after ``number``, until now; raises `errors.NoHistory`."""

    @abstractmethod
    async def close(self) -> None:
        """Send what is pending, answer nothing more, disconnect. Bounded by 5 s."""
