"""What libxl writes in xenstore for a domain, from its making to its end, with the permissions it gives.

Paths and permissions as libxl 4.17 has them for a PVH guest: the domain's own directory readable to it, `data`, `attr`,
`drivers`, `feature`, `error` and a few nodes of `control` owned by it, frontends owned by it, backends readable to it.
"""

from dataclasses import dataclass

from xenmesh.sim.guests.life import Guest
from xenmesh.sim.xenstored.session import Session
from xenmesh.sim.xenstored.store import Store

__all__ = ["Domain", "Toolstack"]

_READ_ONLY = ("cpu", "memory", "device", "control", "hvmloader")
_GUESTS_OWN = (
    *("control/shutdown", "control/feature-poweroff", "control/feature-reboot", "control/feature-suspend"),
    *("control/sysrq", "device/suspend/event-channel", "data", "drivers", "feature", "attr", "error"),
)
_VDEV_XVDA, _VDEV_STEP = 51712, 16
_CONSOLE_LIMIT = 1048576
INITIALISING, CONNECTED, CLOSED = 1, 4, 6


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
    """Dom0's side of domains, over one connection."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._session = Session(store)
        self._last_domid = 0
        self.domains: dict[int, Domain] = {}

    def prepare(self) -> None:
        """Write what Dom0 has before any guest."""
        self._session.write_all("/local/domain/0", {"name": "Domain-0", "domid": 0})
        self._session.write_all("/libxl/0", {"type": "pv", "dm-version": "qemu_xen"})

    def create(self, guest: Guest, name: str | None = None) -> Domain:
        """Make a domain for a guest, and introduce it. There may be another of the same uuid (a move in this host)."""
        self._last_domid += 1
        domain = Domain(self._last_domid, guest)
        self.domains[domain.domid] = domain
        self._session.atomically(lambda: self._write_home(domain, name or guest.name))
        for vif in range(len(guest.macs)):
            self._session.atomically(lambda vif=vif: self._write_vif(domain, vif))  # type: ignore[misc]
        for number, disk in enumerate(guest.disks):
            self._session.atomically(lambda number=number, disk=disk: self._write_vbd(domain, number, disk))  # type: ignore[misc]
        self._session.atomically(lambda: self._write_console(domain))
        self._session.introduce(domain.domid)
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
        session.write_all(vm, {"uuid": guest.uuid, "name": name, "image/ostype": "linux", "image/kernel": "/boot/vmlinuz"})
        session.write_all(home, {"name": name, "domid": domid})
        session.write_all(
            f"{home}/control", {"platform-feature-multiprocessor-suspend": 1, "platform-feature-xs_reset_watches": 1}
        )
        session.write_all(f"{home}/memory", {"static-max": guest.memory, "target": guest.memory, "videoram": 0})
        for vcpu in range(guest.vcpus):
            session.write(f"{home}/cpu/{vcpu}/availability", "online")
        session.write_all(f"{home}/store", {"port": 1, "ring-ref": 1044476})
        session.write_all(f"/libxl/{domid}", {"type": "pvh", "dm-version": "qemu_xen"})

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
        links: dict[str, str | int] = {"frontend": front, "backend": back}
        session.write_all(ours, links)
        session.write_all(front, {"backend": back, "backend-id": 0, "state": INITIALISING, **frontend})
        session.write_all(back, {"frontend": front, "frontend-id": domid, "online": 1, "state": INITIALISING, **backend})

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
            {"virtual-device": device, "device-type": "disk"},
            {
                "params": f"/dev/vg/{domain.guest.name}-{disk}",
                "script": "/etc/xen/scripts/block",
                "removable": 0,
                "bootable": 1,
                "dev": disk,
                "type": "phy",
                "mode": "w",
                "device-type": "disk",
            },
        )

    def _write_console(self, domain: Domain) -> None:
        session, domid = self._session, domain.domid
        front, back = f"{domain.home}/console", f"/local/domain/0/backend/console/{domid}/0"
        for path, perms in ((front, ("n0", f"r{domid}")), (back, ("n0", f"r{domid}"))):
            session.mkdir(path)
            session.set_perms(path, *perms)
        session.write_all(
            front,
            {
                "backend": back,
                "backend-id": 0,
                "limit": _CONSOLE_LIMIT,
                "type": "xenconsoled",
                "output": "pty",
                "tty": f"/dev/pts/{domid}",
                "port": 2,
                "ring-ref": 1044479,
            },
        )
        session.write_all(
            back, {"frontend": front, "frontend-id": domid, "online": 1, "state": INITIALISING, "protocol": "vt100"}
        )

    def connect_backends(self, domain: Domain) -> None:
        """Do what backends and hotplug scripts do when a guest's frontends come up."""
        for kind in ("vif", "vbd"):
            above = f"/local/domain/0/backend/{kind}/{domain.domid}"
            if self._session.exists(above):
                for number in self._session.children(above):
                    back = f"{above}/{number}"
                    self._session.write(f"{back}/hotplug-status", "connected")
                    self._session.write(f"{back}/state", CONNECTED)

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
        last = all(other.guest.uuid != domain.guest.uuid for other in self.domains.values())

        def body() -> None:
            for kind in ("vif", "vbd", "console"):
                self._session.rm(f"/local/domain/0/backend/{kind}/{domain.domid}")
            if last:
                self._session.rm(f"/vm/{domain.guest.uuid}")
            self._session.rm(domain.home)
            self._session.rm(f"/libxl/{domain.domid}")

        self._session.atomically(body)
        self._store.gone(domain.domid)
