"""Which services are on the bus: ``$SRV`` discovery (ADR-32), which every service of the mesh and many others answer."""

from __future__ import annotations

import uuid

import anyio
import msgspec

from xenmesh.bus.abc import Bus
from xenmesh.bus.message import Message

__all__ = ["Found", "discover"]

_FIRST = 1.0
"""Seconds to wait for the first answer."""

_MORE = 0.25
"""Seconds without another answer after which there is nobody else."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One instance of a service, as it tells itself."""

    name: str
    id: str
    version: str
    metadata: dict[str, str] = {}
    description: str = ""

    @property
    def host(self) -> str:
        """The id of its host; empty for services that are not of the mesh."""
        return self.metadata.get("host", "")


async def discover(bus: Bus, *, first: float = _FIRST, more: float = _MORE) -> list[Found]:
    """All that answer, in order of name and host. Empty when nobody did within ``first`` seconds.

    Raises:
        xenmesh.bus.errors.BusError: the bus is lost, or this user may not ask.
    """
    found: list[Found] = []
    news = anyio.Event()

    def take(message: Message) -> None:
        nonlocal news
        try:
            found.append(msgspec.json.decode(message.data, type=Found))
        except msgspec.DecodeError:
            return  # not a service's answer, whoever sent it
        news.set()
        news = anyio.Event()

    inbox = f"_INBOX.{bus.user}.{uuid.uuid4().hex}"
    subscription = await bus.subscribe(inbox, take)
    try:
        await bus.settle()
        await bus.publish("$SRV.INFO", b"", reply=inbox)
        with anyio.move_on_after(first):
            while not found:
                await news.wait()
        waiting = bool(found)
        while waiting:
            with anyio.move_on_after(more) as patience:
                await news.wait()
            waiting = not patience.cancelled_caught
    finally:
        await subscription.close()
    return sorted(found, key=lambda each: (each.name, each.host, each.id))
