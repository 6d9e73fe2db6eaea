import datetime as dt

import pytest

from xenmesh.cli.times import moment, seconds

NOW = dt.datetime(2026, 11, 20, 12, 0).astimezone().timestamp()


@pytest.mark.parametrize(
    ("text", "value"), [("20", 20), ("90s", 90), ("1.5h", 5400), ("1h30m", 5400), ("2d", 172800), ("250ms", 0.25)]
)
def test_durations(text: str, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "h", "-1s", "1x", "1h30", "1 h", "soon"])
def test_what_is_no_duration_says_what_is(text: str) -> None:
    with pytest.raises(ValueError, match="write 30s"):
        seconds(text)


def test_moments() -> None:
    assert moment("1h", NOW) == NOW - 3600
    assert moment("11:30", NOW) == NOW - 1800
    assert moment("12:30", NOW) == NOW - 84600  # yesterday's
    assert moment("2026-11-20T11:00", NOW) == NOW - 3600
    assert moment("2026-11-20T11:00:00+00:00", 0.0) == 1795172400.0


def test_what_is_no_moment_says_what_is() -> None:
    with pytest.raises(ValueError, match="write 1h"):
        moment("yesterday", NOW)
