from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenmesh.schemas.envelope import Event
from xenmesh.schemas.store import Capped, Changed, Limit
from xenmesh.services.store.config import StoreConfig
from xenmesh.services.store.model import Gone, Model, Observation, Value
from xenmesh.services.store.redaction import Redaction
from xenmesh.services.store.rounds import ROUND, SHARE, WALKING, Batch, Lane, Rounds, is_domid, value_of
from xenmesh.xenstore.errors import ServerError
from xenmesh.xenstore.messages import Directory, IsDomainIntroduced, Read

GUEST = "/local/domain/5"


class Store:
    """A xenstored that is a dictionary: answers, and tells the events that a real one would send."""

    def __init__(self) -> None:
        self.nodes: dict[str, bytes] = {"/": b""}
        self.introduced: set[int] = set()
        self.asked: list[object] = []
        self.refuses: dict[type, str] = {}

    def write(self, path: str, value: bytes = b"") -> str:
        above = path.rpartition("/")[0]
        while above and above not in self.nodes:
            self.nodes[above] = b""
            above = above.rpartition("/")[0]
        self.nodes[path] = value
        return path

    def rm(self, path: str) -> str:
        self.nodes = {each: value for each, value in self.nodes.items() if each != path and not each.startswith(f"{path}/")}
        return path

    def answer(self, request: object) -> object:
        self.asked.append(request)
        match request:
            case Read(path):
                return self.nodes[path] if path in self.nodes else ServerError.of("ENOENT")
            case Directory(path):
                if refusal := self.refuses.get(Directory):
                    return ServerError.of(refusal)
                if path not in self.nodes:
                    return ServerError.of("ENOENT")
                return [each.rpartition("/")[2] for each in self.nodes if each != "/" and each.rpartition("/")[0] == path]
            case IsDomainIntroduced(domid):
                return domid in self.introduced
        raise AssertionError(request)

    def below(self, *roots: str) -> dict[str, bytes]:
        return {
            path: value
            for path, value in self.nodes.items()
            if any(path == root or path.startswith(f"{root}/") for root in roots)
        }


class Rig:
    """Rounds over a store; the lanes of `lanes` are read whole at first."""

    def __init__(self, *lanes: int | str, **settings_: object) -> None:
        self.store = Store()
        self.config = StoreConfig(**settings_)  # type: ignore[arg-type]
        self.model = Model(self.config)
        self.counters: Counter[str] = Counter()
        self.rounds = Rounds(self.config, self.model, Redaction(self.config.secrets, b"key"), self.counters)
        self.events: list[Event] = []
        self.now = 0.0
        for key in lanes:
            self.rounds.walk(self.rounds.open(key, 0.0))
        self.run()
        self.store.asked.clear()

    def take(self, observations: Iterable[Observation]) -> None:
        for observation in observations:
            self.events += self.model.apply(observation)

    def round(self, during: Callable[[object], None] = lambda _: None) -> Batch:
        batch = self.rounds.next(self.now)
        answers = []
        for request in batch.requests:
            answers.append(self.store.answer(request))
            during(request)
        self.take(self.rounds.digest(batch, answers))
        self.take(self.rounds.applied(batch, self.now))
        return batch

    def run(self) -> None:
        for _ in range(1000):
            if self.rounds.due() > self.now:
                return
            self.round()
        raise AssertionError("it never ends")

    def lane(self, key: int | str = 5) -> Lane:
        return self.rounds.lanes[key]

    def asked(self) -> list[str]:
        return [request.path for request in self.store.asked if isinstance(request, Read)]

    @property
    def kept(self) -> dict[str, bytes]:
        return {
            item.path: (item.value or "").encode() if item.raw is None else item.raw
            for view in self.model.cut().values()
            for item in view
            if isinstance(item, Changed)
        }


