from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenmesh.xenstore.errors import PathError
from xenmesh.xenstore.paths import (
    ABSOLUTE_MAX,
    PORTABLE_PATH_MAX,
    RELATIVE_MAX,
    absolute,
    covers,
    is_below,
    is_special,
    parent,
    split,
    validate,
)

elements = st.text("abcXYZ019-_@", min_size=1, max_size=6)
paths = st.lists(elements, max_size=5).map(lambda parts: "/" + "/".join(parts))


@pytest.mark.parametrize("path", ["/", "/a", "/local/domain/0/a-b_c@D", "data/updated", "a", "@releaseDomain", "@x/5"])
def test_legal(path: str) -> None:
    assert validate(path) == path


@pytest.mark.parametrize(
    ("path", "flaw"),
    [
        ("", "empty"),
        ("//", "empty element"),
        ("/a//b", "empty element"),
        ("/a/", "trailing slash"),
        ("a/", "trailing slash"),
        ("/a b", "illegal character"),
        ("/10.0.0.4", "illegal character"),
        ("/fe80::1", "illegal character"),
        ("/a+b", "illegal character"),
        ("/~", "illegal character"),
        ("/a\0b", "illegal character"),
        ("/a\n", "illegal character"),
        ("/ä", "illegal character"),
        ("/٣", "illegal character"),
        ("/" + "a" * ABSOLUTE_MAX, "too long"),
        ("a" * (RELATIVE_MAX + 1), "too long"),
    ],
)
def test_illegal(path: str, flaw: str) -> None:
    with pytest.raises(PathError) as caught:
        validate(path)
    assert caught.value.flaw == flaw
    assert caught.value.origin == "ours"


def test_the_longest() -> None:
    validate("/" + "a" * (ABSOLUTE_MAX - 1))
    validate("a" * RELATIVE_MAX)
    with pytest.raises(PathError):
        validate("/" + "a" * PORTABLE_PATH_MAX, PORTABLE_PATH_MAX)


@given(paths)
def test_split_and_join(path: str) -> None:
    assert validate(path) == path
    assert "/" + "/".join(split(path)) == path


def test_split_others() -> None:
    assert split("@releaseDomain/5") == ("@releaseDomain", "5")
    assert split("data/ts") == ("data", "ts")


@given(paths, elements)
def test_a_child_is_below_its_parent_and_nothing_else_is(path: str, name: str) -> None:
    child = (path if path != "/" else "") + "/" + name

    assert parent(child) == path
    assert is_below(child, path)
    assert not is_below(path, child)
    assert not is_below(path, path)


def test_what_has_no_parent() -> None:
    assert (parent("/"), parent("@x"), parent("a")) == ("/", "@x", "a")
    assert (parent("@x/5"), parent("a/b")) == ("@x", "a")


def test_below_goes_by_whole_elements() -> None:
    assert not is_below("/tree", "/tr")
    assert not is_below("/other/x", "/tree")
    assert not is_below("@releaseDomain", "/")
    assert is_below("@releaseDomain/5", "@releaseDomain")


def test_absolute() -> None:
    assert absolute("data", 5) == "/local/domain/5/data"
    assert absolute("/data", 5) == "/data"
    assert absolute("@releaseDomain", 5) == "@releaseDomain"
    assert is_special("@x")
    assert not is_special("/@x")


@pytest.mark.parametrize(
    ("watched", "path", "depth", "seen"),
    [
        ("/a", "/a", None, True),
        ("/a", "/a/b/c", None, True),
        ("/a", "/ab", None, False),
        ("/a", "/a", 0, True),
        ("/a", "/a/b", 0, False),
        ("/a", "/a/b", 1, True),
        ("/a", "/a/b/c", 1, False),
        ("/", "/a", 1, True),
        ("/", "/a/b", 1, False),
        ("@releaseDomain", "@releaseDomain/5", 1, True),
    ],
)
def test_covers(watched: str, path: str, depth: int | None, seen: bool) -> None:
    assert covers(watched, path, depth) is seen
