from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenmesh.sim.guests.life import Action, Kind, Pace, guest, live

SEEDS = st.integers(0, 1000)
AFTER = {
    Kind.CREATE: {Kind.BOOT},
    Kind.BOOT: {Kind.AGENT},
    Kind.AGENT: {Kind.ADDRESS},
    Kind.ARRIVE: {Kind.LEAVE},
    Kind.LEAVE: {Kind.ADDRESS},
    Kind.ASK_SHUTDOWN: {Kind.SHUT_DOWN},
    Kind.SHUT_DOWN: {Kind.DESTROY},
    Kind.CRASH: {Kind.DESTROY},
    Kind.DESTROY: {Kind.CREATE},
}
ANY_TIME = {Kind.ADDRESS, Kind.MEMORY, Kind.ARRIVE, Kind.ASK_SHUTDOWN, Kind.SHUT_DOWN, Kind.CRASH}


def actions(index: int, seed: int, count: int = 400) -> list[Action]:
    return list(islice(live(guest(index, seed), seed), count))


@given(SEEDS, st.integers(0, 50))
def test_a_seed_settles_a_life(seed: int, index: int) -> None:
    assert guest(index, seed) == guest(index, seed)
    assert actions(index, seed, 60) == actions(index, seed, 60)
    assert actions(index, seed, 60) != actions(index, seed + 1, 60)
    assert guest(index, seed).uuid != guest(index + 1, seed).uuid


@given(SEEDS)
def test_each_thing_happens_in_its_turn_and_time_never_goes_back(seed: int) -> None:
    life = actions(0, seed)
    assert life[0].kind is Kind.CREATE
    for before, after in pairwise(life):
        assert before.at <= after.at
        assert after.kind in AFTER.get(before.kind, ANY_TIME), (before, after)


@settings(max_examples=20)
@given(SEEDS)
def test_at_speed_1_a_guest_boots_within_seconds_and_lives_for_minutes(seed: int) -> None:
    life = actions(0, seed, 3000)
    first = {kind: next(action.at for action in life if action.kind is kind) for kind in (Kind.BOOT, Kind.AGENT, Kind.ADDRESS)}
    assert first[Kind.ADDRESS] < 5
    assert first[Kind.BOOT] < first[Kind.AGENT] < first[Kind.ADDRESS]
    hours = life[-1].at / 3600
    per_hour = {kind: sum(action.kind is kind for action in life) / hours for kind in Kind}
    assert 25 < per_hour[Kind.ADDRESS] < 80  # every now and then
    assert 1 < per_hour[Kind.CREATE] < 12  # a new start every some minutes


def test_a_pace_sets_how_long_things_take() -> None:
    quick = live(guest(0, 1), 1, 100.0, Pace(life=1.0, address=0.1, off=0.0))
    busy = list(islice(quick, 500))
    assert busy[0].at == 100.0
    assert busy[-1].at < actions(0, 1, 500)[-1].at


@pytest.mark.parametrize("index", range(20))
def test_what_is_fixed_is_well_formed(index: int) -> None:
    who = guest(index, 5)
    assert all(mac.startswith("00:16:3e:") and len(mac) == 17 for mac in who.macs)
    assert 1 <= len(who.macs) <= 2
    assert who.disks[0] == "xvda"
    assert who.memory % 1024 == 0
    assert who.name == f"guest{index}"
