"""The history of the bus, which is all that this service observes."""

from __future__ import annotations

from xenmesh.bus.abc import Bus
from xenmesh.bus.since import since
from xenmesh.schemas.request import Since, SincePage

__all__ = ["History"]


class History:
    """The kept events of one host."""

    def __init__(self, bus: Bus, host: str) -> None:
        self._bus = bus
        self._host = host

    async def page(self, asked: Since) -> SincePage:
        """The page that was asked for. Raises `xenmesh.bus.errors.Refused`: ``bad-request``, ``no-history``."""
        return await since(self._bus, self._host, asked)
