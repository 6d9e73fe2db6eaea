from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xenmesh.schemas.envelope import Event
from xenmesh.schemas.service import Source, SourceState
from xenmesh.schemas.store import Capped, Changed, DomainGone, DomainSeen, Flooding, Limit, Node, Removed
from xenmesh.services.store.config import StoreConfig
from xenmesh.services.store.model import (
    Children,
    Domain,
    Flood,
    Gone,
    Left,
    Lost,
    Model,
    Observation,
    Resynced,
    Value,
    node_of,
)
from xenmesh.services.store.source import recorded

A, B = "6d1b6e7e-0000-4000-8000-00000000000a", "6d1b6e7e-0000-4000-8000-00000000000b"


def model(**settings: object) -> Model:
    return Model(StoreConfig(**settings))  # type: ignore[arg-type]


def value(path: str, text: str | bytes = b"") -> Value:
    raw = text.encode() if isinstance(text, str) else text
    return Value(path, raw, len(raw))


def feed(given_: Model, *observations: Observation) -> list[Event]:
    return [event for observation in observations for event in given_.apply(observation)]


def items(given_: Model, owner: str | None = None) -> list[Event]:
    cut = given_.cut()
    return [item for each, view in cut.items() if owner in (None, each) for item in view]


class Consumer:
    """What anyone makes of the events, from the schemas' docstrings alone."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.nodes: dict[str, Changed] = {}
        self.domains: dict[int, DomainSeen] = {}
        self.capped: dict[tuple[object, str], Capped] = {}
        for event in events:
            self.apply(event)

    def apply(self, event: Event) -> None:
        match event:
            case Changed(path=path):
                self.nodes[path] = event
            case Removed(path=path):
                self.nodes = {
                    each: node for each, node in self.nodes.items() if each != path and not each.startswith(f"{path}/")
                }
            case DomainSeen(domid=domid):
                self.domains[domid] = event
            case DomainGone(domid=domid, generation=generation):
                assert self.domains.pop(domid).generation == generation
            case Capped(domid=domid, area=area, limit=None):
                del self.capped[domid, area]
            case Capped(domid=domid, area=area):
                self.capped[domid, area] = event

    @property
    def values(self) -> dict[str, tuple[object, ...]]:
        return {path: (node.value, node.raw, node.size, node.redacted) for path, node in self.nodes.items()}


def test_a_value_is_said_when_it_changes_and_not_when_it_is_written_again() -> None:
    mine = model()
    path = "/local/domain/5/data/os_name"
    [said] = feed(mine, value(path, "Debian"), value(path, "Debian"))

    assert said == Changed(domid=5, uuid=None, path=path, value="Debian", size=6)
    assert mine.holds(value(path, "Debian"))
    assert [event.value for event in feed(mine, value(path, "BSD")) if isinstance(event, Changed)] == ["BSD"]


def test_a_value_that_is_not_utf8_travels_as_bytes() -> None:
    [said] = feed(model(), value("/tool/x", b"\xff\x00"))

    assert said == Changed(domid=None, uuid=None, path="/tool/x", value=None, raw=b"\xff\x00", size=2)


def test_of_a_secret_only_the_change_is_told() -> None:
    mine = model()
    path = f"/vm/{A}/vncpasswd"
    said = feed(mine, Value(path, b"digest-1", 0, secret=True), Value(path, b"digest-1", 0, secret=True))
    said += feed(mine, Value(path, b"digest-2", 0, secret=True))

    assert said == [Changed(domid=None, uuid=None, path=path, value=None, redacted=True)] * 2
    assert items(mine) == said[:1]


def test_a_cut_value_keeps_its_whole_size() -> None:
    [said] = feed(model(), Value("/tool/x", b"abc", 4000))

    assert (said.value, said.size) == ("abc", 4000)  # type: ignore[attr-defined]
    assert node_of(Value("/tool/x", b"abc", 4000)) == Node(path="/tool/x", value="abc", size=4000)


def test_a_removal_takes_all_below_with_it_and_is_said_once() -> None:
    mine = model()
    feed(mine, value("/tool/a"), value("/tool/a/b"), value("/tool/a/b/c"), value("/tool/ab"))

    assert feed(mine, Gone("/tool/a"), Gone("/tool/a"), Gone("/tool/a/b")) == [Removed(domid=None, uuid=None, path="/tool/a")]
    assert mine.knows("/tool/ab")
    assert mine.nodes == 1


def test_a_listing_removes_the_children_that_it_lacks() -> None:
    mine = model()
    feed(mine, value("/tool/a"), value("/tool/a/b"), value("/tool/a/c"))

    assert feed(mine, Children("/tool/a", frozenset({"c", "new"}))) == [Removed(domid=None, uuid=None, path="/tool/a/b")]
    assert mine.children("/tool/a") == ("c",)


def test_nodes_that_were_only_passed_by_are_never_said_to_be_removed() -> None:
    mine = model()
    feed(mine, value("/tool/a/b"), Gone("/tool/a/b"))

    assert feed(mine, Gone("/tool/a")) == []


def test_a_domain_is_known_by_its_vm_key() -> None:
    mine = model()
    said = feed(mine, Domain(5, listed=True, introduced=False), value("/local/domain/5/vm", f"/vm/{A.upper()}"))
    said += feed(mine, Domain(5, listed=True, introduced=True), Domain(5, listed=True, introduced=True))

    assert said == [
        DomainSeen(domid=5, uuid=None, introduced=False, generation=1),
        DomainSeen(domid=5, uuid=A, introduced=False, generation=1),
        Changed(domid=5, uuid=A, path="/local/domain/5/vm", value=f"/vm/{A.upper()}", size=40),
        DomainSeen(domid=5, uuid=A, introduced=True, generation=1),
    ]
    assert mine.introduced(5)
    assert not mine.introduced(6)
    assert mine.domids == {5}


@pytest.mark.parametrize("vm", ["", "/vm/", "/vm/nonsense", f"{A}", f"/vm/{A}/x", b"\xff\xfe"])
def test_a_vm_key_that_names_no_uuid_names_nobody(vm: str) -> None:
    mine = model()
    feed(
        mine,
        Domain(5, listed=True, introduced=True),
        value("/local/domain/5/vm", vm),
        value("/local/domain/5/data/vm", f"/vm/{B}"),
    )

    assert [item.uuid for item in items(mine) if isinstance(item, DomainSeen)] == [None]


def test_a_uuid_read_before_the_domain_was_asked_after_counts() -> None:
    mine = model()
    feed(mine, value("/local/domain/5/vm", f"/vm/{A}-1"))

    assert feed(mine, Domain(5, listed=True, introduced=True)) == [DomainSeen(domid=5, uuid=A, introduced=True, generation=1)]


def test_a_domain_without_node_and_introduction_is_gone_with_its_nodes() -> None:
    mine = model()
    feed(mine, Domain(5, True, True), value("/local/domain/5"), value("/local/domain/5/vm", f"/vm/{A}"))

    assert feed(mine, Domain(5, False, True)) == [Removed(domid=5, uuid=A, path="/local/domain/5")]
    assert feed(mine, Domain(5, False, False), Domain(5, False, False)) == [DomainGone(domid=5, uuid=A, generation=1)]
    assert feed(mine, Domain(5, True, False)) == [DomainSeen(domid=5, uuid=None, introduced=False, generation=2)]


def test_two_domains_may_have_one_uuid() -> None:
    mine = model()
    feed(mine, *(each for n in (5, 6) for each in (Domain(n, True, True), value(f"/local/domain/{n}/vm", f"/vm/{A}"))))

    assert [(item.domid, item.uuid) for item in items(mine) if isinstance(item, DomainSeen)] == [(5, A), (6, A)]
    assert feed(mine, Domain(5, False, False))[-1] == DomainGone(domid=5, uuid=A, generation=1)
    assert mine.domids == {6}


def test_a_domid_used_again_is_another_domain_and_all_is_said_anew() -> None:
    mine = model()
    said = feed(
        mine,
        Domain(5, True, True),
        value("/local/domain/5"),
        value("/local/domain/5/vm", f"/vm/{A}"),
        value("/local/domain/5/data/x", "1"),
        value("/libxl/5"),
        value("/local/domain/5/vm", f"/vm/{B}"),
    )
    again = said[said.index(Removed(domid=5, uuid=A, path="/local/domain/5")) :]

    assert again[:4] == [
        Removed(domid=5, uuid=A, path="/local/domain/5"),
        Removed(domid=5, uuid=A, path="/libxl/5"),
        DomainGone(domid=5, uuid=A, generation=1),
        DomainSeen(domid=5, uuid=B, introduced=True, generation=2),
    ]
    assert {event.uuid for event in again[4:] if isinstance(event, Changed)} == {B}
    assert Consumer(said).values == Consumer(items(mine)).values


def test_nobody_is_gone_because_xenstored_came_back_empty() -> None:
    mine = model()
    feed(mine, Domain(5, True, True), value("/local/domain/5/vm", f"/vm/{A}"), value("/tool/x"))
    said = feed(mine, Lost("reset"), Gone("/local/domain/5"), Gone("/tool/x"), Domain(5, False, False), Resynced())

    assert said == [
        Source(source="xenstored", state=SourceState.LOST, why="reset", lost=1),
        Removed(domid=5, uuid=A, path="/local/domain/5"),
        Removed(domid=None, uuid=None, path="/tool/x"),
        DomainSeen(domid=5, uuid=A, introduced=False, generation=1, missing=True),
        Source(source="xenstored", state=SourceState.RESYNCED, why="read whole again", lost=1),
    ]
    assert items(mine) == [said[3]]
    assert feed(mine, Domain(5, False, False), Lost("again"), Domain(5, False, False))[1:] == []


def test_a_missing_domain_that_is_seen_again_is_the_same_and_may_leave() -> None:
    mine = model()
    feed(mine, Domain(5, True, True), value("/local/domain/5/vm", f"/vm/{A}"), Lost(""), Domain(5, False, False))
    said = feed(mine, Domain(5, True, True), value("/local/domain/5/vm", f"/vm/{A}"), Domain(5, False, False))

    assert said[0] == DomainSeen(domid=5, uuid=A, introduced=True, generation=1)
    assert said[-1] == DomainGone(domid=5, uuid=A, generation=1)


def test_a_missing_domain_whose_domid_another_has_is_gone() -> None:
    mine = model()
    feed(mine, Domain(5, True, True), value("/local/domain/5/vm", f"/vm/{A}"), Lost(""), Domain(5, False, False))
    said = feed(mine, Domain(5, True, True), value("/local/domain/5/vm", f"/vm/{B}"))

    assert DomainGone(domid=5, uuid=A, generation=1) in said
    assert DomainSeen(domid=5, uuid=B, introduced=True, generation=2) in said


def test_a_domain_that_survived_the_loss_is_not_said_again() -> None:
    mine = model()
    feed(mine, Domain(5, True, True))

    assert len(feed(mine, Lost(""), Domain(5, True, True), Resynced())) == 2
    assert feed(mine, Domain(5, False, False)) == [DomainGone(domid=5, uuid=None, generation=1)]


def test_the_end_of_the_first_reading_is_no_return() -> None:
    assert feed(model(), Resynced()) == []


def test_nodes_and_bytes_are_capped_by_area_and_by_domain() -> None:
    mine = model(guest_nodes=2, guest_bytes=200, guest_all_nodes=3, guest_all_bytes=300)
    feed(mine, value("/local/domain/5/data/a"), value("/local/domain/5/data/b"))

    assert mine.refuses("/local/domain/5/data/c") is Limit.NODES
    assert mine.refuses("/local/domain/5/attr/c") is None
    assert mine.refuses("/local/domain/5/attr/c", ahead=1) is Limit.NODES
    assert mine.refuses("/local/domain/0/data/c") is mine.refuses("/tool/x") is None
    assert feed(mine, value("/local/domain/5/data/c")) == []
    feed(mine, value("/local/domain/5/data/a", "x" * 120))
    assert feed(mine, value("/local/domain/5/data/b", "x" * 120)) == [
        Removed(domid=5, uuid=None, path="/local/domain/5/data/b")
    ]
    assert mine.refuses("/local/domain/5/data/" + "y" * 60) is Limit.BYTES
    assert feed(mine, value("/local/domain/5/data/a", "x" * 110))


def test_depth_is_capped_below_the_domain() -> None:
    mine = model(guest_depth=3)

    assert mine.refuses("/local/domain/5/a/b/c") is None
    assert mine.refuses("/local/domain/5/a/b/c/d") is Limit.DEPTH
    assert mine.refuses("/libxl/5/a/b") is Limit.DEPTH
    assert mine.refuses("/vm/x/a/b/c/d") is None
    assert mine.fans_out("/local/domain/5/a") == 256


def test_what_is_left_out_is_said_when_it_changes() -> None:
    mine = model()
    where = (5, "data")
    assert feed(mine, Left(5, {where: (Limit.NODES, 3)})) == [
        Capped(domid=5, uuid=None, area="data", limit=Limit.NODES, left_out=3)
    ]
    assert mine.capped(5)
    assert feed(mine, Left(5, {where: (Limit.NODES, 3)})) == []
    assert items(mine, "store.5") == [Capped(domid=5, uuid=None, area="data", limit=Limit.NODES, left_out=3)]
    assert feed(mine, Left(5, {})) == [Capped(domid=5, uuid=None, area="data", limit=None, left_out=0)]
    assert not mine.capped(5)
    feed(mine, Left("/tool", {(None, "tool"): (Limit.CHILDREN, 1)}))
    assert len(items(mine, "store.host")) == 1


def test_a_flood_is_passed_on() -> None:
    mine = model()
    feed(mine, Domain(5, True, True), value("/local/domain/5/vm", f"/vm/{A}"))

    assert feed(mine, Flood(5, active=True, dropped=7)) == [Flooding(domid=5, uuid=A, active=True, dropped=7)]


def test_a_cut_has_an_owner_for_each_domain_and_one_for_the_host() -> None:
    mine = model()
    feed(
        mine,
        value("/tool/x"),
        value("/libxl"),
        value("/libxl/5/type"),
        value("/local/domain/7/name", "g"),
        Domain(7, True, True),
    )
    cut = mine.cut()
    feed(mine, Gone("/tool/x"), value("/local/domain/7/name", "other"))

    assert list(cut) == ["store.host", "store.5", "store.7"]
    assert [item.path for item in cut["store.host"] if isinstance(item, Changed)] == ["/tool/x", "/libxl"]
    assert [type(item) for item in cut["store.7"]] == [DomainSeen, Changed]
    assert [item.value for item in cut["store.7"] if isinstance(item, Changed)] == ["g"]
    assert list(cut["store.7"]) == list(cut["store.7"])


DOMID = st.sampled_from([0, 5, 6])
PATH = st.builds(
    lambda root, rest: "/".join([root, *rest]),
    st.one_of(
        DOMID.map(lambda n: f"/local/domain/{n}"), DOMID.map(lambda n: f"/libxl/{n}"), st.just("/tool"), st.just("/vm/x")
    ),
    st.lists(st.sampled_from(["data", "a", "b"]), max_size=3),
)
OBSERVATION: st.SearchStrategy[Observation] = st.one_of(
    st.builds(value, PATH, st.binary(max_size=3)),
    st.builds(lambda path, digest: Value(path, digest, 0, True), PATH, st.binary(min_size=1, max_size=1)),
    st.builds(lambda n, uuid: value(f"/local/domain/{n}/vm", f"/vm/{uuid}"), DOMID, st.sampled_from([A, B])),
    st.builds(Gone, PATH),
    st.builds(Children, PATH, st.frozensets(st.sampled_from(["data", "a", "b", "vm"]))),
    st.builds(Domain, DOMID, st.booleans(), st.booleans()),
    st.builds(
        Left,
        DOMID,
        st.dictionaries(
            st.tuples(st.just(5), st.sampled_from(["data", "attr"])), st.tuples(st.sampled_from(Limit), st.integers(1, 3))
        ),
    ).map(lambda left: Left(5, left.left)),
    st.sampled_from([{}, {(None, "tool"): (Limit.CHILDREN, 2)}]).map(lambda left: Left("/tool", left)),  # type: ignore[arg-type]
    st.builds(Flood, DOMID, st.booleans(), st.integers(0, 9)),
    st.builds(Lost, st.just("gone")),
    st.just(Resynced()),
)


@given(st.lists(OBSERVATION, max_size=60), st.integers(0, 60))
def test_a_snapshot_and_the_events_after_it_are_the_state(observations: list[Observation], at: int) -> None:
    mine = model(guest_nodes=6, guest_bytes=400)
    whole = Consumer(feed(mine, *observations[:at]))
    later = Consumer(items(mine))
    for event in feed(mine, *observations[at:]):
        whole.apply(event)
        later.apply(event)
    now = Consumer(items(mine))

    assert now.values == whole.values == later.values
    assert now.domains == whole.domains == later.domains
    assert now.capped.keys() == whole.capped.keys() == later.capped.keys()
    assert mine.nodes == len(now.nodes)


VM_A, VM_B = value("/local/domain/5/vm", f"/vm/{A}"), value("/local/domain/5/vm", f"/vm/{B}")
PRESENT, ABSENT = Domain(5, listed=True, introduced=False), Domain(5, listed=False, introduced=False)
KEY = value("/local/domain/5/data", "1")


def same(one: Model, other: Model) -> bool:
    mine, theirs = Consumer(items(one)), Consumer(items(other))
    return (mine.values, mine.domains, mine.capped) == (theirs.values, theirs.domains, theirs.capped)


@given(st.lists(OBSERVATION, max_size=60))
@example([PRESENT, Lost("gone"), PRESENT, ABSENT]).via("a domain that is gone after a loss")
@example([PRESENT, VM_A, Lost("gone"), ABSENT, VM_B]).via("a missing domain whose domid is used again")
@example([PRESENT, KEY, VM_A, KEY, VM_B]).via("the vm key of a domid used again")
@example([PRESENT, Lost("gone"), ABSENT, VM_A]).via("a missing domain whose uuid is read")
@example([PRESENT, Lost("gone"), ABSENT, KEY, VM_A]).via("a missing domain whose uuid is read after other nodes")
def test_a_recorded_stream_makes_the_same_events_again(observations: list[Observation]) -> None:
    live, replayed = model(), model()
    events = feed(live, *observations)

    assert feed(replayed, *recorded(events)) == events
    assert same(replayed, live)


@given(st.lists(OBSERVATION, max_size=60))
@example([PRESENT, Lost("gone"), ABSENT]).via("a missing domain")
@example([PRESENT, Lost("gone"), ABSENT, KEY, VM_A]).via("a missing domain with nodes")
def test_a_recorded_snapshot_makes_the_same_state(observations: list[Observation]) -> None:
    live, replayed = model(), model()
    feed(live, *observations)
    feed(replayed, *recorded(items(live)))

    assert same(replayed, live)


def test_the_missing_are_not_present() -> None:
    mine = model()
    feed(mine, Domain(5, True, True), Domain(6, True, True), Lost("gone"), Domain(5, False, False))

    assert mine.domids == {5, 6}
    assert mine.present == {6}
