"""Cuts of a service's state, read in pages: one cut for all who ask at the same moment, encoded page by page as it is asked for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

import msgspec

from xenmesh.schemas.envelope import Event, encode
from xenmesh.schemas.request import SnapshotPage

__all__ = ["Cut", "Cuts", "OpenCut"]

Cut = Mapping[str, Iterable[Event]]
"""A service's whole state at one moment: each owner (``store.5``) and its items, in order. Nothing in it may change afterwards; the iterables
are read lazily, page by page, for 30 s and more, and from the beginning each time (a tuple, never an iterator)."""

_ENCODED = 16
"""Pages kept encoded: consumers that began together ask for the same page at about the same time."""

_IDLE = 2.0
"""Seconds without a question after which a cut may give way to a new one: whoever reads it would have asked."""


class OpenCut:
    """One cut that is being read."""

    def __init__(self, number: int, boot: str, seq: int, cut: Cut, size: int) -> None:
        self.number = number
        self.name = f"{boot}-{number}"
        self.boot = boot
        self.seq = seq
        self.asked = 0.0
        self._cut = cut
        self._size = size
        self._starts: dict[str | None, list[tuple[int, int]]] = {}
        self._encoded: dict[tuple[str | None, int], bytes] = {}

    def page(self, number: int, owner: str | None = None) -> bytes | None:
        """The JSON of that `SnapshotPage`, of the whole or of one owner; None: there is no such page."""
        done = self._encoded.get((owner, number))
        if done is not None:
            return done
        starts = self._starts.setdefault(owner, [(0, 0)])
        while number >= len(starts):
            _, after = self._read(owner, starts[-1])
            if after is None:
                return None
            starts.append(after)
        items, after = self._read(owner, starts[number])
        if after is not None and number + 1 == len(starts):
            starts.append(after)
        page = SnapshotPage(
            boot=self.boot,
            seq=self.seq,
            cut=self.name,
            page=number,
            next=None if after is None else number + 1,
            items=items,
        )
        if len(self._encoded) >= _ENCODED:
            del self._encoded[next(iter(self._encoded))]
        done = self._encoded[owner, number] = encode(page)
        return done

    def _read(self, owner: str | None, start: tuple[int, int]) -> tuple[list[msgspec.Raw], tuple[int, int] | None]:
        """Items from ``start`` (which owner, which of its items) until the page is full, and where the next one starts."""
        items: list[msgspec.Raw] = []
        size = 0
        for place, event in self._from(owner, start):
            data = encode(event)
            if items and size + len(data) > self._size:
                return items, place
            items.append(msgspec.Raw(data))
            size += len(data) + 1
        return items, None

    def _from(self, owner: str | None, start: tuple[int, int]) -> Iterator[tuple[tuple[int, int], Event]]:
        owners: Iterable[str] = self._cut if owner is None else (owner,)
        first, skip = start
        for index, name in islice(enumerate(owners), first, None):
            begin = skip if index == first else 0
            for offset, event in enumerate(islice(self._cut.get(name, ()), begin, None), begin):
                yield (index, offset), event


class Cuts:
    """The cuts of one boot: at most ``most`` at once, each kept ``kept`` seconds after it was last asked for; pages of about ``page`` bytes."""

    def __init__(self, boot: str, *, most: int, kept: float, page: int) -> None:
        self._boot = boot
        self._most = most
        self._kept = kept
        self._page = page
        self._open: dict[str, OpenCut] = {}
        self._made = 0

    def __len__(self) -> int:
        return len(self._open)

    @property
    def made(self) -> int:
        """How many cuts were made; take note of it when a question arrives, and give it to `open`."""
        return self._made

    def open(self, seq: int, now: float, make: Callable[[], Cut], *, arrived: int) -> OpenCut | None:
        """A cut for a question that came when ``arrived`` cuts had been made: one of this ``seq``, or one made since, or a new one.

        None: all that may be kept are being read. Ask again soon, with the same ``arrived``: all who wait share the next one.
        """
        self.expire(now)
        for known in self._open.values():
            if known.seq == seq or known.number > arrived:
                known.asked = now
                return known
        if len(self._open) >= self._most:
            oldest = min(self._open.values(), key=lambda cut: cut.asked)
            if now - oldest.asked < _IDLE:
                return None
            del self._open[oldest.name]
        self._made += 1
        made = OpenCut(self._made, self._boot, seq, make(), self._page)
        made.asked = now
        self._open[made.name] = made
        return made

    def find(self, name: str, now: float) -> OpenCut | None:
        """The cut of that name; None: it is no longer kept."""
        self.expire(now)
        found = self._open.get(name)
        if found is not None:
            found.asked = now
        return found

    def expire(self, now: float) -> None:
        """Let go of the cuts that nobody has asked for in time."""
        for name in [name for name, cut in self._open.items() if now - cut.asked > self._kept]:
            del self._open[name]
