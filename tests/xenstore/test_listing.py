from __future__ import annotations

from collections.abc import Callable

import pytest

from xenmesh.xenstore.errors import ListingError, NotFoundError, ReplyError, ServerError
from xenmesh.xenstore.listing import RESTARTS, Listing
from xenmesh.xenstore.messages import Directory, DirectoryPart, Part


def served(listing: Listing, parts: Callable[[int], Part]) -> list[str]:
    """Run a listing that is too long, against a server that answers by offset."""
    assert listing.request == Directory("/a")
    listing.refused(ServerError.of("E2BIG"))
    for _ in range(1000):
        request = listing.request
        assert isinstance(request, DirectoryPart)
        names = listing.answered(request.format_reply(parts(request.offset)))
        if names is not None:
            return names
    pytest.fail("no end")


def test_short() -> None:
    assert Listing("/a").answered(b"b\0c\0") == ["b", "c"]


def test_long() -> None:
    parts = {
        0: Part("7", ["ab", "c"], last=False),
        5: Part("7", ["d"], last=False),
        7: Part("7", ["e"], last=True),
    }

    assert served(Listing("/a"), parts.__getitem__) == ["ab", "c", "d", "e"]


def test_exactly_at_a_border() -> None:
    parts = {0: Part("7", ["a"], last=False), 2: Part("7", [], last=True)}

    assert served(Listing("/a"), parts.__getitem__) == ["a"]


def test_a_change_on_the_way_starts_again() -> None:
    answers = iter(
        [
            (0, Part("7", ["gone", "b"], last=False)),
            (7, Part("8", ["d"], last=True)),
            (0, Part("8", ["b"], last=False)),
            (2, Part("8", ["d"], last=True)),
        ]
    )

    def answer(offset: int) -> Part:
        wanted, part = next(answers)
        assert offset == wanted
        return part

    assert served(Listing("/a"), answer) == ["b", "d"]


def test_a_change_between_refusal_and_first_part_is_none() -> None:
    assert served(Listing("/a"), lambda _: Part("9", ["b"], last=True)) == ["b"]


def test_a_list_that_never_keeps_still() -> None:
    count = iter(range(10 * RESTARTS))

    with pytest.raises(ListingError) as caught:
        served(Listing("/a"), lambda _: Part(str(next(count)), ["b"], last=False))
    assert caught.value.reason == "unsteady"


@pytest.mark.parametrize("code", ["ENOSYS", "EACCES", "EPERM"])
def test_a_server_without_parts(code: str) -> None:
    listing = Listing("/a")
    listing.refused(ServerError.of("E2BIG"))

    with pytest.raises(ListingError) as caught:
        listing.refused(ServerError.of(code))
    assert caught.value.reason == "unsupported"
    assert caught.value.path == "/a"


def test_other_refusals_are_the_callers() -> None:
    listing = Listing("/a")
    with pytest.raises(NotFoundError):
        listing.refused(ServerError.of("ENOENT"))

    listing.refused(ServerError.of("E2BIG"))
    with pytest.raises(NotFoundError):
        listing.refused(ServerError.of("ENOENT"))


def test_a_part_of_nothing_would_never_end() -> None:
    listing = Listing("/a")
    listing.refused(ServerError.of("E2BIG"))

    with pytest.raises(ReplyError):
        listing.answered(b"7\0")
