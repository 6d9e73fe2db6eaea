"""A crowd of guests that live on one store, in a settled order: the same seed gives the same writes.

`Population.advance(until)` does everything that is due, without waiting: tests drive it with a time of their own.
`Population.run()` does it as real time goes by, `speed` times as fast.
"""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from heapq import heapify, heapreplace

from xenmesh.sim.guests.agent import GuestSide
from xenmesh.sim.guests.life import Action, Guest, Kind, Pace, guest, live
from xenmesh.sim.guests.toolstack import Domain, Toolstack
from xenmesh.sim.xenstored.errors import Refused
from xenmesh.sim.xenstored.store import Store

__all__ = ["Population"]

_SPREAD, _SPREAD_MOST = 3.0, 20.0
"""Seconds between two guests' first starts, and over all: so that who comes a moment late still sees some of them boot."""

_LONG = 3600.0
_SLICE = 0.005
"""Seconds of work after which others have their turn: the daemon's clients share this loop."""


class _One:
    """One guest with its domain, if it has one now; two while it moves."""

    def __init__(self, who: Guest) -> None:
        self.who = who
        self.domain: Domain | None = None
        self.side: GuestSide | None = None
        self.arriving: Domain | None = None


class Population:
    """`count` guests of `seed` on a store. `now` is their time, in seconds since the start."""

    def __init__(self, store: Store, count: int, seed: int = 0, pace: Pace | None = None) -> None:
        self.now = 0.0
        self.actions = 0
        self.refused = 0
        """Actions of the toolstack that the store refused (after a restart that lost all, or an injected fault)."""
        self.toolstack = Toolstack(store, lambda: self.now)
        self._store = store
        self._everyone = [_One(guest(index, seed)) for index in range(count)]
        spread = min(_SPREAD, _SPREAD_MOST / count) if count else 0.0
        lives = [live(one.who, seed, index * spread, pace) for index, one in enumerate(self._everyone)]
        self._due: list[tuple[float, int, Action, Iterator[Action]]] = []
        for index, life in enumerate(lives):
            action = next(life)
            self._due.append((action.at, index, action, life))
        heapify(self._due)
        self.toolstack.prepare()

    @property
    def alive(self) -> int:
        """How many guests run now."""
        return sum(domain.running for domain in self.toolstack.domains.values())

    @property
    def due(self) -> float | None:
        """When something happens next; None if there are no guests."""
        return self._due[0][0] if self._due else None

    def step(self) -> Action:
        """Do the next action, whenever it is due. Raises IndexError if there are no guests."""
        _, index, action, life = self._due[0]
        self.now = max(self.now, action.at)
        self.actions += 1
        try:
            self._do(self._everyone[index], action)
        except Refused:
            self.refused += 1
        following = next(life)
        heapreplace(self._due, (following.at, index, following, life))
        return action

    def advance(self, until: float) -> int:
        """Do everything due up to a time; return how many actions that were."""
        done = 0
        while self._due and self._due[0][0] <= until:
            self.step()
            done += 1
        self.now = max(self.now, until)
        return done

    async def run(self, speed: float = 1.0) -> None:
        """Let them live, `speed` times as fast as time goes by; for ever."""
        loop = asyncio.get_running_loop()
        start, began = loop.time(), self.now
        while True:
            turn = loop.time()
            now = began + (turn - start) * speed
            while self.due is not None and self.due <= now and loop.time() - turn < _SLICE:
                self.step()
            wait = _LONG if self.due is None else (self.due - now) / speed
            await asyncio.sleep(min(max(0.0, wait), _LONG))

    def _do(self, one: _One, action: Action) -> None:
        match action.kind:
            case Kind.CREATE:
                one.domain = self.toolstack.create(one.who)
            case Kind.ARRIVE:
                one.arriving = self.toolstack.create(one.who, f"{one.who.name}--incoming")
            case Kind.LEAVE:
                self._leave(one)
            case _ if one.domain is not None:
                self._do_to(one, one.domain, action)
            case _:
                pass

    def _do_to(self, one: _One, domain: Domain, action: Action) -> None:
        side = one.side
        match action.kind:
            case Kind.BOOT:
                one.side = GuestSide(self._store, domain)
                self._boot(one.side, domain)
            case Kind.AGENT if side is not None:
                side.start_agent()
            case Kind.ADDRESS if side is not None:
                side.set_address(action.number, action.text)
            case Kind.MEMORY if side is not None:
                side.set_memory(action.number)
            case Kind.ASK_SHUTDOWN if side is not None:
                self.toolstack.ask_shutdown(domain, action.text)
                side.heed()
            case Kind.SHUT_DOWN | Kind.CRASH:
                self._end(one)
                self.toolstack.ended(domain)
            case Kind.DESTROY:
                one.domain = None
                self.toolstack.destroy(domain)
            case _:
                pass

    def _boot(self, side: GuestSide, domain: Domain) -> None:
        side.boot()
        self.toolstack.connect_backends(domain)
        side.connected()

    def _leave(self, one: _One) -> None:
        """End a move: the old domain is suspended, the new one wakes under its name, the old one goes."""
        old, new = one.domain, one.arriving
        one.domain, one.arriving = new, None
        if old is None or new is None:
            return
        self._end(one)
        self.toolstack.ended(old)
        with suppress(Refused):
            self.toolstack.rename(old, f"{one.who.name}--migratedaway")
        one.side = GuestSide(self._store, new)
        self._boot(one.side, new)
        self.toolstack.rename(new, one.who.name)
        one.side.start_agent()
        self.toolstack.destroy(old)

    def _end(self, one: _One) -> None:
        if one.side is not None:
            one.side.close()
            one.side = None
