"""The nodes, copy on write: a snapshot costs nothing, and a write copies only what a snapshot still shares.

A tree may change those nodes in place that bear its own `edit` mark. A snapshot gives both sides new marks, so that
either copies a node (and the way down to it) before its first change. A single node is pinned by taking its mark away.

Where a domain is owner or named is remembered as places: paths at or above which its name was once put down. A place may
have nothing any more; `of` looks. So a death costs what the domain had, not a look at every node.
"""

from collections.abc import Iterator

from xenmesh.xenstore.perms import Access, Perm

__all__ = ["DOM0_ONLY", "OWNER", "READ", "WRITE", "Node", "Perms", "Tree", "names_of", "parent_of", "walk"]

READ, WRITE, OWNER = 1, 2, 4
_BITS = {Access.NONE: 0, Access.READ: READ, Access.WRITE: WRITE, Access.BOTH: READ | WRITE}


_PLACES_MOST = 4096
"""Places remembered of one domain; above that, everywhere is its place."""


class Perms:
    """A node's permissions: `entries` as set, and quick answers about them. Shared between nodes; never changed."""

    __slots__ = ("_masks", "domids", "entries", "owner")

    def __init__(self, entries: tuple[Perm, ...]) -> None:
        self.entries = entries
        self.domids = frozenset(domid for _, domid in entries if domid)
        self.owner = entries[0].domid
        self._masks: dict[int, int] = {}

    def mask(self, domid: int) -> int:
        """Return what `domid` may do: READ, WRITE and OWNER bits. Dom0 and the owner may do everything."""
        known = self._masks.get(domid)
        if known is None:
            known = self._masks[domid] = self._work_out(domid)
        return known

    def _work_out(self, domid: int) -> int:
        if domid in (0, self.owner):
            return READ | WRITE | OWNER
        for access, of in self.entries[1:]:
            if of == domid:
                return _BITS[access]
        return _BITS[self.entries[0].access]

    def owned_by(self, domid: int) -> "Perms":
        """Return the same list with another owner."""
        if domid == self.owner:
            return self
        return Perms((Perm(self.entries[0].access, domid), *self.entries[1:]))


DOM0_ONLY = Perms((Perm(Access.NONE, 0),))


class Node:
    """One node. `generation` changes with its value, permissions or list of children."""

    __slots__ = ("children", "edit", "generation", "perms", "value")

    def __init__(self, value: bytes, perms: Perms, generation: int, edit: object) -> None:
        self.value = value
        self.perms = perms
        self.children: dict[str, Node] = {}
        self.generation = generation
        self.edit = edit

    def copied(self, edit: object) -> "Node":
        """Return a copy that may be changed under `edit`."""
        node = Node(self.value, self.perms, self.generation, edit)
        node.children = self.children.copy()
        return node


def names_of(path: str) -> list[str]:
    """Return the elements of an absolute path ("/" has none); "@name" is an element of the root."""
    if path == "/":
        return []
    return path[1:].split("/") if path[0] == "/" else path.split("/")


def parent_of(path: str) -> str:
    """Return the path above; that of "/" is "/"."""
    return path.rpartition("/")[0] or "/"


