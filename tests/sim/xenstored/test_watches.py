from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenmesh.sim.xenstored.tree import DOM0_ONLY, READ, Perms, Tree, parent_of
from xenmesh.sim.xenstored.watches import Change, Watch, Watches, readable
from xenmesh.xenstore.perms import Perm

PATHS = ["/", "/a", "/b", "/a/b", "/a/bb", "/a/b/c", "/b/a/c/d"]


@dataclass
class Someone:
    serial: int
    domid: int = 0

    def mask(self, perms: Perms) -> int:
        return perms.mask(self.domid)


def watch(client: Someone, path: str, serial: int, depth: int | None = None) -> Watch[Someone]:
    return Watch(client, path, b"t", path, serial, depth)


def covers(above: str, path: str) -> bool:
    return above in ("/", path) or path.startswith(above + "/")


@pytest.mark.parametrize("newest_first", [False, True])
@given(watched=st.lists(st.sampled_from(PATHS), max_size=12), changed=st.sampled_from(PATHS), gone=st.integers(0, 5))
def test_who_watches_at_or_above_is_found_by_looking_on_the_way(
    newest_first: bool, watched: list[str], changed: str, gone: int
) -> None:
    watches: Watches[Someone] = Watches(newest_first=newest_first)
    all_of_them = [watch(Someone(at % 3), path, at) for at, path in enumerate(watched)]
    for each in all_of_them:
        watches.add(each)
    removed, left = all_of_them[:gone], all_of_them[gone:]
    for each in removed:
        watches.remove(each)

    node = [each for each, _ in watches.seeing(Change(changed, "node", ()))]
    exact = [each for each, _ in watches.seeing(Change(changed, "exact", ()))]
    tree = dict(watches.seeing(Change(changed, "tree", ())))

    assert {id(each) for each in node} == {id(each) for each in left if covers(each.absolute, changed)}
    assert {id(each) for each in exact} == {id(each) for each in left if each.absolute == changed}
    below = {id(each): each.absolute for each in left if covers(changed, each.absolute) and each.absolute != changed}
    assert {id(each): path for each, path in tree.items()} == dict.fromkeys(map(id, node), changed) | below
    if newest_first:
        assert [each.absolute.count("/") for each in node if each.absolute != "/"] == sorted(
            each.absolute.count("/") for each in node if each.absolute != "/"
        )
    else:
        assert [(each.client.serial, each.serial) for each in node] == sorted(
            (each.client.serial, each.serial) for each in node
        )


def test_depth_counts_levels_below() -> None:
    watches: Watches[Someone] = Watches(newest_first=False)
    for depth in (0, 1, None):
        watches.add(watch(Someone(1), "/a", 1, depth))
    assert [each.depth for each, _ in watches.seeing(Change("/a", "node", ()))] == [0, 1, None]
    assert [each.depth for each, _ in watches.seeing(Change("/a/b", "node", ()))] == [1, None]
    assert [each.depth for each, _ in watches.seeing(Change("/a/b/c", "node", ()))] == [None]


@pytest.mark.parametrize(("newest_first", "order"), [(False, [1, 2]), (True, [2, 1])])
def test_special_watches_have_names_for_places(newest_first: bool, order: list[int]) -> None:
    watches: Watches[Someone] = Watches(newest_first=newest_first)
    client = Someone(1)
    first, second = watch(client, "@x", 1), watch(client, "@x", 2)
    watches.add(first)
    watches.add(second)
    assert [each.serial for each in watches.on("@x")] == order
    watches.remove(first)
    watches.remove(second)
    assert watches.on("@x") == []


def test_an_event_is_spelt_as_its_watch_was() -> None:
    relative = Watch(Someone(1, 7), "data", b"", "/local/domain/7/data", 1)
    assert relative.spelt("/local/domain/7/data/x") == "data/x"
    assert watch(Someone(1), "/a", 1).spelt("/a/b") == "/a/b"


@pytest.mark.parametrize(
    ("above", "node", "seen"), [("n0", "n0", False), ("r0", "n0", True), ("n0", "r0", True), ("n7", "n0", True)]
)
def test_who_may_not_read_is_not_told(above: str, node: str, seen: bool) -> None:
    tree = Tree()
    tree.add("/a", b"", Perms((Perm.parse(above),)))
    tree.add("/a/b", b"", Perms((Perm.parse(node),)))
    guest = Someone(1, 7)
    assert readable(guest, "/a/b", (tree,)) is seen
    assert not readable(guest, "/a/b", ())
    assert not readable(guest, parent_of("/x/y/z"), (tree,))
    assert guest.mask(DOM0_ONLY) & READ == 0
