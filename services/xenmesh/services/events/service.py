"""The events service: answers ``q.events.since`` from the history of the bus. It holds nothing, so it is ready at once."""

from __future__ import annotations

from importlib.metadata import version

from xenmesh.bus.abc import Bus
from xenmesh.bus.service import Caller, Service
from xenmesh.schemas.request import Since, SincePage
from xenmesh.schemas.subjects import declaration
from xenmesh.services.daemon.context import Context

from .config import EventsConfig
from .model import bounded
from .source import History

__all__ = ["run"]


async def run(bus: Bus, config: EventsConfig, context: Context) -> None:
    """Answer until ``context.stopped()``; see `xenmesh.services.daemon.context` for the contract."""
    service = Service(bus, declaration("events"), context.host, version=version("xenmesh-services"))
    history = History(bus, context.host)

    async def since(asked: Since, _: Caller) -> SincePage:
        return await history.page(bounded(asked, config))

    service.answer("since", since)
    async with service.serve():
        await service.ready()
        context.ready()
        context.status("answering")
        await context.stopped()
