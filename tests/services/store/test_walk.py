from xenmesh.schemas.store import AREAS, Limit
from xenmesh.services.store.config import StoreConfig
from xenmesh.services.store.model import Model, Value
from xenmesh.services.store.walk import Walk

ROOT = "/local/domain/5"


def read(walk: Walk, model: Model, store: dict[str, list[str]], share: int = 2) -> list[str]:
    """Walk the store (paths and their children's names) to the end; what was asked for."""
    asked = []
    while not walk.done:
        for path in walk.take(share):
            asked.append(path)
            if path in store:
                model.apply(Value(path, b"v", 1))
                walk.found(path, store[path], model)
            else:
                walk.absent(path)
    return asked


def whole(root: str = ROOT) -> Walk:
    return Walk(root, frozenset(AREAS), whole=True)


def test_it_reads_all_there_is_and_the_vm_key_before_its_siblings() -> None:
    store = {ROOT: ["name", "data", "vm"], f"{ROOT}/name": [], f"{ROOT}/vm": [], f"{ROOT}/data": ["x"], f"{ROOT}/data/x": []}
    walk = whole()

    assert read(walk, Model(StoreConfig()), store) == [ROOT, f"{ROOT}/vm", f"{ROOT}/name", f"{ROOT}/data", f"{ROOT}/data/x"]
    assert walk.left == {}
    assert walk.started


def test_areas_that_are_not_configured_are_never_asked_for() -> None:
    store = {ROOT: ["data", "attr"], f"{ROOT}/data": [], f"{ROOT}/attr": []}

    assert read(Walk(ROOT, frozenset({"self", "data"}), whole=True), Model(StoreConfig()), store) == [ROOT, f"{ROOT}/data"]


def test_what_the_caps_leave_out_is_counted_and_never_asked_for() -> None:
    names = [str(n) for n in range(20)]
    store = {ROOT: ["data"], f"{ROOT}/data": names} | {f"{ROOT}/data/{n}": [] for n in names}
    model = Model(StoreConfig(guest_nodes=8))
    walk = whole()
    asked = read(walk, model, store)

    assert len(asked) == 9
    assert walk.left == {(5, "data"): (Limit.NODES, 13)}


def test_what_is_kept_already_is_kept_and_a_walk_shows_the_same_part_each_time() -> None:
    names = [str(n) for n in range(20)]
    store = {ROOT: ["data"], f"{ROOT}/data": names} | {f"{ROOT}/data/{n}": [] for n in names}
    model = Model(StoreConfig(guest_nodes=8))
    first = read(whole(), model, store)
    store[f"{ROOT}/data"].reverse()
    walk = whole()

    assert sorted(read(walk, model, store)) == sorted(first)
    assert walk.left == {(5, "data"): (Limit.NODES, 13)}


def test_a_long_list_of_children_is_cut() -> None:
    store = {ROOT: ["data"], f"{ROOT}/data": [str(n) for n in range(5)]} | {f"{ROOT}/data/{n}": [] for n in range(5)}
    walk = whole()
    read(walk, Model(StoreConfig(guest_children=3)), store)

    assert walk.left == {(5, "data"): (Limit.CHILDREN, 2)}


def test_a_node_that_does_not_fit_is_left_out_with_all_below() -> None:
    store = {ROOT: ["data"], f"{ROOT}/data": ["x"]}
    model = Model(StoreConfig(guest_bytes=20))
    walk = whole()
    read(walk, model, store)

    assert walk.left == {(5, "data"): (Limit.BYTES, 1)}
    assert not model.knows(f"{ROOT}/data")


def test_a_node_that_vanished_gives_its_room_back() -> None:
    store = {ROOT: ["data"], f"{ROOT}/data": ["a", "b"], f"{ROOT}/data/b": ["c"], f"{ROOT}/data/b/c": []}
    walk = whole()
    asked = read(walk, Model(StoreConfig(guest_nodes=3)), store, share=1)

    assert asked[-1] == f"{ROOT}/data/b/c"
    assert walk.left == {}


def test_a_value_that_outgrows_the_cap_while_it_is_read_is_left_out() -> None:
    model = Model(StoreConfig(guest_bytes=200))
    model.apply(Value(f"{ROOT}/data", b"", 0))
    walk = Walk(f"{ROOT}/data", frozenset(AREAS), whole=False)
    walk.take(1)
    model.apply(Value(f"{ROOT}/data", b"x" * 300, 300))
    walk.found(f"{ROOT}/data", ["a"], model)

    assert walk.done
    assert walk.left == {(5, "data"): (Limit.BYTES, 1)}
