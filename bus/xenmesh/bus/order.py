"""The gap rule (docs/structure.md): what a consumer knows of one service's order of events, and what a new event tells it. Pure."""

from __future__ import annotations

import enum

__all__ = ["Order", "Verdict"]

_ABOVE = 20_000
_OWNERS = 10_000


class Verdict(enum.Enum):
    """What an event is to a consumer."""

    NEXT = "next"
    """Apply it."""

    OLD = "old"
    """The snapshot has it, or it came twice: drop it."""

    GAP = "gap"
    """Events before it are missing: take the snapshot again."""

    BOOT = "boot"
    """The service began anew: take the snapshot again."""


class Order:
    """Knows of each event of one service and boot whether it was heard.

    ``whole``: every event up to this ``seq`` is in the snapshot or was heard; at first that is the cut. A consumer of the whole stream also
    tells of the events that the service says elsewhere (`other`), so that `lacks` is exact. One that follows a single owner does not: for it
    ``whole`` stays the cut, and `sure` remembers what a barrier has confirmed.
    """

    def __init__(self) -> None:
        self.boot = ""
        self.whole = 0
        self._newest: dict[str, int] = {}
        self._above: set[int] = set()
        self._sure = 0

    def begin(self, boot: str, seq: int) -> None:
        """A snapshot as of ``(boot, seq)`` was taken: forget all else."""
        self.boot = boot
        self.whole = self._sure = seq
        self._newest.clear()
        self._above.clear()

    def event(self, owner: str, boot: str, seq: int, prev: int) -> Verdict:
        """An event of the stream has come."""
        if boot != self.boot:
            return Verdict.BOOT
        newest = max(self.whole, self._newest.get(owner, 0))
        if seq <= newest:
            return Verdict.OLD
        if prev > newest or len(self._above) >= _ABOVE:
            return Verdict.GAP
        self._newest[owner] = seq
        self._hear(seq)
        if len(self._newest) > _OWNERS:  # what `whole` covers needs no memory of its own
            self._newest = {name: known for name, known in self._newest.items() if known > self.whole}
        return Verdict.NEXT

    def other(self, boot: str, seq: int) -> None:
        """The service has said that event elsewhere, outside the stream: it is not missing."""
        if boot == self.boot and seq > self.whole and len(self._above) < _ABOVE:
            self._hear(seq)

    def ahead(self, boot: str, seq: int) -> Verdict:
        """A heartbeat says that ``seq`` is the newest event. GAP: perhaps; wait for what is on its way, then ask the barrier, then `lacks`."""
        if boot != self.boot:
            return Verdict.BOOT
        return Verdict.GAP if seq > max(self.whole, self._sure) else Verdict.OLD

    def lacks(self, newest: int, owner: str | None = None) -> bool:
        """Whether an event up to ``newest``, the newest of the stream or of ``owner`` alone, was not heard."""
        return newest > (self.whole if owner is None else max(self.whole, self._newest.get(owner, 0)))

    def sure(self, seq: int) -> None:
        """A barrier has shown that nothing up to ``seq`` is lacking."""
        self._sure = max(self._sure, seq)

    def _hear(self, seq: int) -> None:
        self._above.add(seq)
        while self.whole + 1 in self._above:
            self.whole += 1
            self._above.remove(self.whole)
