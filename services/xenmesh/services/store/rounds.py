"""What to read next: dirty paths in, batches of requests out; answers in, observations out. Does no IO, and time is an argument.

A round takes a bounded share from each *lane* in turn (one lane for each domain, one for each tree of the host), so that no domain waits
for another for longer than one round. Rules:

* A node whose children are known is read with all below it: it may have been removed and written anew, and one event is all that shows of it.
* A node whose parents are not known has them read too: parents made on the way have no event.
* A change below Dom0's ``backend/<type>/<N>`` is on N's account, whose frontend brings it about. A driver domain pays for its own tree: it is a
  guest, and could spend another's budget.
* Answers are handed on in the order of the requests, which is xenstored's own, so an older value never replaces a newer one.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import cast

from xenmesh.schemas.store import AREAS, Area
from xenmesh.schemas.subjects import area_of
from xenmesh.xenstore.errors import AccessError, NotFoundError, ServerError
from xenmesh.xenstore.messages import Directory, IsDomainIntroduced, Read, Request
from xenmesh.xenstore.paths import covers, parent

from .budget import Bucket, Shedding
from .config import StoreConfig
from .model import Children, Domain, Gone, Key, Left, Model, Observation, Value
from .redaction import Redaction
from .walk import Walk

__all__ = ["DOMAINS", "Batch", "Lane", "Rounds", "is_domid", "value_of"]

DOMAINS = "/local/domain"

ROUND = 256
"""Dirty nodes that one round reads."""

SHARE = 32
"""Of one lane, at most."""

WALKING = 64
"""Nodes that one round reads and lists in walks."""

CENSUS = 64
"""Domains that one round asks after."""

_ALL: frozenset[Area] = frozenset(AREAS)
is_domid = re.compile(r"(?:0|[1-9][0-9]{0,4})", re.ASCII).fullmatch
"""Whether a path's element can be a domid (which `area_of` reads alike)."""


class Lane:
    """One domain, or one tree of the host: what is to be read of it."""

    __slots__ = (
        "bucket",
        "capped_due",
        "dirty",
        "domid",
        "key",
        "pending",
        "root",
        "shedding",
        "walked",
        "walks",
    )  # fmt: skip

    def __init__(self, key: Key, bucket: Bucket | None) -> None:
        self.key = key
        self.domid = key if isinstance(key, int) else None
        self.root = f"{DOMAINS}/{key}" if isinstance(key, int) else key
        self.dirty: dict[str, int] = {}
        """In the order in which they became dirty, each with its number."""
        self.walks: deque[Walk] = deque()
        self.bucket = bucket
        self.shedding: Shedding | None = None
        self.pending = True
        """Not read whole yet on this connection."""
        self.walked = float("-inf")
        """When it was last read whole."""
        self.capped_due: float | None = None
        """When it is to be read whole because its caps leave something out."""

    def behind(self, number: int) -> bool:
        """Whether something that was asked for up to ``number`` is still to be read."""
        return any(each <= number for each in self.dirty.values()) or any(walk.number <= number for walk in self.walks)

    def clear(self) -> None:
        """Forget what is to be read."""
        self.dirty.clear()
        self.walks.clear()


class Batch:
    """One round: requests, and what each is for."""

    def __init__(self) -> None:
        self.requests: list[Request[object]] = []
        self.domids: list[int] = []
        """Domains asked after, two requests each; they come first."""
        self.items: list[tuple[Lane, Walk | None, str]] = []
        """Then nodes, in order: one request each, or two where a walk lists it."""
        self.names: list[frozenset[str] | None] = []
        """For each item, once answered: its children; none without a walk; None where there is no such node."""
        self.taken: dict[Lane, int] = {}
        """How many dirty paths of each lane this deals with."""

    def ask(self, request: object) -> None:
        """Add a request."""
        self.requests.append(cast("Request[object]", request))