class Tree:
    """All nodes, by absolute path.

    `owned` counts each domain's nodes, `named` those of others that name it in their permissions.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._edit = object()
        self.root = Node(b"", DOM0_ONLY, 0, self._edit)
        self.owned = {0: 1}
        self.named: dict[int, int] = {}
        self._places: dict[int, set[str]] = {}

    def snapshot(self) -> "Tree":
        """Return a tree of the same content that changes by itself from here on."""
        self._edit = object()
        other = Tree()
        other.root, other.generation = self.root, self.generation
        other.owned, other.named = self.owned.copy(), self.named.copy()
        other._places = self._places  # shared by all: a place too many does no harm
        return other

    def adopt(self, other: "Tree") -> None:
        """Take over the content of `other`, which must not be used any more."""
        self.root, self.owned, self.named = other.root, other.owned, other.named
        self.generation = max(self.generation, other.generation)
        self._edit = other._edit  # noqa: SLF001 - the same class

    def get(self, path: str) -> Node | None:
        """Return the node, to be looked at only."""
        node = self.root
        for name in names_of(path):
            found = node.children.get(name)
            if found is None:
                return None
            node = found
        return node

    def pinned(self, path: str) -> Node | None:
        """Return the node, which will stay as it is now: the next change makes a copy."""
        node = self.get(path)
        if node is not None:
            node.edit = None
        return node

    def _own(self, names: list[str]) -> Node:
        """Return the node for changing, with the whole way down to it."""
        edit = self._edit
        node = self.root
        if node.edit is not edit:
            node = self.root = node.copied(edit)
        for name in names:
            child = node.children[name]
            if child.edit is not edit:
                child = node.children[name] = child.copied(edit)
            node = child
        return node

    def _touched(self, names: list[str]) -> Node:
        node = self._own(names)
        self.generation += 1
        node.generation = self.generation
        return node

    def set_value(self, path: str, value: bytes) -> None:
        """Set the value of a node. Raises KeyError if there is none."""
        self._touched(names_of(path)).value = value

    def set_perms(self, path: str, perms: Perms) -> None:
        """Set the permissions of a node. Raises KeyError if there is none."""
        node = self._touched(names_of(path))
        self._count(node.perms, -1)
        self._count(perms, 1)
        self._remember(path, perms)
        node.perms = perms

    def add(self, path: str, value: bytes, perms: Perms) -> None:
        """Make a node, youngest child of its parent. Raises KeyError if there is no parent."""
        *above, name = names_of(path)
        parent = self._touched(above)
        parent.children[name] = Node(value, perms, self.generation, self._edit)
        self._count(perms, 1)
        if perms is not parent.perms:
            self._remember(path, perms)

    def remove(self, path: str) -> None:
        """Remove a node and all below. Raises KeyError if it is not there, ValueError for "/"."""
        names = names_of(path)
        if not names:
            raise ValueError(path)
        node = self._touched(names[:-1]).children.pop(names[-1])
        for _, each in walk(path, node):
            self._count(each.perms, -1)

    def clear(self) -> None:
        """Remove all below "/"."""
        for name in list(self.root.children):
            self.remove("/" + name)

    def arrange(self, path: str, names: list[str]) -> None:
        """Put the children of a node into the order of `names`; those not named come last."""
        node = self._own(names_of(path))
        have = node.children
        node.children = {name: have[name] for name in names if name in have} | have

    def owned_by(self, domid: int) -> int:
        """Return how many nodes the domain owns."""
        return self.owned.get(domid, 0)

    def of(self, domid: int) -> list[tuple[str, Node]]:
        """Return (path, node) of all nodes that a guest's domain owns or is named in, in the order of `walk`."""
        missing = self.owned.get(domid, 0) + self.named.get(domid, 0)
        if not missing:
            self._places.pop(domid, None)
            return []
        found = self._search(domid, self._places.get(domid, set()))
        if sum(of == domid for _, node in found for _, of in node.perms.entries) < missing:
            return self._search(domid, {"/"})  # forgotten while a transaction still had it
        return found

    def _search(self, domid: int, places: set[str]) -> list[tuple[str, Node]]:
        ways = {"/"}
        for place in places:
            while place not in ways:
                ways.add(place)
                place = parent_of(place)
        found = []
        stack = [("/", self.root, "/" in places)]
        while stack:
            path, node, inside = stack.pop()
            if domid in node.perms.domids:
                found.append((path, node))
            above = "" if path == "/" else path
            for name, child in reversed(node.children.items()):
                below = f"{above}/{name}"
                if inside or below in ways:
                    stack.append((below, child, inside or below in places))
        return found

    def _remember(self, path: str, perms: Perms) -> None:
        for domid in perms.domids:
            places = self._places.setdefault(domid, set())
            places.add(path)
            if len(places) > _PLACES_MOST:
                self._places[domid] = {"/"}

    def _count(self, perms: Perms, step: int) -> None:
        _add(self.owned, perms.owner, step)
        for _, domid in perms.entries[1:]:
            _add(self.named, domid, step)

    def walk(self) -> Iterator[tuple[str, Node]]:
        """Yield (path, node) of all nodes, parents first."""
        return walk("/", self.root)


def _add(counts: dict[int, int], domid: int, step: int) -> None:
    count = counts.get(domid, 0) + step
    if count:
        counts[domid] = count
    else:
        counts.pop(domid, None)


def walk(path: str, node: Node) -> Iterator[tuple[str, Node]]:
    """Yield (path, node) of a node and all below, parents first."""
    stack = [(path, node)]
    while stack:
        path, node = stack.pop()
        yield path, node
        above = "" if path == "/" else path
        stack += [(f"{above}/{name}", child) for name, child in reversed(node.children.items())]
