"""The simulated host: a xenstored on DIR/socket, and guests that live on it.

    async with Host(directory, guests=5) as host:
        ...                                  # XENSTORED_PATH=DIR/socket xenstore-ls

A later part of the room, the hypervisor (states of domains, time of vCPUs), will stand between the toolstack and the
store: what now tells the store of births and deaths directly (`Toolstack.create`, `ended`, `destroy`) will go by it.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from xenmesh.sim.guests.life import Pace
from xenmesh.sim.guests.population import Population
from xenmesh.sim.xenstored.daemon import Daemon
from xenmesh.sim.xenstored.dialect import DIALECTS
from xenmesh.sim.xenstored.faults import Faults
from xenmesh.sim.xenstored.store import Store

__all__ = ["Host", "Status"]


@dataclass(frozen=True)
class Status:
    """How the host does. `rate`: requests a second since the status before; `time`: of the guests, in seconds."""

    guests: int
    alive: int
    domains: int
    connections: int
    requests: int
    rate: float
    time: float

    def __str__(self) -> str:
        return (
            f"{self.alive} of {self.guests} guests alive, {self.connections} connections, "
            f"{self.requests} requests ({self.rate:.0f}/s), {self.time:.0f} s of guest time"
        )


class Host:
    """A host without Xen.

    `guests` live `speed` times as fast as time goes by; `seed` settles their lives. `server`: "c" or "ocaml" (as 4.17),
    "c-4.23" or "ocaml-fork" (ValueError where one of these cannot be). `guests=0` is a xenstored as it is on a host that has just started.
    """

    def __init__(
        self,
        directory: Path | str,
        guests: int = 0,
        speed: float = 1.0,
        seed: int = 0,
        server: Literal["c", "ocaml", "c-4.23", "ocaml-fork"] = "c",
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if guests < 0 or speed <= 0:
            raise ValueError("guests must not be negative, speed must be above 0")
        if server not in DIALECTS:
            raise ValueError(f"server must be one of {', '.join(DIALECTS)}")
        self.directory = Path(directory)
        self._speed = speed
        self._clock = clock
        self._guests = guests
        self.daemon = Daemon(self.directory, DIALECTS[server])
        self.population = Population(self.store, guests, seed, pace)
        self._group: asyncio.TaskGroup | None = None
        self._living: asyncio.Task[None] | None = None
        self._last = (clock(), self.store.requests)

    @property
    def socket(self) -> Path:
        """Of dom0: a client's XENSTORED_PATH."""
        return self.daemon.path

    @property
    def store(self) -> Store:
        """The xenstored's engine."""
        return self.daemon.store

    @property
    def faults(self) -> Faults:
        """What goes wrong on the wire."""
        return self.daemon.faults

    async def __aenter__(self) -> Self:
        """Open the socket and let the guests live. Raises PathTooLong, SocketInUse, SocketRefused.

        What ends the guests' lives, a fault of ours, ends the block too, as an ExceptionGroup.
        """
        await self.daemon.listen()
        self._group = await asyncio.TaskGroup().__aenter__()
        self._living = self._group.create_task(self.population.run(self._speed))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._living is not None and self._group is not None:
                self._living.cancel()
                if error is None or isinstance(error, asyncio.CancelledError):
                    await self._group.__aexit__(kind, error, trace)
                else:  # the block's own error goes on as it is
                    await self._group.__aexit__(None, None, None)
        finally:
            self._living = self._group = None
            await self.daemon.close()

    async def run_forever(self, report: Callable[[Status], None] | None = None, every: float = 5.0) -> None:
        """Go on until cancelled; `report` is given the status `every` so many seconds.

        Call it inside `async with`; RuntimeError otherwise.
        """
        if self._living is None:
            raise RuntimeError("the host is not open: use `async with`")
        while True:
            await asyncio.sleep(every)
            if report is not None:
                report(self.status())

    def status(self) -> Status:
        """Return how the host does now."""
        now, requests = self._clock(), self.store.requests
        then, before = self._last
        self._last = (now, requests)
        return Status(
            guests=self._guests,
            alive=self.population.alive,
            domains=len(self.store.domains) - 1,
            connections=len(self.store.clients),
            requests=requests,
            rate=(requests - before) / (now - then) if now > then else 0.0,
            time=self.population.now,
        )
