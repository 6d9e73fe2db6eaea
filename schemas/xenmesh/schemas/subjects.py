"""The only place where subjects are spelt, and what each service publishes, hears and answers.

``xen.v1.<host>.<class>...``: the functions here give what follows the host's prefix unless they say otherwise. Bus permissions, AsyncAPI
and the documentation are generated from `DECLARATIONS`. Identifiers are uuids and domids; no text of a guest and no name ever is a token.
"""

from __future__ import annotations

import re

import msgspec

from . import domain, guest, metrics, request, service, store
from .envelope import Event

__all__ = [
    "ADDRESSES",
    "COMMON",
    "DECLARATIONS",
    "OPERATOR",
    "PUBLIC_CLASSES",
    "VIEW",
    "Declaration",
    "Verb",
    "area_of",
    "audit",
    "below",
    "command",
    "declaration",
    "heartbeat",
    "matches",
    "of",
    "own",
    "owner_of",
    "pattern",
    "prefix",
    "query",
    "state_key",
    "token",
]

ROOT = "xen.v1"
OPERATOR = "operator"
"""The bus user of people who may ask everything and command."""

VIEW = "view"
"""The bus user of consumers that only look: ``evt``, ``state``, ``tele`` and public queries, from an account of its own."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")


def token(text: str) -> str:
    """``text``, if it may be one token of a subject.

    Raises:
        ValueError: it may not; identifiers are made of ``A-Z a-z 0-9 - _``, at most 64 of them.
    """
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"{text!r} cannot be part of a subject: use letters, digits, '-' and '_', at most 64")
    return text


def prefix(host: str) -> str:
    """``xen.v1.<host>``; ``*`` stands for every host."""
    return f"{ROOT}.{host if host == '*' else token(host)}"


def below(subject: str) -> str:
    """What follows the host's prefix: ``xen.v1.h.store.5.data`` -> ``store.5.data``.

    Raises:
        ValueError: not a subject of ours.
    """
    parts = subject.split(".", 3)
    if len(parts) < 4 or f"{parts[0]}.{parts[1]}" != ROOT:
        raise ValueError(f"{subject!r} is not a subject of xenmesh")
    return parts[3]


def matches(pattern: str, subject: str) -> bool:
    """Whether ``subject`` falls under ``pattern`` by NATS's rules (``*`` one token, a last ``>`` one or more)."""
    wanted, given = pattern.split("."), subject.split(".")
    for index, part in enumerate(wanted):
        if part == ">" and index == len(wanted) - 1:
            return len(given) > index
        if index >= len(given) or (part != "*" and part != given[index]):
            return False
    return len(wanted) == len(given)


def owner_of(subject: str) -> str:
    """The owner of an event's subject (without the host's prefix): ``store.5.data`` -> ``store.5``, ``evt.guest.<uuid>.os`` -> ``evt.guest.<uuid>``.

    Raises:
        ValueError: not the subject of an event.
    """
    parts = subject.split(".")
    if parts[0] == "store" and len(parts) == 3:
        return ".".join(parts[:2])
    if parts[0] == "evt" and len(parts) == 4:
        return ".".join(parts[:3])
    if parts[0] == "evt" and len(parts) == 3 and parts[1] == "host":
        return "evt.host"
    raise ValueError(f"{subject!r} is not the subject of an event")


def area_of(path: str) -> tuple[int | None, store.Area]:
    """Whose node an absolute xenstore path is, and where: ``/local/domain/5/data/os_name`` -> ``(5, "data")``.

    Guests' own words never come out of here: an element that is not an area gives ``other``.
    """
    parts = path.split("/")
    match parts[1:]:
        case ["local", "domain", number, *rest] if number.isascii() and number.isdigit() and len(number) <= 5:
            domid = int(number)
            if not rest:
                return domid, "self"
            if rest[0] in _DOMAIN_AREAS:
                return domid, rest[0]
            return domid, "self" if len(rest) == 1 else "other"
        case ["libxl", number, *_] if number.isascii() and number.isdigit() and len(number) <= 5:
            return int(number), "libxl"
        case ["vm", *_]:
            return None, "vm"
        case ["tool", *_]:
            return None, "tool"
        case ["libxl", *_]:
            return None, "libxl"
        case _:
            return None, "other"


_DOMAIN_AREAS = frozenset(store.AREAS) - {"self", "other", "domain", "libxl", "vm", "tool"}


