"""All that a mesh says, as one stream: each service's snapshot and events, and what the services say of themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio
import msgspec
from anyio.abc import TaskStatus
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from xenmesh.bus.consumer import Followed, follow
from xenmesh.bus.message import BusState, Message
from xenmesh.schemas import EVENTS, subjects
from xenmesh.schemas.envelope import Envelope, Event, Item, Unknown, decode
from xenmesh.schemas.service import Source, Started, Stopping
from xenmesh.schemas.subjects import VIEW, Declaration

from .context import Mesh
from .selection import overlap

__all__ = ["Gap", "Told", "has_snapshot", "listen", "may_hear", "subject_of"]


class Gap(NamedTuple):
    """Something was said and not heard, and there is no snapshot that would mend it."""

    why: str


class Told(NamedTuple):
    """One thing that one service told."""

    service: str
    subject: str
    """Of an event, below the host's prefix; empty for anything else, and for events of a type unknown here."""

    what: Followed | Gap


def subject_of(service: str, item: Item) -> str:
    """Under which subject ``service`` said this, below the host's prefix; empty where that cannot be told."""
    match item:
        case Unknown():
            return ""
        case Started() | Stopping() | Source():
            return subjects.own(service, item)
        case Event():
            try:
                return subjects.of(item)
            except (TypeError, ValueError):
                return ""


@asynccontextmanager
async def listen(
    mesh: Mesh, services: Iterable[Declaration], *, owner: str | None = None, streams: bool = True, own: bool = True
) -> AsyncIterator[AsyncIterator[Told]]:
    """All that ``services`` say from now on; of those that have a snapshot, that first.

    The order within a service is kept. Whoever reads too slowly is told so by a `Snapshot` or a `Gap`, never skipped in silence.
    ``owner``: only this owner's part (``store.5``). ``streams`` and ``own`` False leave out the services' streams, and what they say of
    themselves (``evt.service.<name>.>``), which is being heard when the block begins.
    """
    send, receive = anyio.create_memory_object_stream[Told](0)
    async with anyio.create_task_group() as group, send, receive:
        for service in services:
            if streams and has_snapshot(service) and may_hear(mesh, service):
                group.start_soon(_follow, mesh, service, owner, send.clone())
            if own:
                await group.start(_own, mesh, service.name, send.clone())
        yield receive
        group.cancel_scope.cancel()


def has_snapshot(service: Declaration) -> bool:
    """Whether the service has a state that can be followed."""
    return any(verb.name == "snapshot" for verb in service.verbs)


def may_hear(mesh: Mesh, service: Declaration) -> bool:
    """Whether the bus lets this user hear the service's stream: view hears the public classes alone."""
    return mesh.target.user != VIEW or any(overlap(service.stream, each) for each in subjects.PUBLIC_CLASSES)


async def _follow(mesh: Mesh, service: Declaration, owner: str | None, send: MemoryObjectSendStream[Told]) -> None:
    async with send, follow(mesh.bus, mesh.host, service, owner=owner) as items:
        async for item in items:
            subject = subject_of(service.name, item.event) if isinstance(item, Envelope) else ""
            await send.send(Told(service.name, subject, item))


async def _own(mesh: Mesh, service: str, send: MemoryObjectSendStream[Told], *, task_status: TaskStatus[None]) -> None:
    """What a service says of itself: ``evt.service.<name>.>``, which is no part of its stream."""
    async with send:
        prefix = subjects.prefix(mesh.host)
        heard_first = False
        while True:
            heard, take = anyio.create_memory_object_stream[Message | str](2000)

            def hear(message: Message, heard: MemoryObjectSendStream[Message | str] = heard) -> None:
                _offer(heard, message)

            def cut(heard: MemoryObjectSendStream[Message | str] = heard) -> None:
                _offer(heard, "too slow")

            def changed(state: BusState, heard: MemoryObjectSendStream[Message | str] = heard) -> None:
                if state is BusState.UP:
                    _offer(heard, "reconnect")

            subscription = await mesh.bus.subscribe(f"{prefix}.evt.service.{service}.>", hear, on_cut=cut)
            forget = mesh.bus.on_state(changed)
            if not heard_first:
                task_status.started()
                heard_first = True
            try:
                why = await _pass_on(service, take, send)
            finally:
                forget()
                await subscription.close()
                heard.close()
                take.close()
            await send.send(Told(service, "", Gap(why)))


def _offer(heard: MemoryObjectSendStream[Message | str], what: Message | str) -> None:
    try:
        heard.send_nowait(what)
    except anyio.WouldBlock:
        heard.close()  # what is in it is read, then the reader finds its end
    except (anyio.ClosedResourceError, anyio.BrokenResourceError):
        pass


async def _pass_on(service: str, take: MemoryObjectReceiveStream[Message | str], send: MemoryObjectSendStream[Told]) -> str:
    """Until the subscription must be made again; returns why."""
    newest: dict[tuple[str, str], int] = {}
    async for message in take:
        if isinstance(message, str):
            return message
        try:
            event = decode(message.data, EVENTS)
        except msgspec.DecodeError:
            continue  # not an event: nobody but the service may publish there, so this is a bug that its own tests must find
        subject = subjects.below(message.subject)
        key = (event.boot, subjects.owner_of(subject))
        if event.prev > newest.get(key, event.prev):
            await send.send(Told(service, "", Gap("gap")))
        newest[key] = event.seq
        await send.send(Told(service, subject, event))
    return "too slow"
