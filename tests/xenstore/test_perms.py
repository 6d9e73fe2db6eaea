from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenmesh.xenstore.errors import PermError
from xenmesh.xenstore.perms import Access, Perm

perms = st.builds(Perm, st.sampled_from(Access), st.integers(0, 0xFFFF))


@given(perms)
def test_round_trip(perm: Perm) -> None:
    assert Perm.parse(str(perm)) == perm


@pytest.mark.parametrize("text", ["", "r", "5", "x5", "r-1", "r+1", "r 1", "r1_0", "r1\n", "r٣", "r65536", "r123456"])
def test_no_permission(text: str) -> None:
    with pytest.raises(PermError):
        Perm.parse(text)


def test_what_letters_allow() -> None:
    assert [a.value for a in Access if a.can_read] == ["r", "b"]
    assert [a.value for a in Access if a.can_write] == ["w", "b"]
