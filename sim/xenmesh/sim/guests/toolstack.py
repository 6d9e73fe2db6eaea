"""What libxl writes in xenstore for a domain, from its making to its end, with the permissions it gives.

Paths and permissions as libxl 4.17 has them for a PV guest: the domain's own directory readable to it, `data`, `attr`,
`drivers`, `feature`, `error` and a few nodes of `control` owned by it, frontends owned by it, backends readable to it,
/libxl to Dom0 alone. Keys and values were compared with the boot of a PV guest on real Xen 4.17, whose backends are Linux's.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from xenmesh.sim.guests.life import Guest
from xenmesh.sim.xenstored.session import Session
from xenmesh.sim.xenstored.store import Store

__all__ = ["Domain", "Toolstack"]

_READ_ONLY = ("cpu", "memory", "device", "control")
_GUESTS_OWN = (
    *("control/shutdown", "control/feature-poweroff", "control/feature-reboot", "control/feature-suspend"),
    *("control/sysrq", "device/suspend/event-channel", "data", "drivers", "feature", "attr", "error"),
)
_VDEV_XVDA, _VDEV_STEP = 51712, 16
_CONSOLE_LIMIT = 1048576
_VCPUS_MOST = 2
_EPOCH = 1_700_000_000
"""When guests' time starts, so that the same seed writes the same."""

INITIALISING, INIT_WAIT, INITIALISED, CONNECTED, CLOSING, CLOSED = 1, 2, 3, 4, 5, 6
"""What `state` of a device's two sides says (io/xenbus.h)."""

_BACKEND_OFFERS: dict[str, dict[str, str | int]] = {
    "vif": {
        "feature-sg": 1,
        "feature-gso-tcpv4": 1,
        "feature-gso-tcpv6": 1,
        "feature-ipv6-csum-offload": 1,
        "feature-rx-copy": 1,
        "feature-xdp-headroom": 1,
        "feature-rx-flip": 0,
        "feature-multicast-control": 1,
        "feature-dynamic-multicast-control": 1,
        "feature-split-event-channels": 1,
        "multi-queue-max-queues": 2,
        "feature-ctrl-ring": 1,
    },
    "vbd": {"max-ring-page-order": 4, "multi-queue-max-queues": 2},
}
"""What a backend says it can do, before it waits for the frontend."""

_DISK: dict[str, str | int] = {
    "feature-flush-cache": 1,
    "feature-discard": 0,
    "feature-persistent": 1,
    "feature-barrier": 1,
    "sectors": 20971520,
    "info": 0,
    "sector-size": 512,
    "physical-sector-size": 512,
}
"""What a disk's backend says when it connects."""


@dataclass
class Domain:
    """A domain that is there. `domid` is never used twice."""

    domid: int
    guest: Guest
    running: bool = True

    @property
    def home(self) -> str:
        """Its directory in the store."""
        return f"/local/domain/{self.domid}"


