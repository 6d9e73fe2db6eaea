"""The tree of nodes, cheap to keep and free to cut.

A cut shares every node with the tree; the tree then copies a node, and those above it, before it first changes it. So a cut costs nothing
when it is made, whatever the size, and never changes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

__all__ = ["Leaf", "Node", "Stored", "Tree"]


class Leaf(NamedTuple):
    """A value that is not simply its bytes: cut, or a secret's digest."""

    value: bytes
    size: int
    secret: bool


Stored = bytes | Leaf
"""A node's value; plain bytes when they are all of it, as nearly always: a thousand domains have 60,000 of them."""


class Node:
    """One node. ``value`` is None while only nodes below it are known. Read it; only `Tree` writes."""

    __slots__ = ("epoch", "kids", "value")

    def __init__(self, value: Stored | None, kids: dict[str, Node] | None, epoch: int) -> None:
        self.value = value
        self.kids = kids
        self.epoch = epoch

    def find(self, path: str) -> Node | None:
        """The node at the absolute ``path`` below this one."""
        node = self
        for name in _names(path):
            if node.kids is None or (kid := node.kids.get(name)) is None:
                return None
            node = kid
        return node

    def walk(self, path: str, skip: Callable[[str], bool] | None = None) -> Iterator[tuple[str, Stored]]:
        """Path and value of this node, which lies at ``path``, and of all below it, parents first; ``skip`` tells what to pass by."""
        pending = [(path, self)]
        while pending:
            path, node = pending.pop()
            if skip is not None and skip(path):
                continue
            if node.value is not None:
                yield path, node.value
            if node.kids:
                base = "" if path == "/" else path
                pending += [(f"{base}/{name}", kid) for name, kid in reversed(node.kids.items())]


class Tree:
    """Nodes by absolute path."""

    def __init__(self) -> None:
        self._epoch = 0
        self._root = Node(None, None, 0)

    def get(self, path: str) -> Stored | None:
        """The value at ``path``; None when the node is not known."""
        node = self._root.find(path)
        return None if node is None else node.value

    def children(self, path: str) -> tuple[str, ...]:
        """Names of the known children of ``path``."""
        node = self._root.find(path)
        return () if node is None or not node.kids else tuple(node.kids)

    def walk(self, path: str) -> Iterator[tuple[str, Stored]]:
        """Path and value of the node at ``path`` and of all below; nothing if it is not known. Do not write meanwhile: see `cut`."""
        node = self._root.find(path)
        return iter(()) if node is None else node.walk(path)

    def set(self, path: str, value: Stored) -> None:
        """Set the value at ``path``; nodes above that are not known are made, without values."""
        node = self._own(_names(path))
        node.value = value

    def remove(self, path: str) -> Node | None:
        """Take the node at ``path`` (not the root) and all below away, and return it; None when it is not known."""
        removed = self._root.find(path)
        if removed is not None:
            *above, last = _names(path)
            node = self._own(above)
            kids = node.kids or {}
            del kids[last]
            node.kids = kids or None
        return removed

    def cut(self) -> Node:
        """The root as it is now, for ever."""
        self._epoch += 1
        return self._root

    def _own(self, names: list[str]) -> Node:
        """The node at the end of ``names``, it and all above it made or copied where need be: it may be written."""
        if self._root.epoch != self._epoch:
            self._root = self._copy(self._root)
        node = self._root
        for name in names:
            if node.kids is None:
                node.kids = {}
            kid = node.kids.get(name)
            if kid is None:
                # The same few hundred names are in every domain.
                kid = node.kids[sys.intern(name)] = Node(None, None, self._epoch)
            elif kid.epoch != self._epoch:
                kid = node.kids[name] = self._copy(kid)
            node = kid
        return node

    def _copy(self, node: Node) -> Node:
        return Node(node.value, None if node.kids is None else dict(node.kids), self._epoch)


def _names(path: str) -> list[str]:
    return path.split("/")[1:] if path != "/" else []
