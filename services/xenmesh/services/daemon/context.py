"""What the daemon gives to a service, and all that a service knows of the daemon.

A service ``store`` is a folder ``xenmesh.services.store`` with

* ``config.py``: one frozen, keyword-only ``StoreConfig(msgspec.Struct, forbid_unknown_fields=True)`` with a default for every
  field: the section ``[store]`` of the configuration;
* ``service.py``: the coroutine ``async def run(bus: Bus, config: StoreConfig, context: Context) -> None``.

``bus`` is connected, is the service's own (its user and permissions), and is closed by the daemon after ``run`` has ended. ``run`` calls
``context.ready()`` when the state is whole and published and requests are taken, works until ``await context.stopped()`` returns, then
drains (refuses new requests, lets the running ones finish, says that it stops) and returns. ``DRAIN`` seconds after the order it is
cancelled. Whatever it raises, and a return without that order, is a crash: the daemon logs it and ends with an exit code, and systemd
starts it again.
A peer that is away (xenstored, the bus) is no reason to end: reconnect.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import anyio

__all__ = ["DRAIN", "Alive", "Context"]

DRAIN = 12.0
"""Seconds that a service has to drain before it is cancelled; systemd's TimeoutStopSec is longer."""

Alive = Callable[[], Awaitable[None]]
"""One real round trip over the very connection and read path that the service works with, such as one read of a node that is always there.
Returns when the answer came; raises or hangs when it did not. Must be safe to cancel."""


def _no_word() -> None:
    pass


def _no_line(line: str) -> None:
    del line


def _no_proof(alive: Alive) -> None:
    del alive


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """A service's surroundings. The defaults do nothing, so that a test needs to give only what it looks at."""

    host: str
    """This host's id, the second part of every subject."""

    state: Path = Path("/var/lib/xenmesh")
    """What must outlive the process is kept here, in files named ``<service>.*`` or a folder ``<service>/``."""

    xenstore: Path | None = None
    """xenstored's socket or device; None: look where libxenstore looks (``$XENSTORED_PATH``, ..., then ``/dev/xen/xenbus``)."""

    stopped: Callable[[], Awaitable[None]] = anyio.sleep_forever
    """Returns when the service is to drain and end; at once if that was ordered already."""

    ready: Callable[[], None] = _no_word
    """Say once that the service takes requests."""

    status: Callable[[str], None] = _no_line
    """What the service is doing, as a few words for ``systemctl status``: ``12 domains``. Cheap: call it as you like."""

    prove: Callable[[Alive], None] = _no_proof
    """Give the watchdog the service's round trip to xenstored. When it fails, the watchdog asks xenstored itself over a connection of its
    own: only a service that gets no answer where a newcomer does is taken for hung; while xenstored is away, reconnecting is all it must do.
    The round trip over the bus is the daemon's own affair."""
