"""A consumer of the store's events that trusts nobody: it keeps the state as the events say, and holds the follower to the gap rule itself.

Not a test: `from mesh.consumer import ...`; tests/ is on the path.
"""

from mesh.running import HOST

from xenmesh.bus.abc import Bus
from xenmesh.bus.consumer import Away, Snapshot, follow
from xenmesh.schemas.envelope import Envelope
from xenmesh.schemas.store import Capped, Changed, DomainGone, DomainSeen, Removed
from xenmesh.schemas.subjects import of, owner_of

__all__ = ["REDACTED", "Consumer"]

REDACTED = "(redacted)"


class Consumer:
    """Follows the store service, and keeps what it makes of it."""

    def __init__(self) -> None:
        self.nodes: dict[str, str] = {}
        """Path and value; `REDACTED` where it is not told."""

        self.domains: dict[int, DomainSeen] = {}
        self.gone: list[DomainGone] = []
        self.capped: list[Capped] = []
        self.snapshots: list[str] = []
        """Why each was taken."""

        self.aways = 0
        self.events = 0
        self.position = ("", 0)
        """Boot and seq of the newest that was taken in."""

        self._cut = 0
        self._newest: dict[str, int] = {}

    async def follow(self, bus: Bus) -> None:
        """For ever."""
        async with follow(bus, HOST, "store") as followed:
            async for item in followed:
                match item:
                    case Snapshot():
                        self._begin(item)
                    case Envelope():
                        self._check(item)
                        self.events += 1
                        self._apply(item.event)
                    case Away():
                        self.aways += 1

    def has_reached(self, boot: str, seq: int) -> bool:
        """Whether all up to there was taken in."""
        return self.position[0] == boot and self.position[1] >= seq

    def _begin(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot.why)
        self.position = (snapshot.boot, snapshot.seq)
        self._cut = snapshot.seq
        self._newest.clear()
        self.nodes.clear()
        self.domains.clear()
        for item in snapshot.items:
            self._apply(item)

    def _check(self, said: Envelope[object]) -> None:
        """The gap rule, written down a second time: what follows a snapshot follows it without a hole."""
        owner = owner_of(of(said.event))  # type: ignore[arg-type]
        boot, seq = self.position
        assert said.boot == boot, "another boot without a snapshot"
        assert said.seq > seq, "an event twice, or out of order"
        assert said.prev <= max(self._cut, self._newest.get(owner, 0)), f"{owner}: an event is missing before {said.seq}"
        self._newest[owner] = said.seq
        self.position = (said.boot, said.seq)

    def _apply(self, item: object) -> None:
        match item:
            case Changed(path=path, value=value, raw=raw, redacted=redacted):
                assert raw is None, "these tests write text"
                self.nodes[path] = REDACTED if redacted else value or ""
            case Removed(path=path):
                below = f"{path}/"
                self.nodes = {each: value for each, value in self.nodes.items() if each != path and not each.startswith(below)}
            case DomainSeen(domid=domid):
                self.domains[domid] = item
            case DomainGone(domid=domid):
                self.gone.append(item)
                self.domains.pop(domid, None)
            case Capped():
                self.capped.append(item)
            case _:
                raise AssertionError(f"not of the store: {item!r}")
