"""Reading a tree whole: listing before reading, so that what the caps leave out is never asked for.

A walk says what to read and list next, and is told the names that were found. Names that are kept already come first, so that a tree larger
than its caps shows the same part of itself each time.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Protocol

from xenmesh.schemas.store import Area, Limit
from xenmesh.schemas.subjects import area_of

__all__ = ["Kept", "Walk"]


class Kept(Protocol):
    """What a walk asks of the model."""

    def knows(self, path: str) -> bool:
        """Whether the node is kept."""

    def refuses(self, path: str, ahead: int = 0) -> Limit | None:
        """Which cap a new node would break, if ``ahead`` others of its area came before it."""

    def fans_out(self, path: str) -> int:
        """How many children of a node may be kept."""


class Walk:
    """One reading of the tree below ``root``; ``whole``: that is all of a watched tree.

    What it has taken must be applied to the model before it is told by `found` or `absent`.
    """

    def __init__(self, root: str, areas: frozenset[Area], *, whole: bool, number: int = 0) -> None:
        self.root = root
        self.whole = whole
        self.number = number
        """Its place among all that was asked for; the reader's."""
        self.started = False
        self.changes = 0
        """How many nodes were found changed; counted by the reader."""
        self.left: dict[tuple[int | None, Area], tuple[Limit, int]] = {}
        """What was left out, and for which cap first."""
        self._areas = areas
        self._next = deque([root])
        self._new: dict[str, Area] = {}
        self._ahead: Counter[Area] = Counter()
        self._asked = 0

    @property
    def done(self) -> bool:
        """Everything was read."""
        return not self._next and not self._asked

    def take(self, count: int) -> list[str]:
        """At most ``count`` nodes to read and to list now; each must come back by `found` or `absent`."""
        self.started = True
        taken = [self._next.popleft() for _ in range(min(count, len(self._next)))]
        self._asked += len(taken)
        return taken

    def absent(self, path: str) -> None:
        """The node was not there."""
        self._asked -= 1
        area = self._new.pop(path, None)
        if area is not None:
            self._ahead[area] -= 1

    def found(self, path: str, untrusted_names: Iterable[str], kept: Kept) -> None:
        """The node was there and has these children."""
        self.absent(path)
        if not kept.knows(path):
            self.leave_out(path, Limit.BYTES)
            return
        # A domain's vm key comes before its other keys: it tells whose they are.
        children = [f"{path}/{name}" for name in sorted(untrusted_names, key=lambda name: name != "vm")]
        wanted = [(child, area) for child in children if (area := area_of(child)[1]) in self._areas]
        known = [child for child, _ in wanted if kept.knows(child)]
        self._next += known
        room = kept.fans_out(path) - len(known)
        for child, area in wanted:
            if kept.knows(child):
                continue
            limit = kept.refuses(child, self._ahead[area]) if room > 0 else Limit.CHILDREN
            if limit is not None:
                self.leave_out(child, limit)
                continue
            room -= 1
            self._ahead[area] += 1
            self._new[child] = area
            self._next.append(child)

    def leave_out(self, path: str, limit: Limit) -> None:
        """Note that the node, known to be there, is not kept."""
        where = area_of(path)
        first, count = self.left.get(where, (limit, 0))
        self.left[where] = (first, count + 1)
