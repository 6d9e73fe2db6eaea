"""Transactions, in the two ways of the two servers.

`Overlay` (C): nodes are read from the live store at first look and kept; written ones are kept aside. It commits if no
node that was looked at has changed since. `Replay` (oxenstored): works on a snapshot and remembers requests and
answers; it commits by running them again on the store of now, if every answer is the same.

Both are views: what reads and writes a `Tree` reads and writes them.
"""

from dataclasses import dataclass
from typing import Protocol

from xenmesh.sim.xenstored.errors import Refused
from xenmesh.sim.xenstored.tree import Node, Perms, Tree, names_of, parent_of
from xenmesh.sim.xenstored.watches import Change
from xenmesh.xenstore.messages import AnyRequest

__all__ = ["Overlay", "Replay", "View"]


class View(Protocol):
    """Nodes that can be read and written: the live store, or as a transaction sees it."""

    def get(self, path: str) -> Node | None:
        """Return the node, to be looked at only."""
        ...

    def set_value(self, path: str, value: bytes) -> None:
        """Set a node's value."""
        ...

    def set_perms(self, path: str, perms: Perms) -> None:
        """Set a node's permissions."""
        ...

    def add(self, path: str, value: bytes, perms: Perms) -> None:
        """Make a node below one that is there."""
        ...

    def remove(self, path: str) -> None:
        """Remove a node and all below."""
        ...

    def owned_by(self, domid: int) -> int:
        """Return how many nodes the domain owns."""
        ...


@dataclass
class _Touch:
    """A node looked at: its generation at the first look (None: it was not there), and as it is now in here."""

    generation: int | None
    node: Node | None
    changed: bool = False
    fires: str = ""


class Overlay:
    """A transaction of C xenstored over the live tree. `limit`: most nodes it may touch."""

    def __init__(self, live: Tree, limit: int | None, limit_error: str) -> None:
        self._live = live
        self._touched: dict[str, _Touch] = {}
        self._owned: dict[int, int] = {}
        self._limit = limit
        self._limit_error = limit_error

    def _touch(self, path: str) -> _Touch:
        touch = self._touched.get(path)
        if touch is None:
            if self._limit is not None and len(self._touched) >= self._limit:
                raise Refused(self._limit_error)
            node = self._live.pinned(path)
            touch = self._touched[path] = _Touch(node.generation if node else None, node)
        return touch

    def _change(self, path: str) -> Node:
        touch = self._touch(path)
        if touch.node is None:
            raise KeyError(path)
        if not touch.changed:
            touch.node, touch.changed = touch.node.copied(None), True
        return touch.node

    def get(self, path: str) -> Node | None:
        """Return the node as this transaction sees it."""
        return self._touch(path).node

    def set_value(self, path: str, value: bytes) -> None:
        """Set a node's value. Raises KeyError if there is none."""
        self._change(path).value = value

    def set_perms(self, path: str, perms: Perms) -> None:
        """Set a node's permissions. Raises KeyError if there is none."""
        node = self._change(path)
        self._count(node.perms.owner, -1)
        self._count(perms.owner, 1)
        node.perms = perms

    def add(self, path: str, value: bytes, perms: Perms) -> None:
        """Make a node. Raises KeyError if there is no parent."""
        touch = self._touch(path)
        parent = self._change(parent_of(path))
        node = Node(value, perms, 0, None)
        parent.children[path.rpartition("/")[2]] = node
        touch.node, touch.changed = node, True
        self._count(perms.owner, 1)

    def remove(self, path: str) -> None:
        """Remove a node and all below. Raises KeyError if it is not there."""
        self._touch(path)
        self._change(parent_of(path)).children.pop(path.rpartition("/")[2], None)
        stack = [path]
        while stack:
            path = stack.pop()
            touch = self._touch(path)
            if touch.node is None:
                raise KeyError(path)
            stack += [f"{path}/{name}" for name in reversed(touch.node.children)]
            self._count(touch.node.perms.owner, -1)
            touch.node, touch.changed = None, True
            touch.fires = touch.fires or "exact"

    def owned_by(self, domid: int) -> int:
        """Return how many nodes the domain would own after a commit."""
        return self._live.owned_by(domid) + self._owned.get(domid, 0)

    def _count(self, domid: int, step: int) -> None:
        self._owned[domid] = self._owned.get(domid, 0) + step

    def fire(self, path: str) -> None:
        """Have watches told of a change of `path` at the commit."""
        self._touched[path].fires = "node"

    def commit(self) -> list[Change] | None:
        """Write everything to the live tree; return what watches may be told of, or None for a conflict."""
        live = self._live
        for path, touch in self._touched.items():
            node = live.get(path)
            if (node.generation if node else None) != touch.generation:
                return None
        changed = {path: touch for path, touch in self._touched.items() if touch.changed}
        if not changed:
            return []
        before = live.snapshot()
        for path in sorted(changed, key=lambda path: path.count("/") if path != "/" else 0):
            self._apply(path, changed[path])
        for path, touch in changed.items():
            node = live.get(path)
            if touch.node is not None and node is not None and list(node.children) != list(touch.node.children):
                live.arrange(path, list(touch.node.children))
        # What was made and removed again in here leaves no trace.
        return [
            Change(path, touch.fires, (before, live))
            for path, touch in changed.items()
            if touch.fires and not (touch.generation is None and touch.node is None)
        ]

    def _apply(self, path: str, touch: _Touch) -> None:
        live, node = self._live, touch.node
        there = live.get(path)
        if node is None:
            if there is not None:
                live.remove(path)
            return
        if there is None:
            live.add(path, node.value, node.perms)
        else:
            live.set_value(path, node.value)
            if there.perms is not node.perms:
                live.set_perms(path, node.perms)


