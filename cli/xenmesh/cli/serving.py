"""A recorded stream as a mesh: a bus of its own, on which the recorded services say it all again and answer for their state."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
from contextlib import AsyncExitStack

import anyio
import msgspec

from xenmesh.bus.config import Settings
from xenmesh.bus.keys import key_file
from xenmesh.bus.recording import Record
from xenmesh.bus.recording import replay as again
from xenmesh.bus.server import Server
from xenmesh.bus.service import Cut, Service
from xenmesh.schemas import EVENTS, store
from xenmesh.schemas.envelope import Event, Item, decode, decode_item
from xenmesh.schemas.service import Started, Stopping
from xenmesh.schemas.subjects import DECLARATIONS, ROOT, owner_of

from .context import FILE, Running, Target, default_dir, open_bus
from .errors import CommandError
from .output import Printer, Span, Style
from .place import MARK, absolute, hold
from .records import MARKS
from .replay import Player
from .stream import has_snapshot

__all__ = ["StoreState", "serve"]


class StoreState:
    """What the store service's events add up to: its snapshot. Pure."""

    def __init__(self) -> None:
        self._domains: dict[int, store.DomainSeen] = {}
        self._nodes: dict[str, store.Changed] = {}
        self._capped: dict[tuple[int | None, str], store.Capped] = {}

    def apply(self, item: Item) -> None:
        """One event, or one item of a snapshot."""
        match item:
            case store.DomainSeen(domid=domid):
                self._domains[domid] = item
            case store.DomainGone(domid=domid):
                self._domains.pop(domid, None)
                self._nodes = {path: node for path, node in self._nodes.items() if node.domid != domid}
                self._capped = {key: capped for key, capped in self._capped.items() if key[0] != domid}
            case store.Changed(path=path):
                self._nodes[path] = item
            case store.Removed(path=path):
                self._nodes = {
                    each: node for each, node in self._nodes.items() if each != path and not each.startswith(f"{path}/")
                }
            case store.Capped(domid=domid, area=area, limit=limit):
                self._capped[domid, area] = item
                if limit is None:
                    del self._capped[domid, area]
            case _:
                pass

    def cut(self) -> Cut:
        """The whole of it, by owner."""
        owners: dict[str, list[Event]] = {}
        items: list[store.DomainSeen | store.Changed | store.Capped]
        items = [*self._domains.values(), *self._nodes.values(), *self._capped.values()]
        for item in items:
            owners.setdefault(f"store.{'host' if item.domid is None else item.domid}", []).append(item)
        return {owner: tuple(items) for owner, items in owners.items()}


async def serve(records: list[Record], directory: str | None, speed: float, player: Player, out: Printer) -> None:
    """Be the mesh of the recording until cancelled.

    Raises:
        CommandError: nothing in the recording can be served, or the directory is in use.
        xenmesh.bus.errors.BusError: the bus does not come up.
    """
    place = absolute(directory or default_dir())
    host = _host_of(records)
    with hold(place):
        os.environ[MARK] = str(place)
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(Server(Settings(directory=str(place / "bus"), host=host, port=0)))
            keys = server.settings.keys
            stage = _Stage()
            for record in records:
                stage.prepare(record)
            for name, declared in DECLARATIONS.items():
                if declared.built and has_snapshot(declared):
                    bus = await stack.enter_async_context(open_bus(Target(server.url, name, key_file(keys, name), host, "")))
                    service = Service(bus, declared, host, version=importlib.metadata.version("xenmesh-cli"))
                    service.snapshot_from(stage.state.cut)
                    service.status("replays a recording")
                    await stack.enter_async_context(service.serve())
                    await service.ready()
                    stage.services[name] = service
            running = Running(url=server.url, host=host, keys=str(keys), pid=os.getpid())
            file = anyio.Path(place / FILE)
            await file.write_bytes(msgspec.json.encode(running))
            stack.push_async_callback(file.unlink, missing_ok=True)
            here = "" if place == default_dir() else f" --dir {shlex.quote(str(place))}"
            out.text((Span("The recording is served", Style.BOLD), f" at {server.url}; Ctrl-C ends it."))
            out.text((f"  xenmesh watch{here} --snapshot",))
            out.text((f"  xenmesh wait{here} domain NAME",))
            out.text()

            async def say(subject: str, data: bytes) -> None:
                await player.say(subject, data)
                await stage.say(subject, data)

            await again(player.seen(iter(records)), say, speed=speed)
            out.note(
                f"the recording is over, its last state stands ({stage.left_out} records could not be said); Ctrl-C ends it"
            )
            await anyio.sleep_forever()


def _host_of(records: list[Record]) -> str:
    for record in records:
        parts = record.subject.split(".")
        if ".".join(parts[:2]) == ROOT and len(parts) > 3:
            return parts[2]
    raise CommandError("the recording holds nothing that can be served", "see it with: xenmesh replay FILE")


class _Stage:
    """The services of a recording, and the state they have by now."""

    def __init__(self) -> None:
        self.services: dict[str, Service] = {}
        self.state = StoreState()
        self.left_out = 0

    def prepare(self, record: Record) -> None:
        """Take in a state with which the recording began."""
        if record.subject == f"{MARKS}item":
            facts = msgspec.json.decode(record.data, type=dict[str, msgspec.Raw])
            if "item" in facts:
                self.state.apply(decode_item(bytes(facts["item"]), EVENTS))

    async def say(self, subject: str, data: bytes) -> None:
        """Have the service that said it say it again."""
        if subject.startswith(MARKS):
            return
        try:
            envelope = decode(data, EVENTS)
            owner_of(subject.split(".", 3)[3])
        except (msgspec.DecodeError, ValueError, IndexError):
            self.left_out += 1
            return
        service, event = self.services.get(envelope.service), envelope.event
        if service is None or not isinstance(event, Event):
            self.left_out += 1
        elif not isinstance(event, Started | Stopping):  # these it says of itself now
            self.state.apply(event)
            await service.emit(event, time=envelope.time)
