"""Which domains there are and what they are called, as the store's events tell; so that a name, a domid and a uuid are all accepted.

Pure: feed it every item and event of the store service in order. Names are guests' neighbours' text at best, so they are untrusted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from xenmesh.schemas.envelope import Item
from xenmesh.schemas.store import Changed, DomainGone, DomainSeen

__all__ = ["Domain", "Domains", "is_domid", "is_uuid"]

_NAME = re.compile(r"/local/domain/(\d{1,5})/name")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def is_domid(word: str) -> bool:
    """Whether ``word`` can only be a domid."""
    return word.isascii() and word.isdigit() and len(word) <= 5


def is_uuid(word: str) -> bool:
    """Whether ``word`` is written as a uuid is."""
    return _UUID.fullmatch(word) is not None


@dataclass(frozen=True, slots=True)
class Domain:
    """One domain as xenstore knows it."""

    domid: int
    uuid: str | None = None
    untrusted_name: str | None = None
    introduced: bool = False

    @property
    def label(self) -> str:
        """How people know it: its name, or ``domain 5``."""
        return self.untrusted_name or f"domain {self.domid}"

    def called(self, word: str) -> bool:
        """Whether ``word`` means this domain: its domid, its uuid or its name. A word of digits is a domid first, a name too."""
        if self.uuid is not None and word.lower() == self.uuid.lower():
            return True
        return word in (str(self.domid), self.untrusted_name)


class Domains:
    """The domains that xenstore holds now."""

    def __init__(self) -> None:
        self.by_domid: dict[int, Domain] = {}

    def clear(self) -> None:
        """Forget all, before another snapshot."""
        self.by_domid.clear()

    def apply(self, item: Item) -> None:
        """Take in one item of a snapshot or one event; others than the store's change nothing.

        That its name's node was removed does not take a domain's name away: it is how a domain ends, and its end is yet to be told.
        """
        match item:
            case DomainSeen(domid=domid, uuid=uuid, introduced=introduced):
                known = self.by_domid.get(domid)
                name = known.untrusted_name if known else None
                self.by_domid[domid] = Domain(domid, uuid, name, introduced)
            case DomainGone(domid=domid):
                self.by_domid.pop(domid, None)
            case Changed(path=path, value=value):
                if home := _NAME.fullmatch(path):
                    self._rename(int(home[1]), value or None)
            case _:
                pass

    def _rename(self, domid: int, untrusted_name: str | None) -> None:
        known = self.by_domid.get(domid)
        if known is not None:
            self.by_domid[domid] = Domain(domid, known.uuid, untrusted_name, known.introduced)
        elif untrusted_name is not None:
            self.by_domid[domid] = Domain(domid, None, untrusted_name)

    def called(self, word: str) -> list[Domain]:
        """Those that ``word`` means, by domid if it is one, else by name or uuid; newest domid last."""
        found = [domain for _, domain in sorted(self.by_domid.items()) if domain.called(word)]
        exact = [domain for domain in found if str(domain.domid) == word]
        return exact or found

    def label(self, domid: int | None) -> str:
        """How to show whose it is: ``web-1 (5)``, ``domain 5``, or ``host``."""
        if domid is None:
            return "host"
        known = self.by_domid.get(domid)
        return f"{known.untrusted_name} ({domid})" if known and known.untrusted_name else f"domain {domid}"
