import pytest

from xenmesh.sim.guests.agent import GuestSide
from xenmesh.sim.guests.life import guest
from xenmesh.sim.guests.toolstack import Domain, Toolstack
from xenmesh.sim.xenstored.dialect import DIALECTS
from xenmesh.sim.xenstored.store import Store

WHO = guest(0, 1)


def booted(kind: str = "c") -> tuple[Store, Toolstack, Domain, GuestSide]:
    store = Store(DIALECTS[kind])
    toolstack = Toolstack(store)
    domain = toolstack.create(WHO)
    side = GuestSide(store, domain)
    side.boot()
    toolstack.connect_backends(domain)
    side.connected()
    return store, toolstack, domain, side


def value(store: Store, path: str) -> bytes | None:
    node = store.tree.get(f"/local/domain/1/{path}")
    return node.value if node else None


@pytest.mark.parametrize("kind", ["c", "ocaml"])
def test_a_guest_boots_without_a_refusal(kind: str) -> None:
    store, _, _, side = booted(kind)
    side.start_agent()
    side.set_address(0, "10.0.0.4")
    side.set_memory(1000)
    assert side.refusals == 0
    for path, expected in {
        "control/feature-poweroff": b"1",
        "device/vif/0/state": b"4",
        "device/vif/0/tx-ring-ref": b"520",
        "device/vbd/51712/state": b"4",
        "attr/PVAddons/Installed": b"1",
        "attr/vif/0/ipv4/0": b"10.0.0.4",
        "data/os_name": WHO.distribution[0].encode(),
        "data/meminfo_free": b"1000",
    }.items():
        assert value(store, path) == expected, path


def test_the_link_local_address_is_that_of_the_mac() -> None:
    store, _, _, side = booted()
    side.set_address(0, "10.0.0.4")
    address = value(store, "attr/vif/0/ipv6/0")
    assert address is not None
    a, b, c, d, e, f = (int(part, 16) for part in WHO.macs[0].split(":"))
    assert address.decode() == f"fe80::{(a ^ 2) << 8 | b:x}:{c << 8 | 0xFF:x}:{0xFE << 8 | d:x}:{e << 8 | f:x}"


def test_what_is_the_guests_own_is_its_own() -> None:
    store, _, _, side = booted()
    side.start_agent()
    node = store.tree.get("/local/domain/1/data/os_name")
    assert node is not None
    assert node.perms.owner == 1


def test_a_refusal_is_borne_and_counted() -> None:
    store, _, _, side = booted()
    store.quotas.nodes = 1
    side.set_address(0, "10.0.0.4")
    assert side.refusals == 1
    assert value(store, "attr/vif/0") is None


def test_a_wish_to_end_is_taken_note_of() -> None:
    store, toolstack, domain, side = booted()
    toolstack.ask_shutdown(domain, "reboot")
    side.heed()
    assert value(store, "control/shutdown") == b""


def test_nothing_is_heard_of_a_guest_that_is_gone() -> None:
    store, _, _, side = booted()
    connections = len(store.clients)
    side.close()
    assert len(store.clients) == connections - 1