class Replay:
    """A transaction of oxenstored: a snapshot, and what was asked of it."""

    def __init__(self, live: Tree) -> None:
        self._live = live
        self._start = live.snapshot()
        self._start_root = self._start.root
        self.tree = self._start.snapshot()
        self.requests = 0
        """How many requests it has had."""
        self.asked: list[tuple[AnyRequest, bytes]] = []
        """Requests, each with its answer (an error's code where it was refused)."""
        self._reads: str | None = None
        self._writes: str | None = None
        self.changes: list[tuple[str, str]] = []
        """(path, op) of what watches will be told of: op is "write", "rm" or "perms"."""

    def get(self, path: str) -> Node | None:
        """Return the node of the snapshot."""
        return self.tree.get(path)

    def set_value(self, path: str, value: bytes) -> None:
        """Set a node's value."""
        self.tree.set_value(path, value)

    def set_perms(self, path: str, perms: Perms) -> None:
        """Set a node's permissions."""
        self.tree.set_perms(path, perms)

    def add(self, path: str, value: bytes, perms: Perms) -> None:
        """Make a node below one that is there."""
        self.tree.add(path, value, perms)

    def remove(self, path: str) -> None:
        """Remove a node and all below."""
        self.tree.remove(path)

    def clear(self) -> None:
        """Remove all below "/"."""
        self.tree.clear()

    def owned_by(self, domid: int) -> int:
        """Return how many nodes the domain owns in the snapshot."""
        return self.tree.owned_by(domid)

    @property
    def current(self) -> bool:
        """Whether the live store is still as it was at the start."""
        return self._live.root is self._start_root

    def note_read(self, path: str) -> None:
        """Take note that a node was looked at. A look that found nothing is not noted: oxenstored does not either."""
        self._reads = _common(self._reads, path)

    def note_write(self, path: str) -> None:
        """Take note that something at or below a node was changed."""
        self._writes = _common(self._writes, path)

    @property
    def separate(self) -> bool:
        """Whether nothing changed in the live store below what was read and below what was written."""
        return all(self._same(path) for path in (self._reads, self._writes) if path is not None)

    def _same(self, path: str) -> bool:
        there = self._live.get(path)
        if there is None or there is not self._start.get(path):
            return False
        while path != "/":
            path = parent_of(path)
            now, then = self._live.get(path), self._start.get(path)
            if now is None or then is None or now.perms.entries != then.perms.entries:
                return False
        return True

    def apply(self) -> list[Change]:
        """Make the snapshot the live store; return what watches may be told of. Only while `current`."""
        views = {"write": (self.tree,), "rm": (self._start,), "perms": (self._start, self.tree)}
        if self.changes:
            self._live.adopt(self.tree)
            views = {"write": (self._live,), "rm": (self._start,), "perms": (self._start, self._live)}
        return [Change(path, "tree" if op == "rm" else "node", views[op]) for path, op in self.changes]


def _common(known: str | None, path: str) -> str:
    """Return the lowest node that has both at or below it."""
    if known is None:
        return path
    shared = []
    for one, other in zip(names_of(known), names_of(path), strict=False):
        if one != other:
            break
        shared.append(one)
    return "/" + "/".join(shared)
