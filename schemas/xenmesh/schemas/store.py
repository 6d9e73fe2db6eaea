"""What the store service says: xenstore's nodes and domains, as events, as a snapshot, and as answers.

A snapshot is made of the same structs as the events: apply each `DomainSeen`, `Changed` and `Capped` of the snapshot to an empty state,
then the events after it, and the state is the service's own. Values and names come from guests: they are untrusted text.
"""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

from .envelope import Event
from .request import Query

__all__ = [
    "AREAS",
    "Area",
    "Capped",
    "Changed",
    "DomainGone",
    "DomainSeen",
    "Flooding",
    "Limit",
    "List",
    "Listing",
    "Node",
    "Perms",
    "PermsOf",
    "Read",
    "Removed",
    "StoreEvent",
]

Area = Literal[
    "attr", "backend", "console", "control", "cpu", "data", "device", "device-model", "domain", "drivers", "error", "feature", "hvmloader",
    "image", "libxl", "memory", "messages", "platform", "rrd", "self", "store", "tool", "vm", "vm-data", "xenserver", "other",
]  # fmt: skip
"""Where a node lies: the first element below ``/local/domain/N`` when it is one of these, ``self`` for that node itself and its leaf keys
(name, domid, vm, ...), ``libxl`` and ``vm`` and ``tool`` for the trees of that name, ``domain`` for the domain's own coming and going,
``other`` for the rest. The list is closed: a guest's own words never become part of a subject."""

AREAS: tuple[Area, ...] = Area.__args__  # type: ignore[attr-defined]


class Changed(Event, frozen=True, kw_only=True, tag="store.changed"):
    """A node has this value now. Said again when it is written again with the same value? No: only what changed is said."""

    domid: int | None
    """The domain whose tree it is in; None for the host's own (``/vm``, ``/tool``)."""

    uuid: str | None
    """That domain's uuid, as its ``vm`` key names it; None when not known (yet)."""

    path: str
    """Absolute path; ASCII (xenstore allows no other)."""

    value: str | None
    """The value as text; None when it is not UTF-8 (see ``raw``) or was redacted."""

    raw: bytes | None = None
    """The value, base64, when it is not UTF-8."""

    size: int = 0
    """Bytes of the whole value; larger than what is given here when it was cut at the configured limit."""

    redacted: bool = False
    """A secret (a VNC password and the like): that it changed is told, what it is is not."""


class Removed(Event, frozen=True, kw_only=True, tag="store.removed"):
    """A node is gone, and with it all that was below it; or it has outgrown its cap, which `Capped` tells, and is no longer read."""

    domid: int | None
    uuid: str | None
    path: str


class DomainSeen(Event, frozen=True, kw_only=True, tag="store.domain"):
    """A domain as xenstore knows it; said when it appears and whenever one of these facts changes."""

    domid: int
    uuid: str | None
    """From ``/local/domain/N/vm``. Two living domids may have one uuid: a reboot or a migration to the same host."""

    introduced: bool
    """xenstored holds a connection for it; False while the toolstack is still building it."""

    generation: int
    """Counted per domid: a domid that is used again has another generation, and is another domain."""

    missing: bool = False
    """xenstored was lost and came back without it. Its nodes are removed, since the store has none; whether the domain lives, only the
    hypervisor knows. It stays so until the store has it again, or has another under its domid (then `DomainGone` is said of this one)."""


class DomainGone(Event, frozen=True, kw_only=True, tag="store.gone"):
    """The domain has left xenstore: it was there on this connection, and has now neither a node nor an introduction. Never said because xenstored
    was lost or came back empty: see ``DomainSeen.missing`` and `xenmesh.schemas.service.Source`."""

    domid: int
    uuid: str | None
    generation: int


class Limit(enum.Enum):
    """Which cap cut a subtree."""

    NODES = "nodes"
    BYTES = "bytes"
    CHILDREN = "children"
    DEPTH = "depth"


class Capped(Event, frozen=True, kw_only=True, tag="store.capped"):
    """A subtree of a domain is larger than its cap, and what lies beyond is not read. ``limit`` None: it is whole again."""

    domid: int | None
    uuid: str | None
    area: Area
    limit: Limit | None
    left_out: int
    """Nodes known to exist and not read."""


class Flooding(Event, frozen=True, kw_only=True, tag="store.flooding"):
    """A domain writes faster than its budget: its own events are late (it is read at a slow pace) until it is quiet. Nobody else's are."""

    domid: int
    uuid: str | None
    active: bool
    """False: it is quiet again, and read as any other."""

    dropped: int
    """Watch events that were folded together since it began."""


class Read(Query, frozen=True, kw_only=True, omit_defaults=True):
    """``q.store.read``: the value of one node, as xenstored has it now. Answered by `Node`."""

    path: str


class List(Query, frozen=True, kw_only=True, omit_defaults=True):
    """``q.store.list``: names of the children of one node. Answered by `Listing`."""

    path: str


class PermsOf(Query, frozen=True, kw_only=True, omit_defaults=True):
    """``q.store.perms``: who may read and write one node. Answered by `Perms`."""

    path: str


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One node's value; the fields as in `Changed`."""

    path: str
    value: str | None
    raw: bytes | None = None
    size: int = 0
    redacted: bool = False


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """The children of one node, in xenstored's order."""

    path: str
    names: list[str]
    truncated: bool = False
    """True when xenstored could not list them all (no DIRECTORY_PART)."""


class Perms(msgspec.Struct, frozen=True, kw_only=True):
    """Permissions of one node: each a letter (r, w, b, n) and a domid; the first names the owner and everybody's default."""

    path: str
    perms: list[str]


StoreEvent = Changed | Removed | DomainSeen | DomainGone | Capped | Flooding
"""All that the store service says of xenstore; `Flooding` goes on ``evt.service.store.flooding``, the others on ``store.>``."""
