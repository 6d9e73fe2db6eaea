"""Several services in one process: each on its own bus connection, started together, ready together, drained together.

One service that fails ends them all: what is left runs into the drain, and the process ends with the failure, so that systemd starts a whole
one again. What the services say of themselves goes to systemd as one status line.
"""

from __future__ import annotations

import gc
import importlib
import logging
import signal
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path
from typing import cast

import anyio
import msgspec
from anyio import CancelScope

from xenmesh.bus.abc import Bus
from xenmesh.bus.errors import BusError, KeyFileError
from xenmesh.bus.message import BusState

from . import knock
from .config import Config
from .context import DRAIN, Alive, Context
from .errors import BusAway, CredentialError, DaemonError, ServiceFailed
from .journal import SERVICE
from .systemd import Notifier
from .watchdog import Proof, watch

__all__ = ["Connect", "Process", "Run", "service"]

_log = logging.getLogger(__name__)

Run = Callable[[Bus, msgspec.Struct, Context], Awaitable[None]]
"""A service's coroutine, as `context` describes it."""

Connect = Callable[[str], AbstractAsyncContextManager[Bus]]
"""A connection for the bus user of that name, closed at the end; raises `BusError` when there is none to be had in time."""

_STATUS_PAUSE = 1.0  # seconds between two status lines; systemd keeps only the last one


def service(name: str) -> Run:
    """The coroutine of the service ``name``; loads it and what it needs, and nothing else."""
    return cast("Run", importlib.import_module(f"xenmesh.services.{name}.service").run)


class Process:
    """The named services of one configuration. `run` once."""

    def __init__(
        self, runs: dict[str, Run], config: Config, host: str, connect: Connect, notifier: Notifier, interval: float | None
    ) -> None:
        self._runs = runs
        self._config = config
        self._host = host
        self._connect = connect
        self._notifier = notifier
        self._interval = interval
        self._stop = anyio.Event()
        self._news = anyio.Event()
        self._waiting = set(runs)
        self._lines = dict.fromkeys(runs, "starting")
        self._buses: dict[str, Bus] = {}
        self._proofs: list[Proof] = []
        self._scopes: list[CancelScope] = []
        self._failure: DaemonError | None = None

    async def run(self) -> None:
        """Until `stop`, SIGTERM or SIGINT, or a failure; a second signal ends it without draining.

        Raises:
            BusAway: no connection to the bus came about at the start.
            CredentialError: a service's key cannot be used.
            ServiceFailed: a service ended by itself; the others were drained.
        """
        async with anyio.create_task_group() as company:
            company.start_soon(self._heed_signals)
            company.start_soon(self._tell_status)
            if self._interval:
                company.start_soon(watch, self._proofs, self._interval, partial(self._alive, self._interval))
            async with anyio.create_task_group() as services:
                for name, run in self._runs.items():
                    services.start_soon(self._serve, name, run, name=name)
            company.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Order every service to drain. May be called twice."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._notifier.stopping()
        for scope in self._scopes:
            scope.deadline = anyio.current_time() + DRAIN

    async def _serve(self, name: str, run: Run) -> None:
        SERVICE.set(name)
        with CancelScope() as scope:
            self._scopes.append(scope)
            if self._stop.is_set():
                scope.deadline = anyio.current_time() + DRAIN
            try:
                await self._live(name, run)
            except DaemonError as error:
                _log.critical("%s", error.sentence)
                self._fail(error)
            except Exception as error:  # noqa: BLE001 - the seam: whatever a service dies of is logged here and ends the process
                cause = _only(error)
                why = getattr(cause, "sentence", None) or f"{type(cause).__name__}: {cause}"
                _log.critical("failed: %s", why, exc_info=error)
                self._fail(ServiceFailed(name, f"failed: {why}"))
        if scope.cancelled_caught:
            _log.warning("did not drain within %g s: cut short", DRAIN)

    async def _live(self, name: str, run: Run) -> None:
        async with AsyncExitStack() as stack:
            bus = await self._connected(name, stack)
            if bus is None:
                return
            self._buses[name] = bus
            stack.callback(bus.on_state(partial(self._bus_changed, name)))
            self._proofs.append(Proof(name, "the bus", bus.ping, partial(knock.at_bus, self._config.bus.url)))
            await run(bus, self._config.services[name], self._context(name))
            if not self._stop.is_set():
                raise ServiceFailed(name, "ended without being told to")

    async def _connected(self, name: str, stack: AsyncExitStack) -> Bus | None:
        """The service's bus, which ``stack`` closes; None when it is time to end before there is one."""
        bus: Bus | None = None
        failure: DaemonError | None = None

        async def give_up() -> None:
            await self._stop.wait()
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(give_up)
            try:
                bus = await stack.enter_async_context(self._connect(name))
            except KeyFileError as error:
                failure = CredentialError(str(error.facts["file"]), "", str(error.facts["why"]))
            except BusError as error:
                failure = BusAway(error.sentence)
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return bus

    def _context(self, name: str) -> Context:
        path = self._config.xenstore.path
        xenstore = Path(path) if path else None
        return Context(
            host=self._host,
            state=Path(self._config.mesh.state),
            xenstore=xenstore,
            stopped=self._stop.wait,
            ready=partial(self._ready, name),
            status=partial(self._status, name),
            prove=partial(self._prove, name, xenstore),
        )

    def _fail(self, error: DaemonError) -> None:
        self._failure = self._failure or error
        self.stop()

    def _ready(self, name: str) -> None:
        if name not in self._waiting:
            return
        self._waiting.remove(name)
        _log.info("ready")
        if self._lines[name] == "starting":
            self._status(name, "ready")
        if not self._waiting:
            gc.collect()
            gc.freeze()  # what is loaded by now stays: no collection need look at it again
            self._notifier.ready()

    def _prove(self, name: str, xenstore: Path | None, alive: Alive) -> None:
        self._proofs.append(Proof(name, "xenstored", alive, partial(knock.at_xenstored, xenstore)))

    def _alive(self, interval: float) -> None:
        if self._waiting and not self._stop.is_set():
            self._notifier.extend(interval)
        else:
            self._notifier.alive()

    def _status(self, name: str, line: str) -> None:
        if self._lines[name] != line:
            self._lines[name] = line
            self._news.set()

    def _bus_changed(self, name: str, state: BusState) -> None:
        _log.log(logging.INFO if state is BusState.UP else logging.WARNING, "bus %s", state.value, extra={"service": name})
        self._news.set()

    async def _tell_status(self) -> None:
        while True:
            self._notifier.status(self._line())
            await self._news.wait()
            self._news = anyio.Event()
            await anyio.sleep(_STATUS_PAUSE)

    def _line(self) -> str:
        """``12 domains; bus up``; each service under its name if there are several."""
        several = len(self._lines) > 1
        parts = [f"{name}: {line}" if several else line for name, line in self._lines.items()]
        states = {bus.state.value for bus in self._buses.values()} or {"not connected yet"}
        return "; ".join([*parts, f"bus {' and '.join(sorted(states))}"])

    async def _heed_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for received in signals:
                if self._stop.is_set():
                    _log.warning("%s again: ending without draining", received.name)
                    for scope in self._scopes:
                        scope.cancel()
                    continue
                _log.info("%s: draining, for %g s at most", received.name, DRAIN)
                self.stop()


def _only(error: BaseException) -> BaseException:
    """What a group of one holds: task groups wrap even a single failure."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