class Toolstack:
    """Dom0's side of domains, over one connection. `clock`: the guests' time, in seconds."""

    def __init__(self, store: Store, clock: Callable[[], float] = lambda: 0.0) -> None:
        self._store = store
        self._clock = clock
        self._session = Session(store)
        self._last_domid = 0
        self.domains: dict[int, Domain] = {}
        self._uuids: Counter[str] = Counter()

    def prepare(self) -> None:
        """Write what Dom0 has before any guest."""
        self._session.write_all("/local/domain/0", {"name": "Domain-0", "domid": 0, "control/feature-poweroff": 1})
        self._session.write_all("/libxl/0", {"type": "pv", "dm-version": "qemu_xen"})

    def create(self, guest: Guest, name: str | None = None) -> Domain:
        """Make a domain for a guest, and introduce it. There may be another of the same uuid (a move in this host)."""
        self._last_domid += 1
        domain = Domain(self._last_domid, guest)
        self.domains[domain.domid] = domain
        self._uuids[guest.uuid] += 1
        self._session.atomically(lambda: self._write_home(domain, name or guest.name))
        for vif in range(len(guest.macs)):
            self._session.atomically(lambda vif=vif: self._write_vif(domain, vif))  # type: ignore[misc]
        for number, disk in enumerate(guest.disks):
            self._session.atomically(lambda number=number, disk=disk: self._write_vbd(domain, number, disk))  # type: ignore[misc]
        self._session.atomically(lambda: self._write_console(domain))
        self._session.introduce(domain.domid)
        self.prepare_backends(domain)
        return domain

    def _write_home(self, domain: Domain, name: str) -> None:
        session, home, domid, guest = self._session, domain.home, domain.domid, domain.guest
        session.rm(home)
        session.mkdir(home)
        session.set_perms(home, "n0", f"r{domid}")
        vm = f"/vm/{guest.uuid}"
        session.mkdir(vm)
        session.set_perms(vm, "n0", f"r{domid}")
        session.rm(f"/libxl/{domid}")
        session.mkdir(f"/libxl/{domid}")
        session.write(f"{home}/vm", vm)
        for directory in _READ_ONLY:
            session.mkdir(f"{home}/{directory}")
            session.set_perms(f"{home}/{directory}", "n0", f"r{domid}")
        for directory in _GUESTS_OWN:
            session.mkdir(f"{home}/{directory}")
            session.set_perms(f"{home}/{directory}", f"n{domid}")
        image: dict[str, str | int] = {
            "image/ostype": "linux",
            "image/kernel": f"/boot/vmlinuz-{guest.distribution[3]}",
            "image/ramdisk": f"/boot/initrd.img-{guest.distribution[3]}",
            "image/cmdline": "root=/dev/xvda ro console=hvc0",
            "start_time": f"{_EPOCH + self._clock():.2f}",
        }
        session.write_all(vm, {"uuid": guest.uuid, "name": name, **image})
        session.write_all(home, {"name": name, "domid": domid})
        session.write_all(
            f"{home}/control", {"platform-feature-multiprocessor-suspend": 1, "platform-feature-xs_reset_watches": 1}
        )
        session.write_all(f"{home}/memory", {"static-max": guest.memory, "target": guest.memory, "videoram": 0})
        for vcpu in range(max(guest.vcpus, _VCPUS_MOST)):
            session.write(f"{home}/cpu/{vcpu}/availability", "online" if vcpu < guest.vcpus else "offline")
        session.write_all(f"{home}/store", {"port": 1, "ring-ref": 1044476})
        session.write_all(f"/libxl/{domid}", {"type": "pv", "dm-version": "qemu_xen"})

    def _write_device(
        self,
        domain: Domain,
        kind: str,
        number: int,
        frontend: dict[str, str | int],
        backend: dict[str, str | int],
    ) -> None:
        session, domid = self._session, domain.domid
        front = f"{domain.home}/device/{kind}/{number}"
        back = f"/local/domain/0/backend/{kind}/{domid}/{number}"
        ours = f"/libxl/{domid}/device/{kind}/{number}"
        for path, perms in ((front, (f"n{domid}", "r0")), (back, ("n0", f"r{domid}")), (ours, ("n0",))):
            session.rm(path)
            session.mkdir(path)
            session.set_perms(path, *perms)
        behind = {"frontend": front, "frontend-id": domid, "online": 1, "state": INITIALISING, **backend}
        session.write_all(ours, {"backend": back, **behind})  # libxl keeps what it once set: the rest is the driver's
        session.write_all(front, {"backend": back, "backend-id": 0, "state": INITIALISING, "trusted": 1, **frontend})
        session.write_all(back, behind)

    def _write_vif(self, domain: Domain, number: int) -> None:
        mac = domain.guest.macs[number]
        self._write_device(
            domain,
            "vif",
            number,
            {"handle": number, "mac": mac, "mtu": 1500},
            {"script": "/etc/xen/scripts/vif-bridge", "mac": mac, "bridge": "xenbr0", "handle": number, "type": "vif"},
        )

    def _write_vbd(self, domain: Domain, number: int, disk: str) -> None:
        device = _VDEV_XVDA + _VDEV_STEP * number
        self._write_device(
            domain,
            "vbd",
            device,
            {"virtual-device": device, "device-type": "disk", "protocol": "x86_64-abi"},
            {
                "params": f"/dev/vg/{domain.guest.name}-{disk}",
                "script": "/etc/xen/scripts/block",
                "removable": 0,
                "bootable": 1,
                "dev": disk,
                "type": "phy",
                "mode": "w",
                "device-type": "disk",
                "discard-enable": 1,
                "specification": "xen",
            },
        )

    def _write_console(self, domain: Domain) -> None:
        session, domid = self._session, domain.domid
        front, back = f"{domain.home}/console", f"/local/domain/0/backend/console/{domid}/0"
        ours = f"/libxl/{domid}/device/console/0"
        for path, perms in ((front, ("n0", f"r{domid}")), (back, ("n0", f"r{domid}")), (ours, ("n0",))):
            session.mkdir(path)
            session.set_perms(path, *perms)
        behind: dict[str, str | int] = {
            "frontend": front,
            "frontend-id": domid,
            "online": 1,
            "state": INITIALISING,
            "protocol": "vt100",
        }
        session.write_all(ours, {"backend": back, **behind})
        session.write_all(
            front,
            {
                "backend": back,
                "backend-id": 0,
                "limit": _CONSOLE_LIMIT,
                "type": "xenconsoled",
                "output": "pty",
                "tty": "",
                "port": 2,
                "ring-ref": 1044479,
            },
        )
        session.write_all(back, behind)

    def backends(self, domain: Domain) -> list[tuple[str, str]]:
        """Return (kind, path) of the backends of a domain's disks and networks."""
        found = []
        for kind in ("vbd", "vif"):
            above = f"/local/domain/0/backend/{kind}/{domain.domid}"
            if self._session.exists(above):
                found += [(kind, f"{above}/{number}") for number in self._session.children(above)]
        return found

    def prepare_backends(self, domain: Domain) -> None:
        """Do what drivers, hotplug scripts and xenconsoled do for a new domain, before it runs."""
        session = self._session
        for kind, back in self.backends(domain):
            session.write_all(back, _BACKEND_OFFERS[kind])
            session.write(f"{back}/state", INIT_WAIT)
            if kind == "vbd":
                session.write(f"{back}/physical-device", "fe:0")
                session.write(f"{back}/physical-device-path", session.read(f"{back}/params"))
            session.write(f"{back}/hotplug-status", "connected")
        session.write(f"{domain.home}/console/tty", f"/dev/pts/{domain.domid}")

    def connect_backends(self, domain: Domain) -> None:
        """Do what drivers do when a guest's frontends are ready."""
        for kind, back in self.backends(domain):
            if kind == "vbd":
                self._session.atomically(lambda back=back: self._session.write_all(back, _DISK))  # type: ignore[misc]
            self._session.write(f"{back}/state", CONNECTED)

    def _close_backends(self, domain: Domain) -> None:
        for _, back in self.backends(domain):
            self._session.write(f"{back}/online", 0)
            self._session.write(f"{back}/state", CLOSING)
            self._session.rm(f"{back}/hotplug-status")
            self._session.write(f"{back}/state", CLOSED)

    def ask_shutdown(self, domain: Domain, how: str) -> None:
        """Ask the guest to end: "poweroff", "reboot", "suspend"."""
        self._session.write(f"{domain.home}/control/shutdown", how)

    def rename(self, domain: Domain, name: str) -> None:
        """Give a domain another name."""

        def body() -> None:
            self._session.write(f"{domain.home}/name", name)
            self._session.write(f"/vm/{domain.guest.uuid}/name", name)

        self._session.atomically(body)

    def ended(self, domain: Domain) -> None:
        """Have the hypervisor say that a domain has shut down, crashed or been suspended: @releaseDomain fires."""
        domain.running = False
        self._store.shut_down(domain.domid)

    def destroy(self, domain: Domain) -> None:
        """Remove a domain and all that was written for it: @releaseDomain fires again."""
        self.domains.pop(domain.domid, None)
        self._uuids[domain.guest.uuid] -= 1
        last = not self._uuids[domain.guest.uuid]
        self._close_backends(domain)

        def body() -> None:
            for kind in ("vif", "vbd", "console"):
                self._session.rm(f"/local/domain/0/backend/{kind}/{domain.domid}")
            if last:
                self._session.rm(f"/vm/{domain.guest.uuid}")
            self._session.rm(domain.home)
            self._session.rm(f"/libxl/{domain.domid}")

        self._session.atomically(body)
        self._store.gone(domain.domid)