class Rounds:
    """All lanes. Ask `next`, give the answers to `digest`, apply what it returns to the model, then call `applied`."""

    def __init__(self, config: StoreConfig, model: Model, redaction: Redaction, counters: Counter[str]) -> None:
        self._config = config
        self._model = model
        self._redaction = redaction
        self._areas: frozenset[Area] = frozenset(config.areas) | {"self"}
        self._filters = not self._areas >= _ALL
        self.lanes: dict[Key, Lane] = {}
        self._busy: dict[Lane, None] = {}
        self._later: dict[Lane, None] = {}
        """Shed lanes, and those to be read again for their caps."""
        self._asking: dict[int, None] = {}
        self.shed: list[Lane] = []
        """Lanes to unwatch; whoever does it takes them out."""
        self.restored: list[Lane] = []
        """Lanes to watch again, likewise."""
        self._failing: set[Lane] = set()
        """Lanes of which xenstored could not tell all, for a reason that is not theirs."""
        self.hinted: set[int] = set()
        """Domains that libxl speaks of and that have no lane, likewise."""
        self.number = 0
        """Of the dirty path or walk that was last asked for."""
        self._counters = counters

    # -- in

    def open(self, key: Key, now: float) -> Lane:
        """The lane ``key``, made if there is none."""
        lane = self.lanes.get(key)
        if lane is None:
            lane = self.lanes[key] = Lane(key, self._bucket(key, now))
        return lane

    def close(self, key: Key) -> None:
        """No more of this lane."""
        lane = self.lanes.pop(key, None)
        if lane is not None:
            foreign = self._foreign(lane)
            lane.clear()
            self._busy.pop(lane, None)
            self._later.pop(lane, None)
            for path, number in foreign:
                self._mark(path, number)

    def mark(self, paths: Iterable[str]) -> None:
        """These nodes, or something below them, may have changed."""
        for path in sorted(paths):
            self.number += 1
            self._mark(path, self.number)

    def _mark(self, path: str, number: int) -> None:
        lane = self._lane_of(path)
        if lane is None or (self._filters and lane.domid is not None and area_of(path)[1] not in self._areas):
            return
        lane.dirty.setdefault(path, number)
        if lane.shedding is None:
            self._busy[lane] = None

    def walk(self, lane: Lane) -> None:
        """Read all of the lane anew; a walk that has not begun does for this too."""
        if not any(walk.whole and not walk.started for walk in lane.walks):
            self.number += 1
            lane.walks.append(self._walk(lane, lane.root, self.number, whole=True))
            self._counters["source.walks"] += 1
        self._busy[lane] = None

    def ask_after(self, domids: Iterable[int]) -> None:
        """See how these domains stand."""
        self._asking.update(dict.fromkeys(domids))

    def lost(self) -> None:
        """The connection went: what was to be read cannot be, and is read whole later."""
        for lane in self.lanes.values():
            lane.clear()
            lane.pending = True
        self._busy.clear()
        self._asking.clear()

    @property
    def asking(self) -> bool:
        """Some domain is still to be asked after."""
        return bool(self._asking)

    @property
    def unheard(self) -> bool:
        """Some lane's watch is set, and its first event, which asks for the walk, has not come yet."""
        return any(lane.pending and not lane.walks for lane in self.lanes.values())

    def passed(self, number: int) -> bool:
        """Whether all that was asked for up to ``number`` was handed on, but for domains that are shed."""
        return not any(lane.shedding is None and lane.behind(number) for lane in self.lanes.values())

    @property
    def reading(self) -> bool:
        """Some lane was not read whole yet, or some domain not asked after."""
        return bool(self._asking) or any(lane.pending for lane in self.lanes.values())

    # -- what to ask

    def due(self) -> float:
        """When `next` will have something to ask, if nothing else happens."""
        if self._busy or self._asking:
            return float("-inf")
        times = [lane.shedding.due for lane in self._later if lane.shedding is not None]
        times += [lane.capped_due for lane in self._later if lane.shedding is None and lane.capped_due is not None]
        return min(times, default=float("inf"))

    def next(self, now: float) -> Batch:
        """What to ask now; without requests when there is nothing."""
        if self._later:
            self._wake_late(now)
        batch = Batch()
        for domid in list(islice(self._asking, CENSUS)):
            del self._asking[domid]
            batch.domids.append(domid)
            batch.ask(Read(f"{DOMAINS}/{domid}"))
            batch.ask(IsDomainIntroduced(domid))
        reading, walking = ROUND, WALKING
        for lane in list(self._busy):
            if not walking and not (reading and lane.dirty):
                continue
            # It goes to the end of the queue, so that those who got nothing in this round come first in the next.
            del self._busy[lane]
            if self._spent(lane, now):
                self._shed(lane, now)
                continue
            asked = len(batch.requests)
            reading -= self._take_dirty(lane, batch, min(SHARE, reading))
            walking -= self._take_steps(lane, batch, walking)
            if lane.bucket is not None and not lane.pending and lane.shedding is None:
                lane.bucket.spend(len(batch.requests) - asked, now)
            if lane.dirty or lane.walks:
                self._busy[lane] = None
        self._counters["source.rounds"] += bool(batch.requests)
        self._counters["source.requests"] += len(batch.requests)
        return batch

    def _take_dirty(self, lane: Lane, batch: Batch, share: int) -> int:
        model = self._model
        asked: set[str] = set()
        paths = list(islice(lane.dirty, share))
        for path in paths:
            number = lane.dirty.pop(path)
            known = model.knows(path)
            if model.children(path):
                lane.walks.append(self._walk(lane, path, number, whole=False))
            elif not known and model.refuses(path, len(asked)) is not None:
                self._left_out(self._home(path))
            else:
                for each in (path,) if known else (*self._unknown_above(path), path):
                    if each not in asked:
                        asked.add(each)
                        batch.items.append((lane, None, each))
                        batch.ask(Read(each))
        if paths:
            batch.taken[lane] = len(paths)
        return len(paths)

    def _unknown_above(self, path: str) -> list[str]:
        root = self._root_of(path)
        above: list[str] = []
        while path != root:
            path = parent(path)
            if self._model.knows(path):
                break
            above.append(path)
        return above[::-1]

    def _take_steps(self, lane: Lane, batch: Batch, room: int) -> int:
        count = 0
        for walk in lane.walks:
            for path in walk.take(room - count):
                batch.items.append((lane, walk, path))
                batch.ask(Read(path))
                batch.ask(Directory(path))
                count += 1
        return count

    # -- answers

    def digest(self, batch: Batch, answers: Sequence[object]) -> list[Observation]:
        """What the answers to the batch's requests tell, in their order."""
        found: list[Observation] = []
        each = iter(answers)
        for domid in batch.domids:
            node, introduced = next(each), next(each) is True
            if _failed(node):
                # Nothing is known of it; the next listing asks again.
                continue
            listed = isinstance(node, bytes)
            if not introduced and self._model.introduced(domid) and domid in self.lanes:
                # xenstored takes a released domain's nodes away, perhaps without an event.
                self.walk(self.lanes[domid])
            found.append(Domain(domid, listed, introduced))
        for lane, walk, path in batch.items:
            answer = next(each)
            names: frozenset[str] | None = frozenset()
            if walk is not None:
                names = self._names(path, next(each))
            if _failed(answer):
                # What is known of it stands, until the lane is read again.
                self._failing.add(lane)
                batch.names.append(None)
                continue
            seen = self._seen(path, answer)
            found.append(seen)
            if walk is not None:
                if names is not None:
                    found.append(Children(path, names))
                if lane.shedding is not None:
                    walk.changes += self._differs(seen, names)
            batch.names.append(None if isinstance(seen, Gone) else names)
        return found

    def _seen(self, path: str, answer: object) -> Value | Gone:
        # EACCES: a node that was made unreadable goes silent, so it is gone for us.
        return value_of(path, answer, self._redaction, self._config.value) if isinstance(answer, bytes) else Gone(path)

    def _names(self, path: str, answer: object) -> frozenset[str] | None:
        if isinstance(answer, list):
            return frozenset(answer)
        return None if isinstance(answer, NotFoundError | AccessError) else frozenset(self._model.children(path))

    def _differs(self, seen: Value | Gone, names: frozenset[str] | None) -> int:
        gone = sum(name not in names for name in self._model.children(seen.path)) if names is not None else 0
        return gone + (self._model.knows(seen.path) if isinstance(seen, Gone) else not self._model.holds(seen))

    def applied(self, batch: Batch, now: float) -> list[Observation]:
        """The observations of the batch were applied to the model: go on from there. Returns what that tells besides."""
        found: list[Observation] = []
        for (lane, walk, path), names in zip(batch.items, batch.names, strict=True):
            if lane.domid is not None and path == lane.root and (names is None) is self._model.is_present(lane.domid):
                self.ask_after([lane.domid])
            if walk is None:
                self._after_read(lane, path, names is not None)
            elif names is None:
                walk.absent(path)
            else:
                walk.found(path, names, self._model)
        for lane in batch.taken:
            if self._model.capped(lane.key):
                self._left_out(lane)
        for lane in self._failing:
            lane.capped_due = now + self._config.capped_interval
            self._later[lane] = None
        self._failing.clear()
        for lane in {lane: None for lane, walk, _ in batch.items if walk is not None}:
            for walk in [walk for walk in lane.walks if walk.done]:
                lane.walks.remove(walk)
                found += self._after_walk(lane, walk, now)
        return found

    def _after_read(self, lane: Lane, path: str, there: bool) -> None:  # noqa: FBT001 - what the read showed
        if not there:
            return
        if not self._model.knows(path):
            self._left_out(self._home(path))
        elif path != self._root_of(path) and not self._model.knows(above := parent(path)):
            # It was made between the two reads.
            self.number += 1
            lane.dirty.setdefault(above, self.number)
            self._busy[lane] = None

    def _after_walk(self, lane: Lane, walk: Walk, now: float) -> list[Observation]:
        if not walk.whole:
            if walk.left:
                self._left_out(self._home(walk.root))
            return []
        lane.pending = False
        lane.walked = now
        if lane.key == "/libxl":
            self.hinted |= {int(name) for name in self._model.children("/libxl") if is_domid(name)} - self.lanes.keys()
        if lane.shedding is not None and lane.shedding.read(walk.changes, now):
            self.restored.append(lane)
            lane.bucket = self._bucket(lane.key, now)
        return [Left(lane.key, walk.left)]

    # -- budgets and caps

    def _bucket(self, key: Key, now: float) -> Bucket | None:
        # The host's own trees are the toolstack's alone; their share in each round is bound enough.
        if not isinstance(key, int):
            return None
        config = self._config
        if key == 0:
            return Bucket(config.dom0_burst, config.dom0_rate, now)
        return Bucket(config.guest_burst, config.guest_rate, now)

    def _spent(self, lane: Lane, now: float) -> bool:
        if lane.bucket is None or lane.pending or lane.shedding is not None or lane.bucket.level(now) > 0:
            return False
        return bool(lane.dirty) or any(not walk.started for walk in lane.walks)

    def _shed(self, lane: Lane, now: float) -> None:
        lane.shedding = Shedding(self._config.pace, now, len(lane.dirty))
        foreign = self._foreign(lane)
        lane.clear()
        lane.dirty.update(foreign)
        self._later[lane] = None
        self.shed.append(lane)
        self._counters["source.floods"] += 1

    def _foreign(self, lane: Lane) -> list[tuple[str, int]]:
        """What the lane still has to read in trees of others: its backends, which its own walk does not meet."""
        asked = [*lane.dirty.items(), *((walk.root, walk.number) for walk in lane.walks if not walk.whole)]
        return [(path, number) for path, number in asked if self._root_of(path) != lane.root]

    def _left_out(self, lane: Lane | None) -> None:
        """Something of the lane does not fit: read it whole, at once if that is news, else at a slow pace."""
        if lane is None:
            return
        lane.capped_due = lane.walked + (self._config.capped_interval if self._model.capped(lane.key) else 0)
        self._later[lane] = None

    def _wake_late(self, now: float) -> None:
        for lane in list(self._later):
            if lane.shedding is not None:
                if lane.shedding.due <= now and not lane.walks:
                    self.walk(lane)
            elif lane.capped_due is None:
                del self._later[lane]
            elif lane.capped_due <= now:
                lane.capped_due = None
                self.walk(lane)

    # -- which lane

    def _lane_of(self, path: str) -> Lane | None:
        parts = path.split("/", 7)
        if parts[1:3] == ["local", "domain"] and len(parts) > 3 and is_domid(parts[3]):
            backend = len(parts) > 6 and parts[3] == "0" and parts[4] == "backend"
            if backend and is_domid(parts[6]) and int(parts[6]) in self.lanes:
                return self.lanes[int(parts[6])]
            return self.lanes.get(int(parts[3]))
        if parts[1] == "libxl" and len(parts) > 2 and is_domid(parts[2]) and int(parts[2]) not in self.lanes:
            self.hinted.add(int(parts[2]))
        return self.lanes.get(self._root_of(path))

    def _home(self, path: str) -> Lane | None:
        """The lane whose own walk meets ``path``, and whose caps it is under; not always the one on whose account it is read."""
        root = self._root_of(path)
        key: Key = int(root.rsplit("/", 1)[1]) if root.startswith(f"{DOMAINS}/") else root
        return self.lanes.get(key)

    def _root_of(self, path: str) -> str:
        """The root of the tree that is watched and holds ``path``."""
        if path.startswith(f"{DOMAINS}/"):
            return "/".join(path.split("/", 4)[:4])
        return next((tree for tree in self._config.trees if covers(tree, path)), path)

    def _walk(self, lane: Lane, path: str, number: int, *, whole: bool) -> Walk:
        return Walk(path, self._areas if lane.domid is not None else _ALL, whole=whole, number=number)


def _failed(answer: object) -> bool:
    """Whether xenstored failed to answer, rather than said that there is nothing, or nothing for us."""
    return isinstance(answer, ServerError) and not isinstance(answer, NotFoundError | AccessError)


def value_of(path: str, raw: bytes, redaction: Redaction, limit: int) -> Value:
    """What is kept of the value ``raw``: a digest of a secret; else at most ``limit`` bytes, whole characters where it is text."""
    if redaction.covers(path):
        return Value(path, redaction.digest(raw), 0, secret=True)
    if len(raw) <= limit:
        return Value(path, raw, len(raw))
    kept = raw[:limit]
    with suppress(UnicodeDecodeError):
        raw.decode()
        kept = kept.decode(errors="ignore").encode()
    return Value(path, kept, len(raw))
