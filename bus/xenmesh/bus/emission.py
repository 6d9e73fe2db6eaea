"""Events on their way out: each gets its place in the order at once, and they are published in that order, whoever waits."""

from __future__ import annotations

import logging
from collections import Counter, deque

import anyio

from xenmesh.schemas.envelope import Envelope, Event, encode
from xenmesh.schemas.service import ServiceEvent
from xenmesh.schemas.subjects import matches, of, own, owner_of, prefix

from .abc import Bus
from .errors import BusError, BusLost

__all__ = ["Emission"]

_log = logging.getLogger(__name__)


class Emission:
    """The order of events of one service and boot. ``counters`` gets ``events`` and ``events.lost``."""

    def __init__(self, bus: Bus, host: str, service: str, boot: str, counters: Counter[str]) -> None:
        self.seq = 0
        self._bus = bus
        self._host = host
        self._service = service
        self._boot = boot
        self._counters = counters
        self._prefix = prefix(host)
        self._newest: dict[str, int] = {}
        self._leaving: deque[tuple[str, bytes]] = deque()
        self._sending = anyio.Lock(fast_acquire=True)

    def stamp(self, event: Event, time: float) -> None:
        """Give it its place. `flush` sends it.

        Raises:
            TypeError: it has no subject.
        """
        subject = own(self._service, event) if isinstance(event, ServiceEvent) else of(event)
        owner = owner_of(subject)
        seq = self.seq + 1
        data = encode(
            Envelope(
                host=self._host,
                service=self._service,
                boot=self._boot,
                seq=seq,
                prev=self._newest.get(owner, 0),
                time=time,
                event=event,
            )
        )
        self.seq = self._newest[owner] = seq
        self._leaving.append((f"{self._prefix}.{subject}", data))
        self._counters["events"] += 1

    async def flush(self) -> None:
        """Publish what has a place, in its order. What the bus does not take is counted: consumers see the gap."""
        async with self._sending:
            while self._leaving:
                # It stays first until it went: one that is cancelled here goes twice rather than not at all.
                subject, data = self._leaving[0]
                try:
                    await self._bus.publish(subject, data)
                except BusLost:
                    self._counters["events.lost"] += 1
                except BusError as error:
                    self._counters["events.lost"] += 1
                    _log.error("an event was lost: %s", error.sentence)
                self._leaving.popleft()

    def newest(self, pattern: str | None) -> int:
        """``seq`` of the newest event of the owners under ``pattern`` (None: of all); 0: none. A pattern of their subjects does as well."""
        if pattern is None:
            return self.seq
        if pattern in self._newest:
            return self._newest[pattern]
        return max((seq for owner, seq in self._newest.items() if _covers(pattern, owner)), default=0)


def _covers(pattern: str, owner: str) -> bool:
    return matches(pattern, owner) or matches(pattern, f"{owner}.*")
