"""A mesh for the commands: a real service on a bus in memory, and a printer whose words can be read.

Not a test: `from cli.house import ...`; tests/ is on the path.
"""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from xenmesh.bus.errors import Refused
from xenmesh.bus.memory import MemoryBus, MemoryServer
from xenmesh.bus.service import Limits, Service
from xenmesh.cli.context import Mesh, Target
from xenmesh.cli.output import Mode, Printer, ndjson
from xenmesh.cli.records import event_record
from xenmesh.cli.serving import StoreState
from xenmesh.cli.stream import subject_of
from xenmesh.schemas import store
from xenmesh.schemas.envelope import Envelope, Event
from xenmesh.schemas.subjects import DECLARATIONS, area_of

HOST = "host-1"
UUID = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"


class Heard:
    """A printer, and what it wrote."""

    def __init__(self, mode: Mode, columns: int | None = None) -> None:
        self._stream, self._notes = io.StringIO(), io.StringIO()
        self.printer = Printer(mode, self._stream, self._notes, columns=columns)

    @property
    def out(self) -> str:
        return self._stream.getvalue()

    @property
    def notes(self) -> str:
        return self._notes.getvalue()

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def records(self) -> list[Any]:
        return [json.loads(line) for line in self.lines]


class House:
    """A host: its store service, with nodes that a test writes; and connections to its bus."""

    def __init__(self, server: MemoryServer) -> None:
        self.server = server
        self.nodes: dict[str, str] = {}
        self.state = StoreState()
        self.service: Service | None = None

    def mesh(self, user: str = "operator") -> Mesh:
        bus = MemoryBus(self.server, user=user, host=HOST)
        return Mesh(bus, HOST, Target("memory", user, None, HOST, "memory"))

    @asynccontextmanager
    async def serve(self, *, ready: bool = True) -> AsyncIterator[Service]:
        service = Service(
            MemoryBus(self.server, user="store", host=HOST),
            DECLARATIONS["store"],
            HOST,
            version="1.2.3",
            limits=Limits(heartbeat=0.05),
        )
        service.snapshot_from(self.state.cut)
        service.answer("read", self._read)
        service.answer("list", self._list)
        service.answer("perms", self._perms)
        service.status("tells what a test writes")
        async with service.serve():
            if ready:
                await service.ready()
            self.service = service
            yield service

    async def say(self, *events: Event) -> None:
        """The store service says this."""
        for event in events:
            self.state.apply(event)
            match event:
                case store.Changed(path=path, value=value):
                    self.nodes[path] = value or ""
                case store.Removed(path=path):
                    self.nodes = {each: v for each, v in self.nodes.items() if each != path and not each.startswith(f"{path}/")}
                case _:
                    pass
        assert self.service is not None
        await self.service.emit_all(events)

    async def boot(self, domid: int, name: str, uuid: str = UUID, **keys: str) -> None:
        await self.say(
            store.DomainSeen(domid=domid, uuid=uuid, introduced=True, generation=1), *born(domid, name, uuid, **keys)
        )

    async def _read(self, request: store.Read, caller: object) -> store.Node:
        if request.path not in self.nodes and not self._children(request.path):
            raise Refused.of("not-found", what="node", name=request.path)
        value = self.nodes.get(request.path, "")
        return store.Node(path=request.path, value=value, size=len(value.encode()))

    async def _list(self, request: store.List, caller: object) -> store.Listing:
        names = self._children(request.path)
        if not names and request.path not in self.nodes and request.path != "/":
            raise Refused.of("not-found", what="node", name=request.path)
        return store.Listing(path=request.path, names=names)

    async def _perms(self, request: store.PermsOf, caller: object) -> store.Perms:
        return store.Perms(path=request.path, perms=["n0", "r5"])

    def _children(self, path: str) -> list[str]:
        below = path.rstrip("/") + "/"
        return list(dict.fromkeys(each[len(below) :].split("/")[0] for each in self.nodes if each.startswith(below)))


def changed(path: str, value: str, uuid: str | None = None) -> store.Changed:
    return store.Changed(domid=area_of(path)[0], uuid=uuid, path=path, value=value, size=len(value.encode()))


def born(domid: int, name: str, uuid: str = UUID, **keys: str) -> list[store.Changed]:
    home = f"/local/domain/{domid}"
    given = {"name": name, "vm": f"/vm/{uuid}", **keys}
    return [changed(f"{home}/{key}", value, uuid) for key, value in given.items()]


def lines(*events: Event) -> list[str]:
    """These events as lines of a recording."""
    return [
        ndjson(
            event_record(
                "h",
                subject_of("store", event),
                Envelope(host="h", service="store", boot="b", seq=seq, prev=seq - 1, time=float(seq), event=event),
            )
        )
        for seq, event in enumerate(events, 1)
    ]