def test_a_change_costs_one_read() -> None:
    rig = Rig(5)
    rig.store.write(f"{GUEST}/data/x", b"1")
    rig.rounds.mark([f"{GUEST}/data/x"])
    rig.run()
    rig.store.asked.clear()
    rig.events.clear()
    rig.rounds.mark([rig.store.write(f"{GUEST}/data/x", b"2")])
    rig.run()

    assert rig.store.asked == [Read(f"{GUEST}/data/x")]
    assert [event.value for event in rig.events if isinstance(event, Changed)] == ["2"]


def test_parents_made_on_the_way_are_read_too() -> None:
    rig = Rig(5, "/tool")
    rig.rounds.mark([rig.store.write(f"{GUEST}/data/a/b", b"1"), rig.store.write("/tool/x/y")])
    rig.run()

    assert rig.kept == rig.store.below(GUEST, "/tool")


def test_parents_are_read_even_if_the_node_is_gone_again() -> None:
    rig = Rig(5)
    rig.rounds.mark([rig.store.write(f"{GUEST}/data/a/b", b"1")])
    rig.store.rm(f"{GUEST}/data/a/b")
    rig.run()

    assert rig.kept == rig.store.below(GUEST)


def test_a_parent_that_appears_between_two_reads_is_read_again() -> None:
    rig = Rig(5)
    rig.store.write(GUEST)
    rig.rounds.mark([f"{GUEST}/data/a"])
    rig.round(lambda request: rig.store.write(f"{GUEST}/data/a") and None if request == Read(f"{GUEST}/data") else None)
    rig.run()

    assert rig.kept == rig.store.below(GUEST)


def test_a_node_removed_and_made_anew_loses_its_former_children() -> None:
    rig = Rig(5)
    rig.rounds.mark([rig.store.write(f"{GUEST}/data/a/b/c", b"1"), rig.store.write(f"{GUEST}/data/a/b", b"2")])
    rig.run()
    rig.store.rm(f"{GUEST}/data/a")
    rig.rounds.mark([f"{GUEST}/data/a", rig.store.write(f"{GUEST}/data/a/b/d")])
    rig.run()

    assert rig.kept == rig.store.below(GUEST)


def test_an_unreadable_node_is_gone() -> None:
    rig = Rig(5)
    rig.rounds.mark([rig.store.write(f"{GUEST}/data/x", b"1")])
    rig.run()
    rig.rounds.mark([f"{GUEST}/data/x"])
    batch = rig.rounds.next(0)

    assert rig.rounds.digest(batch, [ServerError.of("EACCES")]) == [Gone(f"{GUEST}/data/x")]


def test_a_directory_that_cannot_be_listed_keeps_the_children_that_are_known() -> None:
    rig = Rig(5)
    rig.rounds.mark([rig.store.write(f"{GUEST}/data/x", b"1")])
    rig.run()
    rig.store.refuses[Directory] = "E2BIG"
    rig.rounds.mark([rig.store.write(f"{GUEST}/data", b"new")])
    rig.run()

    assert rig.kept == rig.store.below(GUEST)


def test_an_unconfigured_area_is_never_asked_for() -> None:
    rig = Rig(5, areas=("attr",))
    rig.rounds.mark([rig.store.write(f"{GUEST}/data/x"), rig.store.write(f"{GUEST}/attr/x")])
    rig.run()

    assert set(rig.asked()) == {GUEST, f"{GUEST}/attr", f"{GUEST}/attr/x"}


def test_paths_of_nobody_are_passed_by() -> None:
    rig = Rig(5)
    rig.rounds.mark(["/local/domain/6/data/x", "/other/x", "/local/domain", "/local/domain/x/y", "/local/domain/05/y"])

    assert rig.round().requests == []


def test_libxl_speaks_of_domains_before_they_are_there() -> None:
    rig = Rig("/libxl", 5)
    rig.rounds.mark([rig.store.write("/libxl/7/type"), rig.store.write("/libxl/5/type"), rig.store.write("/libxl/x")])
    assert rig.rounds.hinted == {7}
    rig.rounds.hinted.clear()
    rig.rounds.walk(rig.lane("/libxl"))
    rig.run()

    assert rig.rounds.hinted == {7}


