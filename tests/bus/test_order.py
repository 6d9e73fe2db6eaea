"""The gap rule: whatever is lost, doubled or begun anew, a consumer that obeys the verdicts ends with the service's state."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenmesh.bus import order
from xenmesh.bus.order import Order, Verdict


class Said(NamedTuple):
    boot: str
    seq: int
    prev: int
    owner: str
    value: int


class Producer:
    """The model of a service: a value for each owner, and the order of what it says."""

    def __init__(self) -> None:
        self.boots = 0
        self.restart()

    def restart(self) -> None:
        self.boots += 1
        self.boot = f"boot-{self.boots}"
        self.seq = 0
        self.newest: dict[str, int] = {}
        self.state: dict[str, int] = {}

    def say(self, owner: str, value: int) -> Said:
        self.seq += 1
        said = Said(self.boot, self.seq, self.newest.get(owner, 0), owner, value)
        self.newest[owner] = self.seq
        if owner != "elsewhere":
            self.state[owner] = value
        return said

    def newest_of(self, owner: str | None) -> int:
        if owner is not None:
            return self.newest.get(owner, 0)
        return max((seq for name, seq in self.newest.items() if name != "elsewhere"), default=0)


class Consumer:
    """What `consumer.Follower` does with the verdicts, without a bus. ``hears_all`` False: it may not hear what is said elsewhere."""

    def __init__(self, producer: Producer, owner: str | None, *, hears_all: bool) -> None:
        self.producer = producer
        self.owner = owner
        self.hears_all = hears_all
        self.order = Order()
        self.snapshots = 0
        self.resync()

    def resync(self) -> None:
        self.snapshots += 1
        self.order.begin(self.producer.boot, self.producer.seq)
        self.state = {name: value for name, value in self.producer.state.items() if self.owner in {None, name}}

    def hear(self, said: Said) -> None:
        if said.owner == "elsewhere":
            if self.hears_all and self.owner is None:
                self.order.other(said.boot, said.seq)
            return
        if self.owner not in {None, said.owner}:
            return
        match self.order.event(said.owner, said.boot, said.seq, said.prev):
            case Verdict.NEXT:
                self.state[said.owner] = said.value
            case Verdict.OLD:
                pass
            case _:
                self.resync()

    def beat(self) -> None:
        producer = self.producer
        verdict = self.order.ahead(producer.boot, producer.seq)
        if verdict is Verdict.BOOT:
            self.resync()
        elif verdict is Verdict.GAP:
            if self.order.lacks(producer.newest_of(self.owner), self.owner):
                self.resync()
            else:
                self.order.sure(producer.seq)


OWNERS = st.sampled_from(["a", "b", "c", "elsewhere"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), OWNERS, st.sampled_from(["heard", "lost", "twice", "late"])),
        st.tuples(st.just("restart"), st.just(""), st.just("")),
        st.tuples(st.just("beat"), st.just(""), st.just("")),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(steps=STEPS, owner=st.sampled_from([None, "a"]), hears_all=st.booleans())
def test_any_loss_doubling_and_restart_converges(steps: list[tuple[str, str, str]], owner: str | None, hears_all: bool) -> None:
    producer = Producer()
    consumer = Consumer(producer, owner, hears_all=hears_all)
    late: list[Said] = []
    for number, (what, name, fate) in enumerate(steps):
        if what == "restart":
            producer.restart()
        elif what == "beat":
            consumer.beat()
        else:
            said = producer.say(name, number)
            # only what is said elsewhere comes by another subscription, and so may come late
            if fate == "late" and name == "elsewhere":
                late.append(said)
            elif fate != "lost":
                consumer.hear(said)
            if fate == "twice":
                consumer.hear(said)
    for said in late:
        consumer.hear(said)
    consumer.beat()
    assert consumer.order.boot == producer.boot
    assert consumer.state == {each: value for each, value in producer.state.items() if owner in {None, each}}


@settings(deadline=None)
@given(owners=st.lists(OWNERS, max_size=40))
def test_nothing_lost_needs_no_second_snapshot(owners: list[str]) -> None:
    producer = Producer()
    consumer = Consumer(producer, None, hears_all=True)
    for number, owner in enumerate(owners):
        consumer.hear(producer.say(owner, number))
        consumer.beat()
    assert consumer.snapshots == 1
    assert consumer.order.whole == len(owners)


def test_what_the_snapshot_has_is_dropped_and_a_filter_is_no_gap() -> None:
    known = Order()
    known.begin("b", 10)
    assert known.event("store.5", "b", 10, 4) is Verdict.OLD
    assert known.event("store.5", "b", 17, 10) is Verdict.NEXT  # 11 to 16 were of others
    assert known.event("store.5", "b", 17, 10) is Verdict.OLD
    assert known.event("store.5", "b", 20, 18) is Verdict.GAP
    assert known.event("store.6", "b", 21, 12) is Verdict.GAP
    assert known.event("store.5", "c", 1, 0) is Verdict.BOOT
    assert known.ahead("b", 10) is Verdict.OLD
    assert known.ahead("c", 1) is Verdict.BOOT


def test_a_filtered_consumer_remembers_what_a_barrier_confirmed() -> None:
    known = Order()
    known.begin("b", 1)
    assert known.ahead("b", 9) is Verdict.GAP
    assert not known.lacks(1, "store.5")
    known.sure(9)
    known.sure(7)
    assert known.ahead("b", 9) is Verdict.OLD
    assert known.ahead("b", 10) is Verdict.GAP
    assert known.lacks(10, "store.5")


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "_ABOVE", 5)
    monkeypatch.setattr(order, "_OWNERS", 3)
    known = Order()
    known.begin("b", 0)
    for seq in range(1, 50):
        assert known.event(f"evt.domain.{seq}", "b", seq, 0) is Verdict.NEXT
    assert len(known._newest) <= 4
    for seq in range(51, 56):  # 50 is a hole
        assert known.event("x", "b", seq, seq - 1 if seq > 51 else 0) is Verdict.NEXT
    known.other("b", 60)
    known.other("c", 61)
    assert len(known._above) == 5
    assert known.event("x", "b", 56, 55) is Verdict.GAP
