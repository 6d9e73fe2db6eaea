"""What xenstore holds, as far as it was seen: observations in, events out.

Rules:

* The state is what the events said: applying them to an empty state, or to a snapshot older than they are, gives the next snapshot.
* A domain is ``(domid, generation)``. It is *present* while ``/local/domain/N`` exists or xenstored has it introduced. When neither is so any
  more it is gone, and its nodes with it. A ``vm`` key that names another uuid than before is another domain that uses the domid again: the
  old one is gone, and what is there is said anew for the new one.
* After a loss of xenstored every domain is *suspect* until it is seen present again. A suspect that is absent is not gone: the store that
  came back knows nothing of it, whatever the hypervisor has. Its nodes are removed, since the store has none; the domain itself stays, marked
  ``missing``, until it is seen present again (and then may leave in the ordinary way), or its domid is used by another uuid.
* What does not fit the caps is not kept: a node that outgrows them is removed, as a node beyond them is never said. `Capped` says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from xenmesh.schemas.envelope import Event
from xenmesh.schemas.service import Source, SourceState
from xenmesh.schemas.store import Area, Capped, Changed, DomainGone, DomainSeen, Flooding, Limit, Node, Removed
from xenmesh.schemas.subjects import area_of as read_area

from . import tree
from .config import Caps, StoreConfig
from .tree import Leaf, Stored, Tree

__all__ = [
    "Children",
    "Domain",
    "Flood",
    "Gone",
    "Key",
    "Left",
    "Lost",
    "Model",
    "Observation",
    "Resynced",
    "Told",
    "Value",
    "View",
    "node_of",
]

SOURCE = "xenstored"


class Value(NamedTuple):
    """A node has this value. ``size``: bytes of the whole value; ``secret``: ``value`` is only a digest of it."""

    path: str
    value: bytes
    size: int
    secret: bool = False


class Gone(NamedTuple):
    """There is no such node, or it may not be read: neither it nor anything below is there."""

    path: str


class Children(NamedTuple):
    """All children of a node: others that were known are gone."""

    path: str
    names: frozenset[str]


class Domain(NamedTuple):
    """How a domain stands: whether it has a node below ``/local/domain``, and whether xenstored has it introduced."""

    domid: int
    listed: bool
    introduced: bool


class Told(NamedTuple):
    """What a recording or a snapshot says of a domain: it was judged when it was said, and is taken as it is."""

    word: DomainSeen | DomainGone


Key = int | str
"""Of what is read as one: a domid, or the root of a tree of the host."""


class Left(NamedTuple):
    """What a reading of all of ``key`` left out for the caps: for each domid (None: the host) and area the cap, and how many nodes."""

    key: Key
    left: Mapping[tuple[int | None, Area], tuple[Limit, int]]


class Flood(NamedTuple):
    """A domain was shed, or is watched again."""

    domid: int
    active: bool
    dropped: int


class Lost(NamedTuple):
    """xenstored does not answer."""

    why: str


class Resynced(NamedTuple):
    """Everything was read again."""


Observation = Value | Gone | Children | Domain | Told | Left | Flood | Lost | Resynced


class _Known(NamedTuple):
    """A domain."""

    uuid: str | None
    introduced: bool
    generation: int
    missing: bool = False
    suspect: bool = False


class _Usage:
    """How much is kept."""

    __slots__ = ("bytes", "nodes")

    def __init__(self) -> None:
        self.nodes = 0
        self.bytes = 0

    def add(self, nodes: int, size: int) -> None:
        self.nodes += nodes
        self.bytes += size


_Owner = int | None
"""A domid, or None for the host."""
area_of = lru_cache(4096)(read_area)
"""The same path is looked at several times in a row."""

_UUID = re.compile(r"/vm/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:-\d+)?", re.IGNORECASE).fullmatch


class Model:
    """The state."""

    def __init__(self, config: StoreConfig) -> None:
        self._guest = config.guest
        self._host = config.host
        self._tree = Tree()
        self._domains: dict[int, _Known] = {}
        self._generations: dict[int, int] = {}
        self._left: dict[Key, Mapping[tuple[_Owner, Area], tuple[Limit, int]]] = {}
        self._areas: dict[tuple[_Owner, Area], _Usage] = {}
        self._owners: dict[_Owner, _Usage] = {}
        self._losses = 0
        self._lost = False

    # -- what a source may ask

    @property
    def domids(self) -> frozenset[int]:
        """The domains that are present, or missing."""
        return frozenset(self._domains)

    @property
    def present(self) -> frozenset[int]:
        """The domains that are present."""
        return frozenset(domid for domid, known in self._domains.items() if not known.missing)

    def is_present(self, domid: int) -> bool:
        """Whether the domain is present."""
        return domid in self._domains and not self._domains[domid].missing

    @property
    def nodes(self) -> int:
        """How many nodes are kept."""
        return sum(usage.nodes for usage in self._owners.values())

    def introduced(self, domid: int) -> bool:
        """Whether the domain was last seen introduced."""
        return domid in self._domains and self._domains[domid].introduced

    def knows(self, path: str) -> bool:
        """Whether the node is kept."""
        return self._tree.get(path) is not None

    def holds(self, seen: Value) -> bool:
        """Whether exactly this is kept already."""
        return self._tree.get(seen.path) == _stored(seen)

    def children(self, path: str) -> tuple[str, ...]:
        """Names of its children that are kept."""
        return self._tree.children(path)

    def refuses(self, path: str, ahead: int = 0) -> Limit | None:
        """Which cap a new node at ``path`` would break, if ``ahead`` others of its area came before it."""
        domid, area = area_of(path)
        caps = self._caps(domid)
        if path.count("/") - (3 if path.startswith("/local/domain/") else 0) > caps.depth:
            return Limit.DEPTH
        return self._full(domid, area, 1 + ahead, len(path))

    def fans_out(self, path: str) -> int:
        """How many children of ``path`` may be kept."""
        return self._caps(area_of(path)[0]).children

    def capped(self, key: Key) -> bool:
        """Whether something of this tree is left out."""
        return key in self._left

    # -- observations

    def apply(self, observation: Observation) -> list[Event]:
        """Take an observation in; the events that say what it changed, in order."""
        match observation:
            case Value():
                return self._value(observation)
            case Gone(path):
                return self._gone(path)
            case Children(path, names):
                gone = [f"{path}/{name}" for name in self._tree.children(path) if name not in names]
                return [event for each in gone for event in self._gone(each)]
            case Domain():
                return self._domain(observation)
            case Told(word):
                return self._take_word(word)
            case Left(key, left):
                return self._leave_out(key, left)
            case Flood(domid, active, dropped):
                return [Flooding(domid=domid, uuid=self._uuid(domid), active=active, dropped=dropped)]
            case Lost(why):
                return self._was_lost(why)
            case _:
                return self._resynced()

    def _value(self, seen: Value) -> list[Event]:
        path = seen.path
        stored = _stored(seen)
        before = self._tree.get(path)
        if stored == before:
            return []
        domid, area = area_of(path)
        nodes, size = before is None, _weight(path, stored) - _weight(path, before)
        if self._full(domid, area, nodes, size):
            return self._gone(path)
        events = self._named(path, domid, stored) if domid is not None and path.endswith("/vm") else []
        self._account(domid, area, nodes, size)
        self._tree.set(path, stored)
        events.append(_changed(path, stored, domid, self._uuid(domid)))
        return events

    def _gone(self, path: str) -> list[Event]:
        removed = self._tree.remove(path)
        if removed is None:
            return []
        any_kept = False
        for each, value in removed.walk(path):
            any_kept = True
            domid, area = area_of(each)
            self._account(domid, area, -1, -_weight(each, value))
        if not any_kept:
            return []
        domid, _ = area_of(path)
        return [Removed(domid=domid, uuid=self._uuid(domid), path=path)]

    def _domain(self, seen: Domain) -> list[Event]:
        domid = seen.domid
        root = f"/local/domain/{domid}"
        known = self._domains.get(domid)
        events = [] if seen.listed else self._gone(root)
        if seen.listed or seen.introduced:
            if known is None:
                events += self._enter(domid, _uuid_of(self._tree.get(f"{root}/vm")), seen.introduced)
            else:
                events += self._keep(domid, _Known(known.uuid, seen.introduced, known.generation))
        elif known is not None:
            if known.suspect or known.missing:
                events += self._keep(domid, _Known(known.uuid, False, known.generation, missing=True))
            else:
                events.append(self._leave(domid))
        return events

    def _take_word(self, word: DomainSeen | DomainGone) -> list[Event]:
        before = self._domains.get(word.domid)
        if isinstance(word, DomainGone):
            return [] if before is None else [self._leave(word.domid)]
        known = self._domains[word.domid] = _Known(word.uuid, word.introduced, word.generation, missing=word.missing)
        self._generations[word.domid] = word.generation
        return [] if before is not None and before._replace(suspect=False) == known else [word]

    def _named(self, path: str, domid: int, value: Stored) -> list[Event]:
        """The vm key was read: who the domain is."""
        known, uuid = self._domains.get(domid), _uuid_of(value)
        if path != f"/local/domain/{domid}/vm" or known is None or uuid is None or uuid == known.uuid:
            return []
        if known.uuid is None:
            return self._keep(domid, known._replace(uuid=uuid))
        return self._reuse(domid, uuid, known.introduced)

    def _reuse(self, domid: int, uuid: str, introduced: bool) -> list[Event]:  # noqa: FBT001 - a fact of the domain
        trees = {root: list(self._tree.walk(root)) for root in _roots(domid)}
        before = self._uuid(domid)
        events: list[Event] = [Removed(domid=domid, uuid=before, path=root) for root, nodes in trees.items() if nodes]
        events.append(self._leave(domid))
        events += self._enter(domid, uuid, introduced)
        # The vm key itself is about to be said, with its new value.
        kept = [node for nodes in trees.values() for node in nodes if node[0] != f"/local/domain/{domid}/vm"]
        return events + [_changed(path, value, domid, uuid) for path, value in kept]

    def _enter(self, domid: int, uuid: str | None, introduced: bool) -> list[Event]:  # noqa: FBT001 - a fact of the domain
        generation = self._generations[domid] = self._generations.get(domid, 0) + 1
        known = self._domains[domid] = _Known(uuid, introduced, generation)
        return [_seen(domid, known)]

    def _keep(self, domid: int, known: _Known) -> list[Event]:
        before, self._domains[domid] = self._domains[domid], known
        return [] if before._replace(suspect=known.suspect) == known else [_seen(domid, known)]

    def _leave(self, domid: int) -> DomainGone:
        known = self._domains.pop(domid)
        return DomainGone(domid=domid, uuid=known.uuid, generation=known.generation)

    def _leave_out(self, key: Key, left: Mapping[tuple[_Owner, Area], tuple[Limit, int]]) -> list[Event]:
        before = self._left.pop(key, {})
        if left:
            self._left[key] = left
        events: list[Event] = [self._cap(domid, area, None, 0) for domid, area in before if (domid, area) not in left]
        events += [self._cap(*where, *what) for where, what in left.items() if before.get(where) != what]
        return events

    def _cap(self, domid: int | None, area: Area, limit: Limit | None, left_out: int) -> Capped:
        return Capped(domid=domid, uuid=self._uuid(domid), area=area, limit=limit, left_out=left_out)

    def _was_lost(self, why: str) -> list[Event]:
        self._lost = True
        self._losses += 1
        for domid, known in self._domains.items():
            self._domains[domid] = known._replace(suspect=True)
        return [Source(source=SOURCE, state=SourceState.LOST, why=why, lost=self._losses)]

    def _resynced(self) -> list[Event]:
        if not self._lost:
            return []
        self._lost = False
        return [Source(source=SOURCE, state=SourceState.RESYNCED, why="read whole again", lost=self._losses)]

    # -- the state

    def cut(self) -> Mapping[str, Iterable[Event]]:
        """The state at this moment by owner (``store.5``), whose items can be read at leisure, any number of times."""
        root = self._tree.cut()
        capped: dict[_Owner, list[Event]] = {}
        for left in self._left.values():
            for (domid, area), (limit, count) in left.items():
                capped.setdefault(domid, []).append(self._cap(domid, area, limit, count))
        domids = {domid for domid in (*self._owners, *capped) if domid is not None} | self._domains.keys()
        owners: dict[str, Iterable[Event]] = {"store.host": View(root, None, None, capped.get(None, ()))}
        for domid in sorted(domids):
            owners[f"store.{domid}"] = View(root, domid, self._domains.get(domid), capped.get(domid, ()))
        return owners

    # -- accounts

    def _caps(self, domid: _Owner) -> Caps:
        return self._guest if domid else self._host

    def _full(self, domid: _Owner, area: Area, nodes: int, size: int) -> Limit | None:
        caps = self._caps(domid)
        part, whole = self._areas.get((domid, area), _NOTHING), self._owners.get(domid, _NOTHING)
        if nodes > 0 and (part.nodes + nodes > caps.nodes or whole.nodes + nodes > caps.all_nodes):
            return Limit.NODES
        if size > 0 and (part.bytes + size > caps.bytes or whole.bytes + size > caps.all_bytes):
            return Limit.BYTES
        return None

    def _account(self, domid: _Owner, area: Area, nodes: int, size: int) -> None:
        part = self._areas.get((domid, area))
        if part is None:
            part = self._areas[domid, area] = _Usage()
        whole = self._owners.get(domid)
        if whole is None:
            whole = self._owners[domid] = _Usage()
        part.add(nodes, size)
        whole.add(nodes, size)
        if not part.nodes:
            del self._areas[domid, area]
        if not whole.nodes:
            del self._owners[domid]

    def _uuid(self, domid: _Owner) -> str | None:
        known = None if domid is None else self._domains.get(domid)
        return None if known is None else known.uuid


_NOTHING = _Usage()


class View:
    """One owner's part of a cut: its domain, its caps, then its nodes, parents first."""

    __slots__ = ("_capped", "_domid", "_known", "_root")

    def __init__(self, root: tree.Node, domid: _Owner, known: _Known | None, capped: Iterable[Event]) -> None:
        self._root = root
        self._domid = domid
        self._known = known
        self._capped = capped

    def __iter__(self) -> Iterator[Event]:
        domid, known = self._domid, self._known
        uuid = None
        if known is not None and domid is not None:
            uuid = known.uuid
            yield _seen(domid, known)
        yield from self._capped
        for start in ("/",) if domid is None else _roots(domid):
            found = self._root.find(start)
            if found is not None:
                for path, value in found.walk(start, _of_a_domain if domid is None else None):
                    yield _changed(path, value, domid, uuid)


