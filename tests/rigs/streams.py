"""Recordings of the store service as tests read them, and what anyone makes of its events, from the schemas' docstrings alone."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from xenmesh.bus.recording import Record, read
from xenmesh.schemas import EVENTS
from xenmesh.schemas.envelope import Envelope, Item, decode, decode_item, encode
from xenmesh.schemas.store import Capped, Changed, DomainGone, DomainSeen, Removed

__all__ = ["Published", "Stream", "write_items"]


class Published:
    """The state that the store service's items and events add up to."""

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self.nodes: dict[str, Changed] = {}
        self.domains: dict[int, DomainSeen] = {}
        self.capped: dict[tuple[int | None, str], Capped] = {}
        for item in items:
            self.apply(item)

    def apply(self, item: Item) -> None:
        match item:
            case Changed(path=path):
                self.nodes[path] = item
            case Removed(path=path):
                self.nodes = {each: node for each, node in self.nodes.items() if not f"{each}/".startswith(f"{path}/")}
            case DomainSeen(domid=domid):
                self.domains[domid] = item
            case DomainGone(domid=domid):
                del self.domains[domid]
            case Capped(domid=domid, area=area, limit=None):
                del self.capped[domid, area]
            case Capped(domid=domid, area=area):
                self.capped[domid, area] = item

    def items(self) -> list[Item]:
        """All of it, in one order whatever came first."""
        by_path = [self.nodes[path] for path in sorted(self.nodes)]
        return [
            *(self.domains[domid] for domid in sorted(self.domains)),
            *(self.capped[key] for key in sorted(self.capped, key=str)),
            *by_path,
        ]

    def facts(self) -> list[Item]:
        """`items`, without the uuid that a node was said with: it may be learned only after the node."""
        return [msgspec.structs.replace(item, uuid=None) if isinstance(item, Changed) else item for item in self.items()]

    def values(self) -> dict[str, bytes | None]:
        """Of each node its value; None for a secret."""
        return {
            path: None if node.redacted else node.raw if node.raw is not None else (node.value or "").encode()
            for path, node in self.nodes.items()
        }


@dataclass
class Stream:
    """What the store service said in a recording that begins with its snapshot, as a consumer would take it."""

    host: str = ""
    boot: str = ""
    seq: int = 0
    """Of the snapshot."""

    items: list[Item] = field(default_factory=list)
    """The snapshot."""

    said: list[Envelope[Item]] = field(default_factory=list)
    """What came after it."""

    records: list[Record] = field(default_factory=list)
    """All that was recorded, but for the snapshot."""

    @classmethod
    def load(cls, file: Path) -> "Stream":
        found = cls()
        for record in read(file):
            if record.subject == "xenmesh.snapshot":
                facts = json.loads(record.data)
                if facts["service"] == "store":
                    found.boot, found.seq = facts["boot"], facts["seq"]
            elif record.subject == "xenmesh.item":
                facts = msgspec.json.decode(record.data, type=dict[str, msgspec.Raw])
                if bytes(facts["service"]) == b'"store"':
                    found.items.append(decode_item(bytes(facts["item"]), EVENTS))
            else:
                found.records.append(record)
        for record in found.records:
            if record.subject.split(".")[3] == "store":
                envelope = decode(record.data, EVENTS)
                found.host = envelope.host
                if envelope.boot == found.boot and envelope.seq > found.seq:
                    found.said.append(envelope)
        return found

    def state(self, seq: int | None = None) -> Published:
        """What there is after the event ``seq``, or at the end."""
        published = Published(self.items)
        for envelope in self.said:
            if seq is None or envelope.seq <= seq:
                published.apply(envelope.event)
        return published


def write_items(file: Path, items: Iterable[Item], **facts: object) -> None:
    """A state as `xenmesh record --snapshot` writes one, without times: ``facts`` are boot and seq."""
    lines = [json.dumps({"time": 0, "subject": "xenmesh.snapshot", "event": {"service": "store", **facts}})]
    for item in items:
        said = encode(item).decode()  # type: ignore[arg-type]
        lines.append(f'{{"time":0,"subject":"xenmesh.item","event":{{"service":"store","item":{said}}}}}')
    file.write_text("".join(f"{line}\n" for line in lines))