def test_no_lane_takes_more_than_its_share_of_a_round() -> None:
    rig = Rig(5, 6)
    for n in range(100):
        rig.rounds.mark([rig.store.write(f"{GUEST}/data/k{n:03}")])
    rig.rounds.mark([rig.store.write("/local/domain/6/data/x")])
    batch = rig.round()

    assert batch.taken == {rig.lane(5): SHARE, rig.lane(6): 1}
    assert rig.lane(5).behind(rig.rounds.number)
    assert not rig.lane(6).behind(rig.rounds.number)
    assert not rig.rounds.passed(rig.rounds.number)
    rig.run()
    assert rig.rounds.passed(rig.rounds.number)
    assert rig.kept == rig.store.below(GUEST, "/local/domain/6")


def test_a_path_that_became_a_walk_is_passed_when_the_walk_ends() -> None:
    rig = Rig(5)
    rig.store.write(f"{GUEST}/data/a/b")
    rig.rounds.walk(rig.lane())
    rig.run()
    rig.store.rm(f"{GUEST}/data")
    rig.store.write(f"{GUEST}/data/a/c")
    rig.rounds.mark([f"{GUEST}/data"])
    number = rig.rounds.number

    while not rig.rounds.passed(number):
        rig.rounds.mark([rig.store.write(f"{GUEST}/name", b"%d" % rig.rounds.number)])
        rig.round()
    assert f"{GUEST}/data/a/b" not in rig.kept
    assert rig.rounds.number < 10


def test_what_a_domain_that_went_had_to_read_elsewhere_is_not_passed() -> None:
    rig = Rig(0, 5)
    path = rig.store.write("/local/domain/0/backend/vif/5/0/state", b"4")
    rig.rounds.mark([path])
    number = rig.rounds.number
    rig.rounds.close(5)

    assert not rig.rounds.passed(number)
    rig.run()
    assert rig.rounds.passed(number)
    assert rig.kept[path] == b"4"


def test_a_round_is_bounded_and_those_left_over_come_first_in_the_next() -> None:
    domids = range(1, 60)
    rig = Rig(*domids)
    for n in domids:
        for key in range(20):
            rig.rounds.mark([rig.store.write(f"/local/domain/{n}/data/k{key}")])
        rig.rounds.walk(rig.lane(n))
    first, second = rig.round(), rig.round()

    for batch in (first, second):
        assert sum(batch.taken.values()) <= ROUND
        assert sum(walk is not None for _, walk, _ in batch.items) <= WALKING
    assert len(first.taken.keys() & second.taken.keys()) <= 1
    rig.run()
    assert rig.kept == rig.store.below(*(f"/local/domain/{n}" for n in domids))


def test_a_flooding_domain_is_shed_and_read_slowly_until_it_is_quiet() -> None:
    rig = Rig(5, 6, guest_burst=10, guest_rate=1, flood_interval=5.0, flood_quiet=20.0, flood_changes=1)
    for n in range(40):
        rig.rounds.mark([rig.store.write(f"{GUEST}/data/k{n}")])
    rig.run()
    assert rig.rounds.shed == [rig.lane()]
    assert rig.lane().shedding is not None
    assert rig.counters["source.floods"] == 1

    rig.rounds.mark([rig.store.write("/local/domain/6/data/x"), rig.store.write(f"{GUEST}/data/late")])
    rig.run()
    assert "/local/domain/6/data/x" in rig.kept
    assert f"{GUEST}/data/late" not in rig.kept
    assert rig.rounds.due() == 5.0

    rig.now = 5.0
    rig.run()
    assert rig.kept == rig.store.below(GUEST, "/local/domain/6")
    rig.store.write(f"{GUEST}/data/k1", b"a")
    rig.store.rm(f"{GUEST}/data/k2")
    rig.now = 10.0
    rig.run()
    assert rig.kept == rig.store.below(GUEST, "/local/domain/6")
    for rig.now in (15.0, 20.0, 25.0):
        rig.run()
        assert not rig.rounds.restored
    rig.now = 30.0
    rig.run()
    assert rig.rounds.restored == [rig.lane()]
    assert rig.lane().shedding.folded >= 10
    rig.lane().shedding = None
    rig.run()
    assert rig.rounds.due() == float("inf")