def of(event: Event) -> str:
    """Under which subject (below the host's prefix) an event is said, but for those of a service on itself: see `own`.

    Raises:
        TypeError: that type has no place in the order of events.
    """
    match event:
        case store.Changed(path=path) | store.Removed(path=path):
            domid, area = area_of(path)
            return f"store.{'host' if domid is None else domid}.{area}"
        case store.DomainSeen(domid=domid) | store.DomainGone(domid=domid):
            return f"store.{domid}.domain"
        case store.Capped(domid=None):
            return "store.host.domain"
        case store.Capped(domid=domid):
            return f"store.{domid}.domain"
        case store.Flooding():
            return "evt.service.store.flooding"
        case domain.Lifecycle(uuid=uuid):
            return f"evt.domain.{token(uuid)}.lifecycle"
        case domain.Vanished(uuid=uuid):
            return f"evt.domain.{token(uuid)}.vanished"
        case domain.Task(id=task, phase=phase):
            return f"evt.task.{token(task)}.{phase.value}"
        case guest.GuestChanged(uuid=uuid, area=area):
            return f"evt.guest.{token(uuid)}.{token(area)}"
        case _:
            raise TypeError(f"{type(event).__name__} has no subject of its own")


ADDRESSES: dict[type[Event], str] = {
    store.Changed: "store.{domid}.{area}",
    store.Removed: "store.{domid}.{area}",
    store.DomainSeen: "store.{domid}.domain",
    store.DomainGone: "store.{domid}.domain",
    store.Capped: "store.{domid}.domain",
    store.Flooding: "evt.service.store.flooding",
    service.Started: "evt.service.{service}.started",
    service.Stopping: "evt.service.{service}.stopping",
    service.Source: "evt.service.{service}.source",
    service.ServiceState: "state.service.{service}",
    service.Audit: "audit.{service}.{verb}",
    domain.Lifecycle: "evt.domain.{uuid}.lifecycle",
    domain.Vanished: "evt.domain.{uuid}.vanished",
    domain.Task: "evt.task.{task}.{phase}",
    domain.Domain: "state.domain.{uuid}",
    guest.GuestChanged: "evt.guest.{uuid}.{area}",
    guest.GuestInfo: "state.guest.{uuid}",
    metrics.Sample: "tele.{owner}",
    metrics.Columns: "tele.{owner}",
}
"""Where each type is said, with its parameters named; what `of` makes of one always fits. For documents and for consumers' patterns."""


def pattern(kind: type[Event]) -> str:
    """The pattern of all subjects of that type: ``store.*.domain``."""
    return re.sub(r"\{\w+\}", "*", ADDRESSES[kind]).replace("tele.*", "tele.>")


def own(name: str, event: service.ServiceEvent) -> str:
    """Under which subject the service ``name`` says this of itself: ``evt.service.store.started``."""
    what = type(event).__struct_config__.tag.split(".")[1]  # type: ignore[union-attr]
    return f"evt.service.{token(name)}.{what}"


def query(name: str, verb: str) -> str:
    """``q.<service>.<verb>``."""
    return f"q.{token(name)}.{token(verb)}"


def command(user: str, name: str, verb: str) -> str:
    """``cmd.<user>.<service>.<verb>``: a bus user may publish under its own name only."""
    return f"cmd.{user if user == '*' else token(user)}.{token(name)}.{token(verb)}"


def audit(name: str, verb: str) -> str:
    """``audit.<service>.<verb>``."""
    return f"audit.{token(name)}.{token(verb)}"


def heartbeat(name: str) -> str:
    """``hb.<service>``; ``*`` for all."""
    return f"hb.{name if name == '*' else token(name)}"


def state_key(value: Event) -> str:
    """The key of a state in the bucket, which follows ``state.`` in its subject: ``service.store``, ``domain.<uuid>``.

    Raises:
        TypeError: not a state.
    """
    match value:
        case service.ServiceState(name=name):
            return f"service.{token(name)}"
        case domain.Domain(uuid=uuid):
            return f"domain.{token(uuid)}"
        case guest.GuestInfo(uuid=uuid):
            return f"guest.{token(uuid)}"
        case _:
            raise TypeError(f"{type(value).__name__} is not a state")


