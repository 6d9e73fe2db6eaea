"""Cuts: of one moment, shared, paged, bounded."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from xenmesh.bus.snapshot import Cut, Cuts, OpenCut
from xenmesh.schemas.envelope import Event
from xenmesh.schemas.request import SnapshotPage
from xenmesh.schemas.store import Changed

decode = msgspec.json.Decoder(SnapshotPage).decode


def node(owner: int, number: int, size: int = 1) -> Changed:
    return Changed(domid=owner, uuid=None, path=f"/local/domain/{owner}/data/{number}", value="v" * size)


def read(cut: OpenCut, owner: str | None = None) -> list[str]:
    """Paths of all pages, and a check of what every page says."""
    paths: list[str] = []
    number: int | None = 0
    while number is not None:
        data = cut.page(number, owner)
        assert data is not None
        page = decode(data)
        assert (page.boot, page.seq, page.cut, page.page) == (cut.boot, cut.seq, cut.name, number)
        assert page.next in {None, number + 1}
        paths += [msgspec.json.decode(raw, type=Changed).path for raw in page.items]
        number = page.next
    return paths


@settings(deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(0, 300), max_size=8), max_size=6), size=st.integers(1, 800), start=st.integers(0, 20)
)
def test_pages_hold_every_item_once_in_order(sizes: list[list[int]], size: int, start: int) -> None:
    whole: Cut = {f"store.{owner}": tuple(node(owner, n, s) for n, s in enumerate(items)) for owner, items in enumerate(sizes)}
    cut = OpenCut(1, "boot", 7, whole, size)
    beyond = cut.page(start)  # a page out of turn is the same as in turn
    expected = [item.path for items in whole.values() for item in items if isinstance(item, Changed)]
    assert read(cut) == expected
    assert cut.page(start) == beyond
    for owner, items in whole.items():
        assert read(cut, owner) == [item.path for item in items if isinstance(item, Changed)]
    assert read(cut, "store.99") == []
    assert cut.page(10_000) is None


def test_a_page_ends_before_its_size_but_holds_at_least_one_item() -> None:
    cut = OpenCut(1, "boot", 1, {"store.1": tuple(node(1, n, 100) for n in range(10)), "store.2": (node(2, 0, 5000),)}, 1000)
    sizes = []
    number: int | None = 0
    while number is not None:
        data = cut.page(number)
        assert data is not None
        page = decode(data)
        sizes.append(sum(len(bytes(raw)) for raw in page.items))
        number = page.next
    assert all(size <= 1000 for size in sizes[:-1])
    assert sizes[-1] > 5000


def test_an_owner_may_be_asked_for_page_by_page() -> None:
    cut = OpenCut(1, "b", 1, {"store.1": tuple(node(1, n, 50) for n in range(20)), "store.2": (node(2, 0),)}, 300)
    assert len(read(cut, "store.1")) == 20
    assert read(cut, "store.2") == ["/local/domain/2/data/0"]


def test_all_who_ask_at_the_same_seq_share_a_cut_and_its_encoded_pages() -> None:
    cuts, made = Cuts("b", most=2, kept=30, page=100), 0

    def make() -> dict[str, tuple[Event, ...]]:
        nonlocal made
        made += 1
        return {"store.1": (node(1, made),)}

    first = cuts.open(5, 0.0, make, arrived=cuts.made)
    assert first is not None
    assert first is cuts.open(5, 1.0, make, arrived=cuts.made)
    assert first.page(0) is first.page(0)
    second = cuts.open(6, 2.0, make, arrived=cuts.made)
    assert second is not None
    assert second is not first
    assert read(first) == ["/local/domain/1/data/1"]
    assert made == 2


def test_a_full_house_waits_for_one_that_is_idle_and_all_who_wait_share_the_next() -> None:
    cuts = Cuts("b", most=2, kept=30, page=100)
    for seq in (1, 2):
        assert cuts.open(seq, 0.0, dict, arrived=cuts.made)
    arrived = cuts.made
    assert cuts.open(3, 1.0, dict, arrived=arrived) is None
    assert cuts.find("b-2", 2.5) is not None
    shared = cuts.open(4, 2.6, dict, arrived=arrived)
    assert shared is not None
    assert shared.seq == 4
    assert cuts.open(5, 2.7, dict, arrived=arrived) is shared  # made after that question came
    assert cuts.open(5, 2.8, dict, arrived=cuts.made) is None  # came after it was made
    assert cuts.find("b-1", 2.8) is None
    assert len(cuts) == 2


def test_a_cut_is_kept_for_a_while_after_it_was_last_asked_for() -> None:
    cuts = Cuts("b", most=9, kept=30, page=100)
    made = cuts.open(1, 0.0, dict, arrived=0)
    assert made is not None
    assert cuts.find(made.name, 29.0) is made
    assert cuts.find(made.name, 58.0) is made
    assert cuts.find(made.name, 89.0) is None
    assert len(cuts) == 0
    assert cuts.find("nonsense", 0.0) is None


def test_few_pages_stay_encoded() -> None:
    cut = OpenCut(1, "b", 1, {"store.1": tuple(node(1, n, 50) for n in range(100))}, 100)
    assert len(read(cut)) == 100
    assert len(cut._encoded) == 16