def test_a_shed_domain_with_something_left_out_is_not_due_before_its_time() -> None:
    rig = Rig(5, guest_burst=10, guest_rate=1, guest_nodes=5, flood_interval=5.0)
    for n in range(40):
        rig.rounds.mark([rig.store.write(f"{GUEST}/data/k{n}")])
        rig.round()
    rig.run()
    assert rig.lane().shedding is not None
    rig.rounds.mark([f"{GUEST}/data/k1"])
    rig.now = 5.0
    rig.run()

    assert rig.model.capped(5)
    assert rig.rounds.due() == 10.0


def test_backends_are_on_the_account_of_the_domain_that_they_serve() -> None:
    backend = "/local/domain/0/backend/vif/5/0/state"
    rig = Rig(0, 5, guest_burst=2, guest_rate=1)
    rig.rounds.mark([rig.store.write(backend, b"1"), rig.store.write("/local/domain/0/backend/vif/9/0/state", b"1")])
    rig.run()
    assert rig.kept == rig.store.below("/local/domain/0")

    rig.rounds.mark([rig.store.write(backend, b"2")])
    rig.run()
    assert rig.rounds.shed == [rig.lane(5)]
    rig.now = 5.0
    rig.run()
    assert rig.kept == rig.store.below("/local/domain/0")


def test_a_domain_that_goes_leaves_its_backends_to_dom0() -> None:
    backend = "/local/domain/0/backend/vif/5/0"
    rig = Rig(0, 5)
    rig.rounds.mark([rig.store.write(f"{backend}/state", b"1"), rig.store.write(backend, b"x")])
    rig.run()
    rig.rounds.mark([rig.store.rm(f"{backend}/state")])
    rig.rounds.close(5)
    rig.rounds.close(5)
    rig.run()

    assert rig.kept == rig.store.below("/local/domain/0")


def test_what_does_not_fit_is_said_once_and_read_when_there_is_room() -> None:
    rig = Rig(5, guest_nodes=4, capped_interval=5.0)
    for n in range(6):
        rig.rounds.mark([rig.store.write(f"{GUEST}/data/k{n}")])
    rig.run()
    capped = [event for event in rig.events if isinstance(event, Capped)]
    assert capped == [Capped(domid=5, uuid=None, area="data", limit=Limit.NODES, left_out=3)]
    assert len(rig.kept) == 5

    rig.now = 1.0
    rig.rounds.mark([rig.store.rm(f"{GUEST}/data/k{n}") for n in range(6) if f"{GUEST}/data/k{n}" in rig.kept][:3])
    rig.run()
    rig.now = 5.0
    rig.run()

    assert rig.kept == rig.store.below(GUEST)
    assert [event.limit for event in rig.events if isinstance(event, Capped)] == [Limit.NODES, None]
    assert rig.rounds.due() == float("inf")


def test_a_value_that_outgrows_the_cap_is_left_out_and_said() -> None:
    rig = Rig(5, guest_bytes=100)
    rig.rounds.mark([rig.store.write(f"{GUEST}/data/x", b"1")])
    rig.run()
    rig.rounds.mark([rig.store.write(f"{GUEST}/data/x", b"1" * 200)])
    rig.run()

    assert f"{GUEST}/data/x" not in rig.kept
    assert [event.limit for event in rig.events if isinstance(event, Capped)] == [Limit.BYTES]


