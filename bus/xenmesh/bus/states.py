"""Last values of a service's things on their way to the state bucket: the newest of each, put again whenever the bucket may have lost them."""

from __future__ import annotations

import logging
from collections import Counter

import anyio

from xenmesh.schemas.subjects import Declaration, matches

from .abc import Bus
from .errors import BusError

__all__ = ["States"]

_log = logging.getLogger(__name__)


class States:
    """What should be in the bucket, and what is not known to be there yet. ``counters`` gets ``states`` and ``states.late``."""

    def __init__(self, bus: Bus, declaration: Declaration, counters: Counter[str]) -> None:
        self._bus = bus
        self._patterns = tuple(said.removeprefix("state.") for said in declaration.says if said.startswith("state."))
        self._counters = counters
        self._values: dict[str, bytes] = {}
        self._due: dict[str, None] = {}
        self._putting = anyio.Lock()

    @property
    def due(self) -> bool:
        """There is something to `flush`."""
        return bool(self._due)

    def note(self, key: str, data: bytes | None) -> None:
        """The newest value of ``key``; None: it has none any more. `flush` puts it."""
        if data is None:
            self._values.pop(key, None)
        else:
            self._values[key] = data
        self._due[key] = None

    def again(self) -> None:
        """The bucket may be empty (it is in the server's memory): all is due once more."""
        self._due.update(dict.fromkeys(self._values))

    async def flush(self) -> None:
        """Put what is due; what the bus does not take stays due."""
        async with self._putting:
            while self._due:
                key = next(iter(self._due))
                del self._due[key]
                data = self._values.get(key)
                try:
                    if data is None:
                        await self._bus.purge(key)
                    else:
                        await self._bus.put(key, data)
                    self._counters["states"] += 1
                except BusError as error:
                    self._due.setdefault(key)
                    self._counters["states.late"] += 1
                    _log.debug("the state %s was not put: %s", key, error.sentence)
                    return

    async def ghosts(self, keep: set[str]) -> list[str]:
        """Keys of this service's kinds that are in the bucket, and neither in ``keep`` nor noted in this boot.

        Raises:
            errors.BusError: the bucket cannot be read.
        """
        mine = [key for key in await self._bus.keys() if any(matches(pattern, key) for pattern in self._patterns)]
        return [key for key in mine if key not in keep and key not in self._values]
