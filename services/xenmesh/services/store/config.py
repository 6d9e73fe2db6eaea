"""What may be set of the store service: the section ``[store]``."""

from __future__ import annotations

from typing import Annotated

import msgspec

from xenmesh.schemas.store import AREAS, Area
from xenmesh.xenstore.paths import covers

from .budget import Pace

__all__ = ["Caps", "StoreConfig"]

_Seconds = Annotated[float, msgspec.Meta(gt=0, le=86400)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 30)]


class Caps(msgspec.Struct, frozen=True):
    """How large a subtree (one area of one domain) may be, and all of a domain."""

    nodes: int
    bytes: int
    """Of paths and values, as a bound of what is kept in memory."""

    children: int
    """Of one node."""

    depth: int
    """Elements below ``/local/domain/N``, or of the whole path elsewhere."""

    all_nodes: int
    all_bytes: int


class StoreConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[store]``. A guest's own tree is under the ``guest_`` limits; domain 0's, ``/vm``, ``/libxl`` and ``/tool`` are the toolstack's."""

    areas: tuple[Area, ...] = AREAS
    """What is read of each domain. Of other areas nothing is asked, said or kept."""

    trees: tuple[Annotated[str, msgspec.Meta(pattern=r"^(/[A-Za-z0-9_@-]+)+$")], ...] = ("/vm", "/libxl", "/tool")
    """What is watched besides the domains."""

    secrets: tuple[str, ...] = (
        "*/vncpasswd", "*/vnc-passwd", "*/vnc-password", "*/vncpassword",
        "*/spicepasswd", "*/spice-passwd", "*/spice-password",
        "*/passwd", "*/password", "*-passwd", "*-password", "*_passwd", "*_password",
        "*/secret", "*-secret", "*/auth-key", "*/auth_key", "*/private-key", "*/private_key",
    )  # fmt: skip
    """Shell patterns of paths whose values are never told. libxl keeps the VNC password in ``/vm/<uuid>/vncpasswd`` and, for a PV frame
    buffer, in ``backend/vfb/<domid>/<n>/vncpasswd``; the other words are those that toolstacks and images use for the like."""

    value: Annotated[int, msgspec.Meta(ge=16, le=4096)] = 4096
    """Bytes of a value that are told at most; xenstored's own limit is 4096."""

    guest_nodes: _Count = 512
    """Nodes of one area of a guest. xenstored allows a guest 1000 in all, so only a raised or missing quota is cut here."""

    guest_bytes: _Count = 64 << 10
    """Bytes of one area of a guest."""

    guest_children: _Count = 256
    guest_depth: _Count = 16

    guest_all_nodes: _Count = 2048
    """Nodes of a guest over all areas."""

    guest_all_bytes: _Count = 256 << 10
    """Bytes of a guest over all areas: what a thousand hostile guests can make us keep is this a thousand times."""

    host_nodes: _Count = 200_000
    host_bytes: _Count = 64 << 20

    guest_burst: _Count = 400
    """Requests to xenstored that a guest's changes may cause at once. A boot writes about 100 nodes in a second and an agent's start 30, each
    read once or twice: 400 lets two boots in a row pass without delay."""

    guest_rate: _Count = 100
    """Requests a second after that. A busy agent changes a few nodes a second; a hundred a second for ever is a flood, yet a thousand such
    guests still leave xenstored idle half of the time."""

    dom0_burst: _Count = 20_000
    """The same for domain 0, whose writes are the toolstack's and grow with the number of guests."""

    dom0_rate: _Count = 5_000

    flood_interval: _Seconds = 5.0
    """Seconds between two readings of a domain that was shed."""

    flood_quiet: _Seconds = 60.0
    """Seconds that it must be quiet before it is watched again."""

    flood_changes: _Count = 10
    """Quiet is a reading that finds at most so many nodes changed."""

    reconcile: _Seconds = 10.0
    """Seconds between two listings of the domains; only a net under the watches."""

    capped_interval: _Seconds = 5.0
    """A domain with a capped area is read whole again when it changes, at most this often."""

    def __post_init__(self) -> None:
        for tree in self.trees:
            if covers("/local", tree):
                raise ValueError(f"trees: {tree} cannot be there, as domains are watched each by itself")
            if any(covers(other, tree) for other in self.trees if other is not tree):
                raise ValueError(f"trees: {tree} lies within another one")

    @property
    def guest(self) -> Caps:
        """The limits of a guest's tree."""
        return Caps(
            self.guest_nodes,
            self.guest_bytes,
            self.guest_children,
            self.guest_depth,
            self.guest_all_nodes,
            self.guest_all_bytes,
        )

    @property
    def host(self) -> Caps:
        """The limits of the toolstack's own trees."""
        return Caps(self.host_nodes, self.host_bytes, 65_536, 32, self.host_nodes, self.host_bytes)

    @property
    def pace(self) -> Pace:
        """How a shed domain is read."""
        return Pace(self.flood_interval, self.flood_quiet, self.flood_changes)