def node_of(seen: Value) -> Node:
    """The value as it is told: text where it is UTF-8, a secret not at all."""
    text, raw, size, secret = _told(_stored(seen))
    return Node(path=seen.path, value=text, raw=raw, size=size, redacted=secret)


def _stored(seen: Value) -> Stored:
    return seen.value if seen.size == len(seen.value) and not seen.secret else Leaf(seen.value, seen.size, seen.secret)


def _told(value: Stored) -> tuple[str | None, bytes | None, int, bool]:
    size, secret = len(value), False
    if isinstance(value, Leaf):
        value, size, secret = value
        if secret:
            return None, None, size, True
    try:
        return value.decode(), None, size, secret
    except UnicodeDecodeError:
        return None, value, size, secret


def _changed(path: str, value: Stored, domid: int | None, uuid: str | None) -> Changed:
    text, raw, size, secret = _told(value)
    return Changed(domid=domid, uuid=uuid, path=path, value=text, raw=raw, size=size, redacted=secret)


def _seen(domid: int, known: _Known) -> DomainSeen:
    return DomainSeen(
        domid=domid,
        uuid=known.uuid,
        introduced=known.introduced,
        generation=known.generation,
        missing=known.missing,
    )


def _uuid_of(value: Stored | None) -> str | None:
    if isinstance(value, bytes) and (match := _UUID(value.decode("ascii", "replace"))):
        return match[1].lower()
    return None


def _roots(domid: int) -> tuple[str, str]:
    return f"/local/domain/{domid}", f"/libxl/{domid}"


def _of_a_domain(path: str) -> bool:
    return area_of(path)[0] is not None


def _weight(path: str, value: Stored | None) -> int:
    if value is None:
        return 0
    return len(path) + (len(value.value) if isinstance(value, Leaf) else len(value))
