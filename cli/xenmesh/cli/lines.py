"""How an event reads on one line: when, who, what. For people; programs get the record itself."""

from __future__ import annotations

import datetime as dt

import msgspec

from xenmesh.schemas import domain, guest, service, store
from xenmesh.schemas.envelope import Item, Unknown

from .domains import Domains
from .output import Span, Style

__all__ = ["clock", "line_of", "name_of", "path_of", "value_of"]

_WHO = 20


def clock(time: float) -> str:
    """Local time of day, to the millisecond; dashes for what is no moment (a recording may hold anything)."""
    try:
        local = dt.datetime.fromtimestamp(time).astimezone()
    except (OverflowError, ValueError, OSError):
        return "--:--:--.---"
    return f"{local:%H:%M:%S}.{local.microsecond // 1000:03d}"


def line_of(time: float | None, item: Item, domains: Domains, *, by: str) -> list[Span | str]:
    """The spans of one event, or of one item of a snapshot (``time`` None). ``by`` is the service that said it."""
    when: list[Span | str] = [] if time is None else [Span(clock(time), Style.DIM), "  "]
    who, style = _who(item, domains, by)
    return [*when, Span(who, style, _WHO), "  ", *_what(item)]


def name_of(item: Item) -> str:
    """What ``-o name`` prints: the path of a node, the domid or uuid of a domain, the name of a service; empty where there is none."""
    match item:
        case store.Changed(path=path) | store.Removed(path=path):
            return path
        case store.DomainSeen(domid=domid) | store.DomainGone(domid=domid) | store.Flooding(domid=domid):
            return str(domid)
        case domain.Lifecycle(uuid=uuid) | domain.Vanished(uuid=uuid) | guest.GuestChanged(uuid=uuid):
            return uuid
        case service.ServiceState(name=name):
            return name
        case _:
            return ""


def value_of(value: str | None, raw: bytes | None, size: int, *, redacted: bool) -> list[Span | str]:
    """A node's value as people read it."""
    if redacted:
        return [Span("(secret)", Style.DIM)]
    if value is not None:
        told = len(value.encode(errors="surrogatepass"))
        return [Span(f"({told} of {size} bytes) ", Style.DIM), f'"{value}"'] if told < size else [f'"{value}"']
    if raw is not None:
        return [Span(f"({size} bytes) ", Style.DIM), raw.hex(" ")]
    return [Span("(not known)", Style.DIM)]


def path_of(path: str) -> list[Span | str]:
    """A path; the part that is the same for all that a domain has steps back."""
    home = "/".join(path.split("/")[:4]) + "/" if path.startswith("/local/domain/") else ""
    return [Span(home, Style.DIM), path[len(home) :]] if home and path.startswith(home) else [path]


def _who(item: Item, domains: Domains, by: str) -> tuple[str, Style]:
    match item:
        case (
            store.Changed(domid=domid)
            | store.Removed(domid=domid)
            | store.DomainSeen(domid=domid)
            | store.DomainGone(domid=domid)
            | store.Capped(domid=domid)
            | store.Flooding(domid=domid)
        ):
            return domains.label(domid), Style.KEY
        case (
            domain.Lifecycle(uuid=uuid) | domain.Vanished(uuid=uuid) | domain.Domain(uuid=uuid) | guest.GuestChanged(uuid=uuid)
        ):
            known = domains.called(uuid)
            return (domains.label(known[-1].domid) if known else uuid), Style.KEY
        case _:
            return by, Style.DIM


def _what(item: Item) -> list[Span | str]:
    match item:
        case store.Changed(path=path, value=value, raw=raw, size=size, redacted=redacted):
            return [*path_of(path), Span(" = ", Style.DIM), *value_of(value, raw, size, redacted=redacted)]
        case store.Removed(path=path):
            return [*path_of(path), Span(" removed", Style.WARN)]
        case store.DomainSeen(uuid=uuid, missing=True):
            why = "xenstored came back without it; whether it lives, only the hypervisor knows"
            return [Span("missing", Style.BAD), f": {why}", Span(f"  {uuid}" if uuid else "", Style.DIM)]
        case store.DomainSeen(uuid=uuid, introduced=introduced, generation=generation):
            state = Span("introduced", Style.GOOD) if introduced else Span("being built", Style.WARN)
            again = [Span(f"  generation {generation}", Style.DIM)] if generation > 1 else []
            return [state, *again, Span(f"  {uuid}" if uuid else "  uuid not known yet", Style.DIM)]
        case store.DomainGone(uuid=uuid):
            return [Span("gone", Style.BAD), Span(f"  {uuid}" if uuid else "", Style.DIM)]
        case store.Capped(area=area, limit=None):
            return [Span(f"{area} is whole again", Style.GOOD)]
        case store.Capped(area=area, limit=store.Limit() as limit, left_out=left_out):
            return [Span(f"{area} is over its cap of {limit.value}; {left_out} nodes are not read", Style.WARN)]
        case store.Flooding(active=True):
            return [Span("floods xenstore: its events are late, nobody else's", Style.BAD)]
        case store.Flooding(dropped=dropped):
            return [Span(f"is quiet again; {dropped} watch events were folded together", Style.GOOD)]
        case service.Started(version=version):
            return [Span("started", Style.GOOD), Span(f"  version {version}", Style.DIM)]
        case service.Stopping(reason=reason):
            return [Span("stopping", Style.WARN), f"  {reason}"]
        case service.Source(source=source, state=service.SourceState.LOST, why=why):
            return [Span(f"lost {source}", Style.BAD), f": {why}"]
        case service.Source(source=source):
            return [Span(f"{source} is back and was read whole", Style.GOOD)]
        case service.ServiceState(ready=ready, status=status):
            return [Span("ready" if ready else "not ready", Style.GOOD if ready else Style.WARN), f"  {status}"]
        case Unknown(type=kind, raw=raw):
            return [Span(f"{kind or 'no type'} ", Style.WARN), raw.decode(errors="replace")]
        case _:
            return [Span(f"{type(item).__struct_config__.tag} ", Style.KEY), msgspec.json.encode(item).decode()]
