"""The store service: xenstored's changes on the bus, and answers from its state.

Source, model and bus in one line: what the source observes, the model turns into events, the bus carries. ``read``, ``list`` and ``perms`` ask
xenstored itself, so they are as new as can be; ``snapshot`` is the model's. Nothing is ever written to xenstore.

What is there when the service starts is not said event by event: a new boot means that a consumer takes the snapshot. After a loss of
xenstored the differences are said.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from importlib.metadata import version
from typing import TypeVar

import anyio

from xenmesh.bus.abc import Bus
from xenmesh.bus.errors import Refused
from xenmesh.bus.service import Caller, Service
from xenmesh.schemas import store as says
from xenmesh.schemas.envelope import Event
from xenmesh.schemas.subjects import declaration
from xenmesh.services.daemon.context import Context
from xenmesh.xen.xenstore import Xenstore
from xenmesh.xenstore.errors import LinkError, ListingError, NotFoundError, PathError, ServerError, UsageError
from xenmesh.xenstore.paths import validate

from .config import StoreConfig
from .model import Model, Observation, Resynced, node_of
from .redaction import Redaction
from .rounds import value_of
from .source import Source

__all__ = ["Answers", "run"]

_log = logging.getLogger(__name__)

RETRY = 1.0
"""Seconds between attempts to reach a xenstored that is not there at the start."""

T = TypeVar("T")


class Answers:
    """What is asked of xenstored itself."""

    def __init__(self, store: Xenstore, model: Model, redaction: Redaction, limit: int) -> None:
        self._store = store
        self._model = model
        self._redaction = redaction
        self._limit = limit

    async def read(self, request: says.Read, _: Caller) -> says.Node:
        """One node's value."""
        path = _path(request.path)
        return node_of(value_of(path, await self._ask(self._store.read, path), self._redaction, self._limit))

    async def list(self, request: says.List, _: Caller) -> says.Listing:
        """The names of one node's children; those that are known where xenstored cannot list them all."""
        path = _path(request.path)
        try:
            return says.Listing(path=path, names=await self._ask(self._store.directory, path))
        except ListingError:
            return says.Listing(path=path, names=list(self._model.children(path)), truncated=True)

    async def perms(self, request: says.PermsOf, _: Caller) -> says.Perms:
        """One node's permissions."""
        path = _path(request.path)
        return says.Perms(path=path, perms=[str(perm) for perm in await self._ask(self._store.get_perms, path)])

    async def _ask(self, ask: Callable[[str], Awaitable[T]], path: str) -> T:
        try:
            return await ask(path)
        except NotFoundError as error:
            raise Refused.of("not-found", what="node", name=path) from error
        except ServerError as error:
            raise Refused.of("store-refused", path=path, errno=error.code) from error
        except UsageError as error:
            raise Refused.of("bad-path", path=path[:80], why=error.sentence) from error
        except ListingError:
            raise
        except LinkError as error:
            raise Refused.of("store-lost") from error


def _path(untrusted_path: str) -> str:
    try:
        path = validate(untrusted_path)
    except PathError as error:
        raise Refused.of("bad-path", path=untrusted_path[:80], why=error.flaw) from error
    if not path.startswith("/"):
        raise Refused.of("bad-path", path=path[:80], why="it must be absolute")
    return path


async def run(bus: Bus, config: StoreConfig, context: Context) -> None:
    """Watch xenstore and serve until ``context.stopped()``; see `xenmesh.services.daemon.context` for the contract."""
    model = Model(config)
    redaction = Redaction(config.secrets, secrets.token_bytes(32))
    service = Service(bus, declaration("store"), context.host, version=version("xenmesh-services"))
    service.snapshot_from(model.cut)

    async def observe() -> None:
        path = None if context.xenstore is None else str(context.xenstore)
        async with (
            _connected(path, context.status) as store,
            Source.open(store, config, model, redaction, service.counters) as source,
        ):
            answers = Answers(store, model, redaction, config.value)
            service.answer("read", answers.read)
            service.answer("list", answers.list)
            service.answer("perms", answers.perms)
            service.barrier_by(source.passed)
            context.prove(source.alive)
            async with aclosing(source.observations()) as observed:
                async for observations in observed:
                    await _take_in(observations, model, service, context)

    async with service.serve(), anyio.create_task_group() as group:
        group.start_soon(observe)
        await context.stopped()
        await service.drain()
        group.cancel_scope.cancel()


async def _take_in(observations: list[Observation], model: Model, service: Service, context: Context) -> None:
    if service.is_ready:
        events: list[Event] = []
        for observation in observations:
            events += model.apply(observation)
        if events:
            await service.emit_all(events)
        if not any(isinstance(event, says.DomainSeen | says.DomainGone) for event in events):
            return
    else:
        for observation in observations:
            model.apply(observation)
        if not any(isinstance(observation, Resynced) for observation in observations):
            return
        await service.ready()
        context.ready()
    count = len(model.domids)
    line = f"{count} domain{'' if count == 1 else 's'}"
    service.status(line)
    context.status(line)


@asynccontextmanager
async def _connected(path: str | None, status: Callable[[str], None]) -> AsyncIterator[Xenstore]:
    """The store, waited for if it is not there: that is no reason to end."""
    told = False
    while True:
        opening = Xenstore.connect(path)
        try:
            store = await opening.__aenter__()
        except LinkError as error:
            if not told:
                told = True
                _log.warning("waiting for xenstored: %s", error)
                status("waiting for xenstored")
            await anyio.sleep(RETRY)
            continue
        try:
            yield store
        finally:
            await opening.__aexit__(None, None, None)
        return