def test_a_walk_of_a_part_that_does_not_fit_has_the_whole_read() -> None:
    rig = Rig(5, guest_nodes=3)
    rig.rounds.mark([rig.store.write(f"{GUEST}/data/a/b")])
    rig.run()
    rig.store.write(f"{GUEST}/data/a/c")
    rig.rounds.mark([f"{GUEST}/data/a"])
    rig.run()

    assert [event.left_out for event in rig.events if isinstance(event, Capped)] == [1]


def test_a_domain_is_asked_after_when_its_root_comes_or_goes() -> None:
    rig = Rig(5)
    rig.store.introduced.add(5)
    rig.rounds.mark([rig.store.write(f"{GUEST}/name", b"g")])
    rig.run()
    assert rig.model.domids == {5}
    assert not rig.rounds.asking

    rig.store.introduced.clear()
    rig.rounds.mark([rig.store.rm(GUEST)])
    rig.run()
    assert rig.model.domids == set()


def test_a_released_domain_is_read_whole() -> None:
    rig = Rig(5)
    rig.store.introduced.add(5)
    rig.store.write(f"{GUEST}/data/x")
    rig.rounds.ask_after([5])
    rig.rounds.walk(rig.lane())
    rig.run()
    rig.store.introduced.clear()
    rig.store.rm(f"{GUEST}/data")
    rig.rounds.ask_after([5])
    rig.run()

    assert rig.kept == rig.store.below(GUEST)
    assert not rig.model.introduced(5)


def test_after_a_loss_nothing_is_left_to_read_and_all_is_to_be_read_whole() -> None:
    rig = Rig(5)
    rig.rounds.mark([f"{GUEST}/data/x"])
    rig.rounds.ask_after([5])
    assert rig.rounds.reading
    rig.rounds.lost()

    assert rig.rounds.next(0).requests == []
    assert rig.rounds.reading
    assert rig.rounds.passed(rig.rounds.number)
    rig.rounds.walk(rig.lane())
    rig.rounds.walk(rig.lane())
    assert len(rig.lane().walks) == 1
    rig.run()
    assert not rig.rounds.reading


@pytest.mark.parametrize(
    ("text", "good"), [("0", True), ("65535", True), ("", False), ("05", False), ("x", False), ("123456", False), ("²", False)]
)
def test_domids(text: str, good: bool) -> None:
    assert bool(is_domid(text)) is good


@pytest.mark.parametrize(
    ("raw", "kept"),
    [(b"abc", b"abc"), (b"abcdef", b"abcd"), ("abcé".encode(), b"abc"), (b"\xff" * 6, b"\xff" * 4)],
)
def test_values_are_cut_between_characters(raw: bytes, kept: bytes) -> None:
    assert value_of("/tool/x", raw, Redaction((), b"k"), 4) == Value("/tool/x", kept, len(raw))


def test_a_secret_never_leaves() -> None:
    seen = value_of("/vm/x/vncpasswd", b"hunter2", Redaction(("*/vncpasswd",), b"k"), 4096)

    assert seen.secret
    assert b"hunter2" not in seen.value
    assert seen.size == 0


PATHS = st.builds(
    lambda root, names: "/".join([root, *names]),
    st.sampled_from([GUEST, "/local/domain/0", "/local/domain/0/backend/vif/5", "/vm/x", "/libxl/5"]),
    st.lists(st.sampled_from(["a", "b", "data"]), min_size=1, max_size=3),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), PATHS, st.binary(max_size=1)),
        st.tuples(st.just("rm"), PATHS),
        st.tuples(st.just("round")),
        st.tuples(st.just("quiet")),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(STEPS)
