"""How often a domain may be read, and what happens to one that writes faster: a token bucket, and shedding.

A token is one request to xenstored. A domain out of tokens is *shed*: unwatched, and read whole every few seconds, until it has been quiet
for a while. The clock is an argument throughout: seconds of any monotonic clock.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Bucket", "Pace", "Shedding"]


class Bucket:
    """A token bucket: holds at most ``burst`` tokens and gets ``rate`` a second."""

    __slots__ = ("_tokens", "_when", "burst", "rate")

    def __init__(self, burst: float, rate: float, now: float) -> None:
        self.burst = burst
        self.rate = rate
        self._tokens = burst
        self._when = now

    def level(self, now: float) -> float:
        """Tokens left; below zero after a debt."""
        self._tokens = min(self.burst, self._tokens + max(0.0, now - self._when) * self.rate)
        self._when = max(now, self._when)
        return self._tokens

    def spend(self, tokens: float, now: float) -> bool:
        """Take ``tokens``, into debt if need be; False when none was left before."""
        had = self.level(now)
        self._tokens = had - tokens
        return had > 0


class Pace(NamedTuple):
    """How a shed domain is read: every ``interval`` seconds, until for ``quiet`` seconds no reading found more than ``changes`` nodes changed."""

    interval: float
    quiet: float
    changes: int


class Shedding:
    """One domain's time of being shed."""

    __slots__ = ("_due", "_pace", "_quiet_since", "folded")

    def __init__(self, pace: Pace, now: float, folded: int = 0) -> None:
        self._pace = pace
        self._due = now + pace.interval
        self._quiet_since = now
        self.folded = folded
        """Changes that were folded together into the slow readings."""

    @property
    def due(self) -> float:
        """When to read it whole again."""
        return self._due

    def read(self, changes: int, now: float) -> bool:
        """Note that it was read whole and ``changes`` nodes had changed; True when it may be watched again."""
        if changes > self._pace.changes:
            self._quiet_since = now
        self.folded += changes
        self._due = now + self._pace.interval
        return now - self._quiet_since >= self._pace.quiet