class Verb(msgspec.Struct, frozen=True):
    """One request that a service answers."""

    name: str
    request: type[msgspec.Struct]
    result: type[msgspec.Struct]
    public: bool = False
    """The read-only account may ask it. Never true of a command."""

    @property
    def commands(self) -> bool:
        """It changes something, and lives under ``cmd``."""
        return issubclass(self.request, request.Command)


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """All that a service says and takes; subjects without the host's prefix."""

    name: str
    purpose: str
    stream: str
    """The one pattern under which its events of the order stand; a consumer follows it with one subscription."""

    events: tuple[type[Event], ...]
    states: tuple[type[Event], ...] = ()
    publishes: tuple[str, ...] = ()
    """Patterns besides ``stream``, the service's own ``evt.service.<name>.>``, its heartbeat, its audit and its states."""

    hears: tuple[str, ...] = ()
    """Patterns of other services' events that it listens to."""

    asks: tuple[str, ...] = ()
    """Other services' queries that it uses."""

    verbs: tuple[Verb, ...] = ()
    public: frozenset[str] = frozenset()
    built: bool = True
    """False: its shapes are laid down and nobody says them yet."""

    @property
    def says(self) -> tuple[str, ...]:
        """Every pattern it may publish on, below the host's prefix (answers and the state bucket apart)."""
        mine = (
            self.stream,
            f"evt.service.{self.name}.>",
            *self.publishes,
            heartbeat(self.name),
            f"audit.{self.name}.>",
        )
        states = tuple(f"state.{kind}" for kind in _state_kinds(self))
        return tuple(dict.fromkeys((*mine, *states)))

    @property
    def answers(self) -> tuple[Verb, ...]:
        """Its verbs and those of every service."""
        return (*COMMON, *self.verbs)


def _state_kinds(given: Declaration) -> tuple[str, ...]:
    kinds = {domain.Domain: "domain.*", guest.GuestInfo: "guest.*"}
    return (f"service.{given.name}", *(kinds[kind] for kind in given.states if kind in kinds))


COMMON = (
    Verb("health", request.Health, request.HealthReport, public=True),
    Verb("barrier", request.Barrier, request.Position, public=True),
)
"""What every service answers."""

DECLARATIONS: dict[str, Declaration] = {
    given.name: given
    for given in (
        Declaration(
            name="store",
            purpose="The one watcher of xenstore: what changed, with the value read. Reads only.",
            stream="store.>",
            events=(
                store.Changed,
                store.Removed,
                store.DomainSeen,
                store.DomainGone,
                store.Capped,
                store.Flooding,
            ),
            verbs=(
                Verb("snapshot", request.Snapshot, request.SnapshotPage),
                Verb("read", store.Read, store.Node),
                Verb("list", store.List, store.Listing),
                Verb("perms", store.PermsOf, store.Perms),
            ),
        ),
        Declaration(
            name="events",
            purpose="What was kept of the events, for consumers without rights to JetStream.",
            stream="evt.service.events.>",
            events=(),
            verbs=(Verb("since", request.Since, request.SincePage, public=True),),
        ),
        Declaration(
            name="domains",
            purpose="One program for the low-level Xen API.",
            stream="evt.domain.>",
            events=(domain.Lifecycle, domain.Vanished, domain.Task),
            states=(domain.Domain,),
            publishes=("evt.task.>", "evt.host.>", "state.host"),
            verbs=(Verb("snapshot", request.Snapshot, request.SnapshotPage, public=True),),
            built=False,
        ),
        Declaration(
            name="guests",
            purpose="What guest agents write, as typed and trustworthy state.",
            stream="evt.guest.>",
            events=(guest.GuestChanged,),
            states=(guest.GuestInfo,),
            hears=("store.>",),
            asks=("q.store.>",),
            verbs=(Verb("snapshot", request.Snapshot, request.SnapshotPage, public=True),),
            built=False,
        ),
        Declaration(
            name="metrics",
            purpose="Samples of every data source, their history, and OpenMetrics.",
            stream="evt.service.metrics.>",
            events=(),
            publishes=("tele.>",),
            hears=("evt.guest.>",),
            verbs=(Verb("snapshot", request.Snapshot, request.SnapshotPage, public=True),),
            built=False,
        ),
    )
}


def declaration(name: str) -> Declaration:
    """The declaration of the service ``name``.

    Raises:
        KeyError: there is no such service; the error names those that there are.
    """
    try:
        return DECLARATIONS[name]
    except KeyError:
        raise KeyError(f"no service {name!r}; there are: {', '.join(DECLARATIONS)}") from None


PUBLIC_CLASSES = ("evt.>", "state.>", "tele.>", "hb.>")
"""What the read-only account hears; heartbeats, so that it can tell silence from loss."""

TELE = (metrics.Sample, metrics.Columns)
"""What travels on ``tele.>``."""
