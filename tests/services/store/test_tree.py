from hypothesis import given
from hypothesis import strategies as st

from xenmesh.services.store.tree import Leaf, Tree

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda names: "/" + "/".join(names))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), PATHS, st.binary(max_size=2)),
        st.tuples(st.just("remove"), PATHS),
        st.tuples(st.just("cut")),
    ),
    max_size=40,
)


def below(path: str, above: str) -> bool:
    return path == above or path.startswith(f"{above}/")


@given(STEPS)
def test_it_is_a_dictionary_of_paths_whose_cuts_never_change(steps: list[tuple[object, ...]]) -> None:
    tree, mirror, cuts = Tree(), {}, []
    for what, *given_ in steps:
        match what, given_:
            case "set", [str(path), bytes(value)]:
                tree.set(path, value)
                mirror[path] = value
            case "remove", [str(path)]:
                removed = tree.remove(path)
                gone = {each: mirror.pop(each) for each in list(mirror) if below(each, path)}
                assert dict(removed.walk(path) if removed else []) == gone
            case _:
                cuts.append((tree.cut(), dict(mirror)))

    assert dict(tree.walk("/")) == mirror
    assert all(tree.get(path) == value for path, value in mirror.items())
    for root, then in cuts:
        assert dict(root.walk("/")) == then


def test_a_walk_gives_parents_first_and_passes_by_what_is_skipped() -> None:
    tree = Tree()
    for path in ("/a/b/c", "/a", "/a/b", "/d"):
        tree.set(path, path.encode())

    assert [path for path, _ in tree.walk("/")] == ["/a", "/a/b", "/a/b/c", "/d"]
    assert [path for path, _ in tree.cut().walk("/", lambda path: path == "/a/b")] == ["/a", "/d"]
    assert list(tree.walk("/nowhere")) == []


def test_a_node_made_on_the_way_has_children_and_no_value() -> None:
    tree = Tree()
    tree.set("/a/b", Leaf(b"x", 5, secret=False))

    assert tree.get("/a") is None
    assert tree.children("/a") == ("b",)
    assert tree.children("/a/b") == tree.children("/z") == ()
    assert tree.get("/a/b") == Leaf(b"x", 5, secret=False)
    assert tree.remove("/z/y") is None


def test_a_cut_shares_what_did_not_change() -> None:
    tree = Tree()
    tree.set("/a/b", b"1")
    tree.set("/c/d", b"1")
    before = tree.cut()
    tree.set("/a/b", b"2")
    after = tree.cut()

    assert after.find("/c") is before.find("/c")
    assert after.find("/a/b") is not before.find("/a/b")
