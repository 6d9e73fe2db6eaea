"""What a PATTERN selects: a subject pattern below the host's prefix, or a short word: a service, a domain's name, domid or uuid.

A name and a uuid follow their domain from one domid to the next, over a reboot. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from xenmesh.schemas import domain, guest, store
from xenmesh.schemas.envelope import Item, Unknown
from xenmesh.schemas.subjects import DECLARATIONS, Declaration, matches, of

from .domains import Domains, is_domid

__all__ = ["Selection", "overlap", "parse"]

_CLASSES = frozenset({"evt", "store", "state", "tele", "q", "cmd", "audit", "hb"})


def overlap(one: str, other: str) -> bool:
    """Whether some subject falls under both patterns."""
    left, right = one.split("."), other.split(".")
    for index in range(max(len(left), len(right))):
        a = left[index] if index < len(left) else None
        b = right[index] if index < len(right) else None
        if a is None or b is None:
            return False
        if a == ">" or b == ">":
            return True
        if a != b and "*" not in (a, b):
            return False
    return True


@dataclass(frozen=True, slots=True)
class Selection:
    """Which services to follow, and which of what they say to show."""

    services: tuple[Declaration, ...]
    pattern: str = ">"
    """The subject below the host's prefix must match it."""

    word: str | None = None
    """It must be about the domain of that name, domid or uuid."""

    def shows(self, subject: str | None, item: Item, domains: Domains) -> bool:
        """Whether to show it. ``subject`` is that of the event below the host's prefix; None for an item of a snapshot, which goes by the subject
        under which a change of it would be said. ``domains`` must not yet have forgotten a domain whose end this is."""
        subject = _subject(item) if subject is None else subject
        if subject is not None and not matches(self.pattern, subject):
            return False
        return self.word is None or _about(item, self.word, domains)

    @property
    def kept(self) -> str:
        """The pattern to ask the history for: the part of ``evt`` that may hold what is selected; empty where there is none."""
        if self.word is not None or self.pattern == ">":
            return "evt.>"
        if self.pattern.startswith("evt."):
            return self.pattern
        return "evt.>" if overlap(self.pattern, "evt.>") else ""


def parse(text: str) -> Selection:
    """The selection that ``text`` asks for.

    Raises:
        ValueError: it is a pattern under which no service says anything.
    """
    built = tuple(each for each in DECLARATIONS.values() if each.built)
    if text in {"", ">"}:
        return Selection(built)
    if text in DECLARATIONS:
        return Selection((DECLARATIONS[text],))
    if text in _CLASSES:
        text = f"{text}.>"
    first = text.split(".", maxsplit=1)[0]
    if not (first in _CLASSES or first == "*" or text.endswith(".>")):
        return Selection(built, word=text)
    said = tuple(
        each for each in DECLARATIONS.values() if overlap(text, each.stream) or overlap(text, f"evt.service.{each.name}.>")
    )
    if not said:
        streams = ", ".join(dict.fromkeys((*(each.stream for each in DECLARATIONS.values()), "evt.service.>")))
        raise ValueError(f"nothing is said under {text!r}; there are: {streams}")
    return Selection(tuple(each for each in said if each.built), pattern=text)


def _subject(item: Item) -> str | None:
    """None: nothing of that type is said as an event, or it is not known here."""
    if isinstance(item, Unknown):
        return None
    try:
        return of(item)
    except (TypeError, ValueError):  # a recording may hold anything
        return None


def _about(item: Item, word: str, domains: Domains) -> bool:
    domid, uuid = _whose(item)
    if domid is not None:
        if str(domid) == word:
            return True
        if is_domid(word) and int(word) in domains.by_domid:
            return False
        known = domains.by_domid.get(domid)
        if known is not None and known.called(word):
            return True
    return uuid is not None and (uuid.lower() == word.lower() or any(each.uuid == uuid for each in domains.called(word)))


def _whose(item: Item) -> tuple[int | None, str | None]:
    match item:
        case (
            store.Changed(domid=domid, uuid=uuid)
            | store.Removed(domid=domid, uuid=uuid)
            | store.DomainSeen(domid=domid, uuid=uuid)
            | store.DomainGone(domid=domid, uuid=uuid)
            | store.Capped(domid=domid, uuid=uuid)
            | store.Flooding(domid=domid, uuid=uuid)
        ):
            return domid, uuid
        case domain.Lifecycle(uuid=uuid) | domain.Vanished(uuid=uuid) | domain.Domain(uuid=uuid):
            return None, uuid
        case guest.GuestChanged(uuid=uuid) | guest.GuestInfo(uuid=uuid):
            return None, uuid
        case _:
            return None, None
