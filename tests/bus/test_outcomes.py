"""Recorded outcomes: over restarts, torn tails, full disks."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xenmesh.bus import outcomes
from xenmesh.bus.outcomes import KEPT, Key, Outcomes, digest_of
from xenmesh.schemas.request import Command

KEY = Key("ann", "1")


class Do(Command, frozen=True, kw_only=True, tag="notes.do"):
    what: str = ""


def test_an_outcome_outlives_a_restart_and_an_intention_stays_unknown(tmp_path: Path) -> None:
    record = Outcomes(tmp_path / "deep" / "outcomes", 0.0)
    record.begin(KEY, "digest", 1.0)
    record.begin(Key("ann", "2"), "other", 2.0)
    record.end(KEY, b'{"request_id":"1"}', 3.0)
    for _ in range(2):
        record = Outcomes(tmp_path / "deep" / "outcomes", 4.0)
        known = record.find(KEY, 4.0)
        assert known is not None
        assert (known.digest, known.outcome) == ("digest", b'{"request_id":"1"}')
        cut_short = record.find(Key("ann", "2"), 4.0)
        assert cut_short is not None
        assert cut_short.outcome is None
        assert record.find(Key("bob", "1"), 4.0) is None
    assert (tmp_path / "deep" / "outcomes").stat().st_mode & 0o777 == 0o600


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 10_000), junk=st.binary(max_size=40))
def test_whatever_a_crash_leaves_of_the_last_line_the_others_stand(tmp_path: Path, cut: int, junk: bytes) -> None:
    file = tmp_path / "outcomes"
    file.unlink(missing_ok=True)
    record = Outcomes(file, 0.0)
    record.begin(KEY, "digest", 1.0)
    record.end(KEY, b'{"a":1}', 1.0)
    whole = file.read_bytes()
    record.begin(Key("ann", "torn"), "digest", 2.0)
    last = file.read_bytes()[len(whole) :]
    file.write_bytes(whole + last[: cut % (len(last) + 1)] + junk)
    again = Outcomes(file, 3.0)
    known = again.find(KEY, 3.0)
    assert known is not None
    assert known.outcome == b'{"a":1}'
    again.begin(Key("ann", "3"), "d", 3.0)
    assert Outcomes(file, 3.0).find(Key("ann", "3"), 3.0) is not None
    assert Outcomes(file, 3.0).dropped == 0  # what was torn was swept away


def test_after_a_day_it_is_forgotten_and_the_file_shrinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "_SLACK", 10)
    file = tmp_path / "outcomes"
    record = Outcomes(file, 0.0)
    for number in range(50):
        record.begin(Key("ann", str(number)), "d", float(number))
        record.end(Key("ann", str(number)), b"{}", float(number))
    assert record.find(Key("ann", "0"), KEPT) is not None
    assert record.find(Key("ann", "0"), KEPT + 1) is None
    record.begin(Key("ann", "late"), "d", KEPT + 4000)
    record.end(Key("ann", "late"), b"{}", KEPT + 4000)
    assert len(record) == 1
    assert file.read_bytes().count(b"\n") == 1
    for _ in range(12):
        record.begin(Key("ann", "late"), "d", KEPT + 4000)
    record.end(Key("ann", "late"), b"{}", KEPT + 4000)
    assert file.read_bytes().count(b"\n") == 1


def test_a_full_disk_is_counted_and_the_record_goes_on_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "outcomes"
    record = Outcomes(file, 0.0)
    real = os.fsync

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    record.begin(KEY, "digest", 1.0)
    record.end(KEY, b"{}", 1.0)
    record.compact(1.0)
    assert record.unwritten == 3
    assert record.find(KEY, 1.0) is not None
    monkeypatch.setattr(os, "fsync", real)
    record.begin(Key("ann", "2"), "digest", 1.0)
    assert Outcomes(file, 1.0).find(Key("ann", "2"), 1.0) is not None


def test_memory_holds_places_and_the_file_the_outcomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    record = Outcomes(tmp_path / "outcomes", 0.0)
    count, outcome = 2000, b'"' + b"x" * 2000 + b'"'
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(count):
        key = Key("ann", f"{number:036}")
        record.begin(key, "d" * 64, float(number))
        record.end(key, outcome, float(number))
    assert record.find(Key("ann", f"{7:036}"), 8.0) == ("d" * 64, 7.0, outcome)
    again = Outcomes(tmp_path / "outcomes", float(count))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (after - before) / count < 2 * 250  # of two records
    assert again.find(Key("ann", f"{7:036}"), 8.0) == ("d" * 64, 7.0, outcome)
    assert len(again) == count


def test_what_the_file_lacks_is_held_up_to_a_limit_and_written_when_the_disk_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "_HELD", 10)
    record = Outcomes(None, 0.0)
    record.begin(Key("ann", "runs"), "d", 0.0)
    for number in range(20):
        record.begin(Key("ann", str(number)), "d", 0.0)
        record.end(Key("ann", str(number)), b"{}", 0.0)
    assert len(record) == 10
    assert record.find(Key("ann", "runs"), 0.0) is not None
    assert record.find(Key("ann", "19"), 0.0) is not None
    assert record.find(Key("ann", "0"), 0.0) is None

    file = tmp_path / "directory" / "outcomes"
    file.mkdir(parents=True)
    record = Outcomes(file, 0.0)
    record.begin(KEY, "d", 0.0)
    record.end(KEY, b"{}", 0.0)
    record.begin(Key("ann", "runs"), "d", 0.0)
    file.rmdir()
    record.compact(0.0)
    assert Outcomes(file, 0.0).find(KEY, 0.0) == ("d", 0.0, b"{}")
    record.end(Key("ann", "runs"), b"1", 0.0)
    assert Outcomes(file, 0.0).find(Key("ann", "runs"), 0.0) == ("d", 0.0, b"1")


def test_a_command_that_runs_while_the_file_is_written_anew_keeps_its_place(tmp_path: Path) -> None:
    record = Outcomes(tmp_path / "outcomes", 0.0)
    record.begin(KEY, "d", 0.0)
    record.compact(KEPT + 1)
    record.end(KEY, b"1", KEPT + 1)
    assert len(record) == 1
    record.begin(Key("ann", "2"), "d", KEPT + 1)
    record.end(Key("ann", "2"), b"2", KEPT + 1)
    assert record.find(Key("ann", "2"), KEPT + 1) == ("d", KEPT + 1, b"2")


def test_what_can_no_longer_be_read_was_begun_all_the_same(tmp_path: Path) -> None:
    record = Outcomes(tmp_path / "outcomes", 0.0)
    record.begin(KEY, "d", 0.0)
    record.end(KEY, b"1", 0.0)
    (tmp_path / "outcomes").write_bytes(b"junk\n")
    known = record.find(KEY, 1.0)
    assert known is not None
    assert (known.digest, known.outcome) == ("", None)


def test_a_file_that_cannot_be_read_is_counted(tmp_path: Path) -> None:
    (tmp_path / "outcomes").mkdir()
    record = Outcomes(tmp_path / "outcomes", 0.0)
    assert record.unwritten == 2  # neither read nor written
    record.begin(KEY, "d", 0.0)
    assert record.find(KEY, 0.0) is not None


def test_without_a_file_it_is_kept_in_memory() -> None:
    record = Outcomes(None, 0.0)
    record.begin(KEY, "d", 0.0)
    record.end(KEY, b"{}", 0.0)
    record.compact(KEPT + 1)
    assert len(record) == 0


def test_the_digest_tells_requests_apart_but_not_their_repetitions() -> None:
    one = digest_of("notes.do", Do(request_id="1", what="a"))
    assert one == digest_of("notes.do", Do(request_id="2", what="a", deadline=5.0))
    assert one != digest_of("notes.do", Do(request_id="1", what="b"))
    assert one != digest_of("notes.undo", Do(request_id="1", what="a"))
