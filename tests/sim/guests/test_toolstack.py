import re

import pytest

from xenmesh.sim.guests.life import guest
from xenmesh.sim.guests.toolstack import Domain, Toolstack
from xenmesh.sim.xenstored.dialect import DIALECTS
from xenmesh.sim.xenstored.session import Session
from xenmesh.sim.xenstored.store import Store

KINDS = pytest.mark.parametrize("kind", ["c", "ocaml"])
WHO = guest(0, 1)

# What libxl and Linux's backends wrote for a PV guest with a disk and a network on Xen 4.17 (C xenstored).
REAL = """
/local/domain/1/{cpu/0/availability cpu/1/availability domid error memory/static-max memory/target memory/videoram}
/local/domain/1/{store/port store/ring-ref}
/local/domain/1/console/{backend backend-id limit output port ring-ref tty type}
/local/domain/1/device/vbd/51712/{backend backend-id device-type protocol state trusted virtual-device}
/local/domain/1/device/vif/0/{backend backend-id handle mac mtu state trusted}
/local/domain/0/backend/vbd/1/51712/{frontend frontend-id online params script dev device-type mode removable}
/local/domain/0/backend/vbd/1/51712/{specification state type max-ring-page-order multi-queue-max-queues}
/local/domain/0/backend/vbd/1/51712/{physical-device physical-device-path hotplug-status}
/local/domain/0/backend/console/1/0/{frontend frontend-id online protocol state}
/local/domain/0/backend/vif/1/0/{online state type feature-sg feature-xdp-headroom feature-multicast-control}
/local/domain/0/backend/vif/1/0/{feature-split-event-channels multi-queue-max-queues feature-ctrl-ring hotplug-status}
/libxl/1/{type dm-version device/vbd/51712/frontend device/vbd/51712/backend device/vbd/51712/bootable}
/libxl/1/device/vbd/51712/{state specification}
/libxl/1/device/console/0/{backend frontend frontend-id online protocol state}
/vm/UUID/{image/cmdline image/kernel image/ostype image/ramdisk start_time}
"""


def real_keys() -> set[str]:
    found = set()
    for below, names in re.findall(r"(\S+)\{(.*)\}", REAL):
        found |= {(below + name).replace("UUID", WHO.uuid) for name in names.split()}
    return found


def values(store: Store) -> dict[str, bytes]:
    return {path: node.value for path, node in store.tree.walk()}


def perms(store: Store, path: str) -> list[str]:
    node = store.tree.get(path)
    assert node is not None, path
    return [f"{access.value}{domid}" for access, domid in node.perms.entries]


def create(kind: str = "c") -> tuple[Store, Toolstack, Domain]:
    store = Store(DIALECTS[kind])
    toolstack = Toolstack(store, lambda: 12.5)
    toolstack.prepare()
    return store, toolstack, toolstack.create(WHO)


@KINDS
def test_all_that_the_real_one_wrote_is_written(kind: str) -> None:
    store, _, _ = create(kind)
    assert real_keys() <= values(store).keys()
    assert values(store)[f"/vm/{WHO.uuid}/start_time"] == b"1700000012.50"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/local/domain/1", ["n0", "r1"]),
        ("/local/domain/1/control", ["n0", "r1"]),
        ("/local/domain/1/control/shutdown", ["n1"]),
        ("/local/domain/1/data", ["n1"]),
        ("/local/domain/1/attr", ["n1"]),
        ("/local/domain/1/device/vif/0", ["n1", "r0"]),
        ("/local/domain/1/device/vbd/51712/state", ["n1", "r0"]),
        ("/local/domain/1/console", ["n0", "r1"]),
        ("/local/domain/0/backend/vif/1/0", ["n0", "r1"]),
        ("/libxl/1", ["n0"]),
        ("/libxl/1/device/vif/0", ["n0"]),
        (f"/vm/{WHO.uuid}", ["n0", "r1"]),
    ],
)
def test_who_may_do_what(path: str, expected: list[str]) -> None:
    store, _, _ = create()
    assert perms(store, path) == expected


@KINDS
def test_a_destroyed_domain_leaves_nothing(kind: str) -> None:
    store, toolstack, domain = create(kind)
    toolstack.connect_backends(domain)
    toolstack.ended(domain)
    assert not domain.running
    toolstack.destroy(domain)
    assert not [path for path in values(store) if "/1" in path or WHO.uuid in path]
    assert store.tree.of(1) == []
    assert 1 not in store.domains
    assert toolstack.create(WHO).domid == 2


@KINDS
def test_two_domains_of_one_uuid_share_its_directory_until_the_last_goes(kind: str) -> None:
    store, toolstack, old = create(kind)
    new = toolstack.create(WHO, "incoming")
    toolstack.destroy(old)
    assert values(store)[f"/vm/{WHO.uuid}/name"] == b"incoming"
    assert values(store)[f"{new.home}/vm"].decode() == f"/vm/{WHO.uuid}"
    toolstack.destroy(new)
    assert f"/vm/{WHO.uuid}" not in values(store)


def test_a_rename_and_a_wish_to_end() -> None:
    store, toolstack, domain = create()
    toolstack.rename(domain, "other")
    toolstack.ask_shutdown(domain, "poweroff")
    assert values(store)["/local/domain/1/name"] == values(store)[f"/vm/{WHO.uuid}/name"] == b"other"
    assert values(store)["/local/domain/1/control/shutdown"] == b"poweroff"


def test_backends_go_through_their_states() -> None:
    store, toolstack, domain = create()
    state = "/local/domain/0/backend/vbd/1/51712/state"
    seen = [values(store)[state]]
    toolstack.connect_backends(domain)
    seen.append(values(store)[state])
    watcher = Session(store)
    watcher.watch(state, "s")
    watcher.events()
    toolstack.destroy(domain)
    assert seen == [b"2", b"4"]
    assert {event.path for event in watcher.events()} == {state}  # closing, then gone
