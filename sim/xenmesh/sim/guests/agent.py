"""What a guest writes over its own connection: its kernel's frontends, then its agent.

The keys are those that xapi's readers know (PVAddons, data/os_*, attr/vif, data/meminfo_*).
"""

from collections.abc import Callable
from contextlib import suppress

from xenmesh.sim.guests.toolstack import CONNECTED, INITIALISED, Domain
from xenmesh.sim.xenstored.errors import Refused
from xenmesh.sim.xenstored.session import Session
from xenmesh.sim.xenstored.store import Store

__all__ = ["GuestSide"]

_FRONTEND_RINGS: dict[str, dict[str, str | int]] = {
    "vbd": {"ring-ref": 8, "event-channel": 9, "protocol": "x86_64-abi", "feature-persistent": 1},
    "vif": {
        "xdp-headroom": 0,
        "tx-ring-ref": 520,
        "rx-ring-ref": 521,
        "event-channel-tx": 10,
        "event-channel-rx": 11,
        "request-rx-copy": 1,
        "feature-rx-notify": 1,
        "feature-sg": 1,
        "feature-gso-tcpv4": 1,
        "feature-gso-tcpv6": 1,
        "feature-ipv6-csum-offload": 1,
    },
}
"""What Linux's blkfront and netfront write before they say that they are ready."""


class GuestSide:
    """One running guest, as the store sees it. A refusal is borne and counted, as a guest must bear it."""

    def __init__(self, store: Store, domain: Domain) -> None:
        self._session = Session(store, domain.domid)
        self._domain = domain
        self.refusals = 0

    def _try(self, body: Callable[[], None]) -> None:
        try:
            body()
        except Refused:
            self.refusals += 1

    def boot(self) -> None:
        """Do what a Linux kernel does: watch, say what it can do, connect its devices."""
        session = self._session
        self._try(lambda: session.watch("control/shutdown", "shutdown"))
        for feature in ("poweroff", "reboot", "suspend"):
            self._try(lambda feature=feature: session.write(f"control/feature-{feature}", 1))  # type: ignore[misc]
        for kind in ("vif", "vbd"):
            with suppress(Refused):
                for number in session.children(f"device/{kind}"):
                    self._try(lambda at=f"device/{kind}/{number}": self._connect(at))  # type: ignore[misc]

    def _connect(self, device: str) -> None:
        kind = device.split("/")[1]
        self._session.atomically(lambda: self._session.write_all(device, _FRONTEND_RINGS[kind]))
        # A disk's backend connects first; a network's frontend does.
        self._session.write(f"{device}/state", INITIALISED if kind == "vbd" else CONNECTED)

    def connected(self) -> None:
        """Take note that the backends have connected: the disks are there."""
        with suppress(Refused):
            for number in self._session.children("device/vbd"):
                self._try(lambda at=f"device/vbd/{number}": self._session.write(f"{at}/state", CONNECTED))  # type: ignore[misc]

    def start_agent(self) -> None:
        """Publish what does not change while the guest runs."""
        name, distribution, version, kernel = self._domain.guest.distribution
        major, _, minor = version.partition(".")

        def body() -> None:
            self._session.write_all(
                "attr/PVAddons",
                {"Installed": 1, "MajorVersion": 1, "MinorVersion": 0, "MicroVersion": 0, "BuildVersion": "sim"},
            )
            self._session.write_all(
                "data",
                {
                    "os_name": name,
                    "os_distro": distribution,
                    "os_majorver": major,
                    "os_minorver": minor or major,
                    "os_uname": kernel,
                    "meminfo_total": self._domain.guest.memory,
                },
            )

        self._try(lambda: self._session.atomically(body))

    def set_address(self, vif: int, address: str) -> None:
        """Publish an interface's addresses: one IPv4, and the link-local IPv6 of its MAC."""
        mac = [int(part, 16) for part in self._domain.guest.macs[vif].split(":")]
        mac[0] ^= 2
        words = (mac[0] << 8 | mac[1], mac[2] << 8 | 0xFF, 0xFE << 8 | mac[3], mac[4] << 8 | mac[5])
        link_local = "fe80::" + ":".join(f"{word:x}" for word in words)

        def body() -> None:
            self._session.write(f"attr/vif/{vif}/ipv4/0", address)
            self._session.write(f"attr/vif/{vif}/ipv6/0", link_local)

        self._try(lambda: self._session.atomically(body))

    def set_memory(self, free: int) -> None:
        """Publish free memory, in KiB."""
        self._try(lambda: self._session.write("data/meminfo_free", free))

    def heed(self) -> None:
        """See to what the host asks of it: take note of control/shutdown by clearing it."""
        self._session.events()
        with suppress(Refused):
            if self._session.read("control/shutdown"):
                self._session.write("control/shutdown", "")

    def close(self) -> None:
        """Be gone."""
        self._session.close()
