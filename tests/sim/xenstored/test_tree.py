from hypothesis import given
from hypothesis import strategies as st

from xenmesh.sim.xenstored.tree import DOM0_ONLY, OWNER, READ, WRITE, Node, Perms, Tree, names_of, parent_of
from xenmesh.xenstore.perms import Perm

PATHS = ["/" + "/".join(names) for names in (["a"], ["b"], ["a", "b"], ["a", "c"], ["a", "b", "a"], ["b", "a"])]
OPS = st.lists(
    st.tuples(st.sampled_from(["add", "value", "perms", "remove", "snapshot"]), st.sampled_from(PATHS), st.integers(0, 4)),
    max_size=40,
)
Content = list[tuple[str, bytes, tuple[Perm, ...]]]


def perms(*entries: str) -> Perms:
    return Perms(tuple(Perm.parse(entry) for entry in entries))


def content(tree: Tree) -> Content:
    return [(path, node.value, node.perms.entries) for path, node in tree.walk()]


def change(tree: Tree, op: str, path: str, number: int) -> None:
    node, above = tree.get(path), tree.get(parent_of(path))
    if op == "add" and node is None and above is not None:
        tree.add(path, b"%d" % number, above.perms if number == 0 else perms(f"n{number}", "r1"))
    elif node is not None and op == "value":
        tree.set_value(path, b"%d" % number)
    elif node is not None and op == "perms":
        tree.set_perms(path, perms(f"b{number}", "r3"))
    elif node is not None and op == "remove":
        tree.remove(path)


@given(OPS)
def test_a_snapshot_stays_as_it_was(ops: list[tuple[str, str, int]]) -> None:
    tree = Tree()
    kept: list[tuple[Tree, Content]] = []
    for op, path, number in ops:
        if op == "snapshot":
            kept.append((tree.snapshot(), content(tree)))
        change(tree, op, path, number)
    assert [content(copy) for copy, _ in kept] == [was for _, was in kept]


@given(OPS, OPS)
def test_a_snapshot_goes_its_own_way(before: list[tuple[str, str, int]], after: list[tuple[str, str, int]]) -> None:
    tree = Tree()
    for step in before:
        change(tree, *step)
    was = content(tree)
    copy = tree.snapshot()
    for step in after:
        change(copy, *step)
    assert content(tree) == was
    now = content(copy)
    tree.adopt(copy)
    assert content(tree) == now


@given(OPS)
def test_what_a_domain_has_is_counted_and_found(ops: list[tuple[str, str, int]]) -> None:
    tree = Tree()
    for op, path, number in ops:
        if op == "snapshot":
            copy = tree.snapshot()
            change(copy, "add", path, number)
            tree.of(number)  # may forget places while the copy still has them
            tree.adopt(copy)
        else:
            change(tree, op, path, number)
        nodes = list(tree.walk())
        for domid in range(1, 5):
            assert tree.of(domid) == [(path, node) for path, node in nodes if domid in [of for _, of in node.perms.entries]]
            assert tree.owned_by(domid) == sum(node.perms.owner == domid for _, node in nodes)


@given(OPS)
def test_a_generation_changes_with_its_node_and_never_comes_back(ops: list[tuple[str, str, int]]) -> None:
    tree = Tree()
    seen: dict[int, Node] = {}
    for step in ops:
        change(tree, *step)
        assert all(node.generation <= tree.generation for _, node in tree.walk())
        node = tree.get("/a")
        if node is not None:
            was = seen.setdefault(node.generation, node.copied(None))
            assert (was.value, was.perms, list(was.children)) == (node.value, node.perms, list(node.children))


def test_a_domain_with_very_many_places_is_still_found() -> None:
    tree = Tree()
    for number in range(5000):
        tree.add(f"/n{number}", b"", perms("n7"))
    assert len(tree.of(7)) == 5000


def test_rights() -> None:
    mine = perms("n5", "r7", "w8", "b9")
    assert [mine.mask(domid) for domid in (0, 5, 6, 7, 8, 9)] == [
        READ | WRITE | OWNER,
        READ | WRITE | OWNER,
        0,
        READ,
        WRITE,
        READ | WRITE,
    ]
    assert mine.owned_by(6).entries == perms("n6", "r7", "w8", "b9").entries
    assert DOM0_ONLY.owned_by(0) is DOM0_ONLY


def test_paths() -> None:
    assert names_of("/") == []
    assert names_of("/a/b") == ["a", "b"]
    assert names_of("@introduceDomain") == ["@introduceDomain"]
    assert parent_of("/a/b") == "/a"
    assert parent_of("/a") == parent_of("/") == "/"


def test_children_take_the_order_they_are_given() -> None:
    tree = Tree()
    for name in "abc":
        tree.add(f"/{name}", b"", DOM0_ONLY)
    tree.arrange("/", ["c", "gone", "a"])
    assert list(tree.root.children) == ["c", "a", "b"]
    tree.clear()
    assert content(tree) == [("/", b"", DOM0_ONLY.entries)]
