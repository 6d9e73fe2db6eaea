"""One guest's life as a sequence of timed actions. Pure; the same seed gives the same life.

created -> booting -> running <-> (changes address, uses memory, ...) -> powers off | reboots | crashes | migrates
   ^                                                                         |
   +-------------------------------------------------------------------------+
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from uuid import UUID

__all__ = ["Action", "Guest", "Kind", "Pace", "guest", "live"]


class Kind(StrEnum):
    """What happens."""

    CREATE = "create"
    BOOT = "boot"
    AGENT = "agent"
    ADDRESS = "address"
    MEMORY = "memory"
    ASK_SHUTDOWN = "ask-shutdown"
    SHUT_DOWN = "shut-down"
    CRASH = "crash"
    DESTROY = "destroy"
    ARRIVE = "arrive"
    LEAVE = "leave"


@dataclass(frozen=True)
class Guest:
    """What is fixed about a guest. `memory` in KiB."""

    index: int
    uuid: str
    name: str
    memory: int
    vcpus: int
    macs: tuple[str, ...]
    disks: tuple[str, ...]
    distribution: tuple[str, str, str, str]
    """Of its system: name, id, version, kernel."""


@dataclass(frozen=True)
class Action:
    """Something that happens at a time (seconds since the start). `text`: an address, or why; `number`: KiB, a vif."""

    at: float
    kind: Kind
    text: str = ""
    number: int = 0


@dataclass(frozen=True)
class Pace:
    """How long things take, in seconds; the mean where it varies."""

    build: float = 0.3
    boot: float = 2.0
    agent: float = 3.0
    address: float = 90.0
    memory: float = 60.0
    life: float = 600.0
    stop: float = 1.5
    off: float = 20.0
    move: float = 1.0


_DISTRIBUTIONS = (
    ("Debian GNU/Linux 12 (bookworm)", "debian", "12", "6.1.0-28-amd64"),
    ("Ubuntu 24.04.1 LTS", "ubuntu", "24.04", "6.8.0-51-generic"),
    ("Alpine Linux v3.20", "alpine", "3.20", "6.6.58-0-virt"),
    ("AlmaLinux 9.5 (Teal Serval)", "almalinux", "9.5", "5.14.0-503.el9.x86_64"),
)
_ENDS = (("poweroff", 4), ("reboot", 3), ("crash", 1), ("migrate", 2))


def guest(index: int, seed: int) -> Guest:
    """Return the guest number `index` of the host that `seed` makes."""
    random = Random(f"{seed}/guest/{index}")  # noqa: S311 - repeatable, not secret
    macs = tuple(
        "00:16:3e:" + ":".join(f"{random.randrange(256):02x}" for _ in range(3)) for _ in range(random.choice((1, 1, 2)))
    )
    return Guest(
        index=index,
        uuid=str(UUID(int=random.getrandbits(128), version=4)),
        name=f"guest{index}",
        memory=random.choice((256, 512, 1024, 2048)) * 1024,
        vcpus=random.choice((1, 1, 2, 4)),
        macs=macs,
        disks=("xvda",) if random.random() < 0.7 else ("xvda", "xvdb"),
        distribution=random.choice(_DISTRIBUTIONS),
    )


def live(who: Guest, seed: int, start: float = 0.0, pace: Pace | None = None) -> Iterator[Action]:
    """Yield a guest's actions from its first start on, for ever, in order of time."""
    pace = pace or Pace()
    random = Random(f"{seed}/life/{who.index}")  # noqa: S311

    def about(mean: float) -> float:
        return mean * random.uniform(0.5, 1.5)

    now = start
    while True:
        yield Action(now, Kind.CREATE)
        now += about(pace.build)
        yield Action(now, Kind.BOOT)
        now += about(pace.boot)
        yield Action(now, Kind.AGENT)
        now += about(pace.agent) / 10
        addresses = {vif: _address(random) for vif in range(len(who.macs))}
        for vif, address in addresses.items():
            yield Action(now, Kind.ADDRESS, address, vif)
        end = ""
        while end in ("", "migrate"):
            until = now + random.expovariate(1 / pace.life)
            yield from _run(who, random, pace, now, until)
            now = until
            end = random.choices([name for name, _ in _ENDS], [weight for _, weight in _ENDS])[0]
            if end == "migrate":
                yield Action(now, Kind.ARRIVE)
                now += about(pace.move)
                yield Action(now, Kind.LEAVE)
                # Addresses are published anew: the new domain's nodes start empty.
                for vif, address in addresses.items():
                    yield Action(now, Kind.ADDRESS, address, vif)
        if end == "crash":
            yield Action(now, Kind.CRASH)
        else:
            if random.random() < 0.5:
                yield Action(now, Kind.ASK_SHUTDOWN, end)
                now += about(pace.stop)
            yield Action(now, Kind.SHUT_DOWN, end)
        now += about(pace.stop) / 5
        yield Action(now, Kind.DESTROY, end)
        now += about(pace.off) if end == "poweroff" else about(pace.build)


def _run(who: Guest, random: Random, pace: Pace, now: float, until: float) -> Iterator[Action]:
    """Yield what happens while a guest just runs."""
    address = now + random.expovariate(1 / pace.address)
    memory = now + random.uniform(0, pace.memory)
    while min(address, memory) < until:
        if address < memory:
            yield Action(address, Kind.ADDRESS, _address(random), random.randrange(len(who.macs)))
            address += random.expovariate(1 / pace.address)
        else:
            yield Action(memory, Kind.MEMORY, "", random.randrange(who.memory // 8, who.memory))
            memory += pace.memory


def _address(random: Random) -> str:
    return f"10.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(1, 255)}"
