"""What the guests service will say: what is known of the inside of a guest. Shapes only, until that service is built.

All text here was written by a guest: it is untrusted, and was checked and cut before it came here.
"""

from __future__ import annotations

import enum

import msgspec

from .envelope import Event

__all__ = [
    "Address",
    "Agent",
    "GuestChanged",
    "GuestEvent",
    "GuestInfo",
    "Live",
    "Memory",
    "Nic",
    "Os",
    "Volume",
]


class Os(msgspec.Struct, frozen=True, kw_only=True):
    """The guest's operating system."""

    name: str | None = None
    distro: str | None = None
    version: str | None = None
    kernel: str | None = None
    hostname: str | None = None


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """Which agent speaks for the guest."""

    kind: str
    version: str | None = None


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """An address of a NIC."""

    ip: str
    prefix: int | None = None


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual interface, by its device number."""

    devid: int
    mac: str | None = None
    name: str | None = None
    addresses: list[Address]


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """KiB, as the guest counts."""

    total: int | None = None
    free: int | None = None


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """A mounted file system of the guest; bytes."""

    name: str
    mount: str | None = None
    size: int | None = None
    free: int | None = None
    filesystem: str | None = None


class Live(enum.Enum):
    """Whether the agent is heard of."""

    ABSENT = "absent"
    STARTING = "starting"
    LIVE = "live"
    SILENT = "silent"
    LEGACY = "legacy"
    """It has an agent that gives no heartbeat."""

    GONE = "gone"


class GuestInfo(Event, frozen=True, kw_only=True, tag="guest.state"):
    """``state.guest.<uuid>``: the whole of what is known of a guest."""

    uuid: str
    domid: int | None
    live: Live
    heard: float | None = None
    """Seconds since 1970 when it last wrote anything."""

    os: Os | None = None
    agent: Agent | None = None
    nics: list[Nic] = []
    memory: Memory | None = None
    volumes: list[Volume] = []
    features: dict[str, bool] = {}
    refused: dict[str, int] = {}
    """What was not taken from it, counted by reason."""


class GuestChanged(Event, frozen=True, kw_only=True, tag="guest.changed"):
    """``evt.guest.<uuid>.<area>``: one area of a guest's info changed; ``info`` is the whole as it is now."""

    uuid: str
    area: str
    info: GuestInfo


GuestEvent = GuestChanged
