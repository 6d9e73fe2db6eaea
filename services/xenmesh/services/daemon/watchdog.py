"""When a process may tell systemd that it is alive.

The rule. Every quarter of WatchdogSec, each connection that a service works with makes a real round trip over its own read path (`Proof.alive`).
If no answer comes, a newcomer knocks at the same peer over a fresh connection (`Proof.knock`):

* the newcomer gets an answer and the service does not: the service is hung; no sign of life is given;
* the newcomer gets none either: the peer is away (or hung itself), and to go on reconnecting is all that a service can do; it is alive.

One missed sign is harmless: a connection that was just about to come back has three tries within WatchdogSec. An event loop that stands
still gives no sign at all. While starting, the same proofs extend the time that systemd allows (EXTEND_TIMEOUT_USEC=), so that waiting for a
xenstored that is away is no failure to start, and hanging is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import NamedTuple

import anyio

from .context import Alive

__all__ = ["Proof", "hung", "watch"]

_log = logging.getLogger(__name__)


class Proof(NamedTuple):
    """One connection: whose, to whom, its round trip, and a newcomer's."""

    service: str
    peer: str
    alive: Alive
    knock: Alive


async def answers(ask: Alive, patience: float) -> bool:
    """Whether ``ask`` returned within ``patience`` seconds."""
    with anyio.move_on_after(patience):
        try:
            await ask()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no answer
            _log.debug("no answer: %r", error)
            return False
        return True
    return False


async def hung(proofs: Collection[Proof], patience: float) -> list[Proof]:
    """Those that get no answer where a newcomer does. Takes at most twice ``patience`` seconds."""
    found = []

    async def examine(proof: Proof) -> None:
        if not await answers(proof.alive, patience) and await answers(proof.knock, patience):
            found.append(proof)

    async with anyio.create_task_group() as group:
        for proof in proofs:
            group.start_soon(examine, proof)
    return found


async def watch(proofs: Collection[Proof], interval: float, alive: Callable[[], None]) -> None:
    """Call ``alive`` as often as ``interval`` (WatchdogSec) demands, as long as the rule allows it. ``proofs`` may grow meanwhile. Never ends."""
    told: list[Proof] = []
    while True:
        found = await hung(tuple(proofs), interval / 8)
        if found:
            for proof in found:
                _log.error(
                    "%s gets no answer from %s, where a newcomer does: no sign of life to systemd",
                    proof.service,
                    proof.peer,
                    extra={"service": proof.service},
                )
        else:
            if told:
                _log.warning("all connections answer again, or their peers are away: alive")
            alive()
        told = found
        await anyio.sleep(interval / 16 if found else interval / 4)
