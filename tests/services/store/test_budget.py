from hypothesis import given
from hypothesis import strategies as st

from xenmesh.services.store.budget import Bucket, Pace, Shedding

SPENDING = st.lists(st.tuples(st.floats(0, 10), st.integers(1, 50)), max_size=50)


@given(SPENDING, st.integers(1, 100), st.integers(1, 100))
def test_no_more_is_spent_than_burst_and_rate_and_one_debt_allow(
    spending: list[tuple[float, int]], burst: int, rate: int
) -> None:
    bucket, now, spent, last = Bucket(burst, rate, 0.0), 0.0, 0, 0
    for pause, tokens in spending:
        now += pause
        if bucket.level(now) > 0:
            assert bucket.spend(tokens, now)
            spent, last = spent + tokens, tokens

    assert spent - last <= burst + rate * now + 1e-6


def test_a_bucket_in_debt_gives_nothing_until_it_is_paid() -> None:
    bucket = Bucket(10, 5, 0.0)

    assert bucket.spend(20, 0.0)
    assert not bucket.spend(1, 1.0)
    assert bucket.level(2.0) == -1
    assert bucket.level(100.0) == 10


def test_a_clock_that_stands_still_gives_nothing() -> None:
    bucket = Bucket(10, 5, 7.0)
    bucket.spend(10, 7.0)

    assert bucket.level(7.0) == bucket.level(3.0) == 0


def test_a_shed_domain_is_read_again_until_it_is_quiet() -> None:
    shedding = Shedding(Pace(interval=5, quiet=60, changes=2), now=0.0, folded=3)
    assert shedding.due == 5

    assert not shedding.read(100, 5.0)
    assert shedding.due == 10
    assert not shedding.read(2, 10.0)
    assert not shedding.read(0, 64.9)
    assert shedding.read(0, 65.0)
    assert shedding.folded == 105
