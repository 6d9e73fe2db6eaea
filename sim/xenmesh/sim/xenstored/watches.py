"""Who is told of what.

Watches hang in a tree of their own, so that a change looks only at those on the way down to its path. Which of the two
servers' orders holds is the dialect's affair.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

from xenmesh.sim.xenstored.tree import READ, Perms, Tree, names_of, parent_of

__all__ = ["Change", "Watch", "Watcher", "Watches", "readable"]


class Watcher(Protocol):
    """Whose watch it is."""

    serial: int

    def mask(self, perms: Perms) -> int:
        """Return what it may do to a node of these permissions."""
        ...


W = TypeVar("W", bound=Watcher)


@dataclass(eq=False)
class Watch(Generic[W]):
    """One watch. `path` is as the client wrote it, `absolute` where it lies; `depth`: levels below that count."""

    client: W
    path: str
    token: bytes
    absolute: str
    serial: int
    depth: int | None = None

    def spelt(self, absolute: str) -> str:
        """Return a path of an event as this watch's client wants it: relative if the watch is."""
        if self.path == self.absolute:
            return absolute
        return absolute[len(self.absolute) - len(self.path) :]


class Change(NamedTuple):
    """Something that watches may be told of.

    `kind`: "node": watches on the path and above; "exact": those on the path alone; "tree": those of "node", and each
    one below for its own path. `views`: an event goes to who may read it in one of these.
    """

    path: str
    kind: str
    views: tuple[Tree, ...]


def readable(watcher: Watcher, path: str, views: tuple[Tree, ...]) -> bool:
    """Whether `watcher` may read the node, or the one above it, in one of the views (XSA-115)."""
    for view in views:
        above = view.get(parent_of(path))
        if above is None:
            continue
        if watcher.mask(above.perms) & READ:
            return True
        node = view.get(path)
        if node is not None and watcher.mask(node.perms) & READ:
            return True
    return False


@dataclass
class _Branch(Generic[W]):
    here: list[Watch[W]] = field(default_factory=list)
    below: "dict[str, _Branch[W]]" = field(default_factory=dict)


class Watches(Generic[W]):
    """All watches of all clients."""

    def __init__(self, *, newest_first: bool) -> None:
        self._newest_first = newest_first
        self._root: _Branch[W] = _Branch()
        self._special: dict[str, list[Watch[W]]] = {}

    def add(self, watch: Watch[W]) -> None:
        """Register a watch."""
        if watch.absolute[0] == "@":
            self._special.setdefault(watch.absolute, []).append(watch)
            return
        branch = self._root
        for name in names_of(watch.absolute):
            branch = branch.below.setdefault(name, _Branch())
        branch.here.append(watch)

    def remove(self, watch: Watch[W]) -> None:
        """Forget a watch that was added."""
        if watch.absolute[0] == "@":
            special = self._special[watch.absolute]
            special.remove(watch)
            if not special:
                del self._special[watch.absolute]
            return
        way = [self._root]
        names = names_of(watch.absolute)
        for name in names:
            way.append(way[-1].below[name])
        way[-1].here.remove(watch)
        for above, name, branch in zip(reversed(way[:-1]), reversed(names), reversed(way[1:]), strict=True):
            if branch.here or branch.below:
                break
            del above.below[name]

    def on(self, special: str) -> list[Watch[W]]:
        """Return the watches on "@name", in the order in which they fire."""
        found = self._special.get(special, [])
        if self._newest_first:
            return sorted(found, key=lambda watch: (watch.client.serial, -watch.serial))
        return sorted(found, key=lambda watch: (watch.client.serial, watch.serial))

    def seeing(self, change: Change) -> Iterator[tuple[Watch[W], str]]:
        """Yield (watch, absolute path of the event), in order; no look at permissions."""
        if change.kind == "exact":
            branch = self._find(change.path)
            if branch is not None:
                for watch in self._ordered(branch.here):
                    yield watch, change.path
            return
        branch, found = self._root, list(self._ordered(self._root.here))
        names = names_of(change.path)
        reached = True
        for name in names:
            step = branch.below.get(name)
            if step is None:
                reached = False
                break
            branch = step
            if branch.here:
                found += self._ordered(branch.here)
        if not self._newest_first:
            found.sort(key=lambda watch: (watch.client.serial, watch.serial))
        for watch in found:
            if watch.depth is None or len(names) - len(names_of(watch.absolute)) <= watch.depth:
                yield watch, change.path
        if change.kind == "tree" and reached:
            yield from self._all_below(branch)

    def _find(self, path: str) -> _Branch[W] | None:
        branch = self._root
        for name in names_of(path):
            step = branch.below.get(name)
            if step is None:
                return None
            branch = step
        return branch

    def _ordered(self, watches: list[Watch[W]]) -> list[Watch[W]]:
        return watches[::-1] if self._newest_first else watches

    def _all_below(self, branch: _Branch[W]) -> Iterator[tuple[Watch[W], str]]:
        # By hand, not by recursion: a guest may watch a path of a thousand elements.
        stack = [branch.below[name] for name in sorted(branch.below, reverse=True)]
        while stack:
            branch = stack.pop()
            for watch in self._ordered(branch.here):
                yield watch, watch.absolute
            stack += [branch.below[name] for name in sorted(branch.below, reverse=True)]