def test_whatever_is_written_and_removed_what_is_kept_is_what_the_store_holds(steps: list[tuple[object, ...]]) -> None:
    rig = Rig(0, 5, "/vm", "/libxl")
    pending: list[tuple[object, ...]] = []

    def act(step: tuple[object, ...]) -> None:
        match step:
            case "write", str(path), bytes(value):
                rig.rounds.mark([rig.store.write(path, value)])
            case "rm", str(path):
                rig.rounds.mark([rig.store.rm(path)])

    def meanwhile(_: object) -> None:
        if pending:
            act(pending.pop(0))

    for step in steps:
        match step:
            case ("round",):
                rig.round(meanwhile)
            case ("quiet",):
                rig.run()
            case _:
                pending.append(step)
    while pending:
        act(pending.pop(0))
    rig.run()

    assert rig.kept == rig.store.below(GUEST, "/local/domain/0", "/vm", "/libxl")


def test_what_xenstored_fails_to_tell_is_no_death() -> None:
    rig = Rig(5)
    rig.store.write(f"{GUEST}/data/x", b"1")
    rig.rounds.ask_after([5])
    rig.rounds.walk(rig.lane())
    rig.run()
    kept, said = rig.kept, len(rig.events)
    rig.rounds.ask_after([5])
    rig.rounds.walk(rig.lane())
    batch = rig.rounds.next(rig.now)
    rig.take(rig.rounds.digest(batch, [ServerError.of("ENOMEM") for _ in batch.requests]))
    rig.take(rig.rounds.applied(batch, rig.now))

    assert rig.kept == kept
    assert rig.events[said:] == []

    rig.store.write(f"{GUEST}/data/x", b"2")
    rig.now += rig.config.capped_interval
    rig.run()

    assert rig.kept[f"{GUEST}/data/x"] == b"2", "it is read again later"


def test_a_driver_domain_pays_for_its_own_backends() -> None:
    rig = Rig(0, 5, 7)
    rig.rounds.mark([rig.store.write("/local/domain/7/backend/vif/5/0/state", b"4")])
    rig.rounds.mark([rig.store.write("/local/domain/7/backend/vif/0/0/state", b"4")])

    assert len(rig.lane(7).dirty) == 2
    assert not rig.lane(5).dirty
    assert not rig.lane(0).dirty


def test_what_does_not_fit_in_a_driver_domain_is_said_of_it() -> None:
    rig = Rig(5, 7, guest_nodes=4)
    rig.rounds.mark([rig.store.write(f"/local/domain/7/backend/vif/5/{n}/state", b"4") for n in range(6)])
    rig.run()
    rig.now += rig.config.capped_interval
    rig.run()

    capped = [event for event in rig.events if isinstance(event, Capped)]
    assert capped
    assert {event.domid for event in capped} == {7}


def test_what_does_not_fit_in_a_tree_that_nobody_reads_is_left() -> None:
    rig = Rig(5, host_nodes=2)
    rig.rounds.mark([rig.store.write(f"/local/domain/0/backend/vif/5/{n}/state", b"4") for n in range(6)])
    rig.run()

    assert rig.rounds.due() == float("inf")


def test_a_lane_that_failed_is_not_read_again_before_its_time() -> None:
    rig = Rig(5)
    rig.rounds.mark([rig.store.write(f"{GUEST}/data/x", b"1")])
    batch = rig.rounds.next(rig.now)
    rig.take(rig.rounds.digest(batch, [ServerError.of("EIO") for _ in batch.requests]))
    rig.take(rig.rounds.applied(batch, rig.now))

    assert rig.rounds.next(rig.now).requests == []
    rig.now += rig.config.capped_interval
    rig.run()
    assert rig.kept[f"{GUEST}/data/x"] == b"1"


def test_a_lane_is_made_once_and_unheard_until_it_is_walked() -> None:
    rig = Rig(5)
    assert not rig.rounds.unheard

    lane = rig.rounds.open(9, 0.0)

    assert rig.rounds.open(9, 0.0) is lane
    assert rig.rounds.unheard
    rig.rounds.walk(lane)
    assert not rig.rounds.unheard
