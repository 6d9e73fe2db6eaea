"""Watching over a connection that its library believes to be well, and speaking of its errors no more than needed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

import anyio

__all__ = ["POLL", "Link", "Quiet", "supervise"]

POLL = 0.25
"""Seconds between two looks at a connection."""


class Link(Protocol):
    """A connection that can be found dead."""

    def fault(self) -> str | None:
        """What is wrong that the library will not mend by itself; nothing where all is well."""

    async def revive(self, fault: str) -> None:
        """Begin to connect anew. Must not wait for the connection."""


async def supervise(link: Link) -> None:
    """Look at ``link`` for ever, and revive it when it is dead; cancel to end."""
    while True:
        await anyio.sleep(POLL)
        fault = link.fault()
        if fault is not None:
            await link.revive(fault)


class Quiet:
    """A log for errors that may come by the thousand: of each kind, the first at once, then one line every ``every`` seconds."""

    def __init__(self, log: logging.Logger, *, every: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._every = every
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}

    def warning(self, kind: str, sentence: str) -> bool:
        """Say it, or count it. ``kind`` comes from a small set, never from outside. True: it was said."""
        now = self._clock()
        said, kept_back = self._kinds.get(kind, (-self._every, 0))
        if now - said < self._every:
            self._kinds[kind] = (said, kept_back + 1)
            return False
        self._kinds[kind] = (now, 0)
        self._log.warning("%s%s", sentence, f" (and {kept_back} more of this kind)" if kept_back else "")
        return True
