import json
from pathlib import Path

import pytest
from cli.house import UUID, Heard, born, changed, lines
from hypothesis import given
from hypothesis import strategies as st

from xenmesh.bus.recording import Record
from xenmesh.cli.main import main
from xenmesh.cli.output import Mode, ndjson
from xenmesh.cli.records import mark
from xenmesh.cli.replay import Player
from xenmesh.cli.selection import parse
from xenmesh.schemas import store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    seen = store.DomainSeen(domid=5, uuid=UUID, introduced=True, generation=1)
    begun = [ndjson(mark("item", {"service": "store", "item": each})) for each in (seen, *born(5, "web-1"))]
    events = lines(
        changed("/local/domain/5/data/x", "\x1b[2J", UUID),
        changed("/local/domain/7/data/x", "2"),
        store.DomainGone(domid=5, uuid=UUID, generation=1),
    )
    path = tmp_path / "case.ndjson"
    path.write_text("\n".join([*begun, *events, '{"time":4.0,"subject":"xen.v1.h.state.x","raw":""}']) + "\n")
    return path


def test_it_reads_as_watch_would_have_shown_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(file), "-o", "table"]) == 0

    shown = capsys.readouterr().out.splitlines()
    assert shown[1] == 'web-1 (5)             /local/domain/5/name = "web-1"'
    assert shown[3][14:] == 'web-1 (5)             /local/domain/5/data/x = "\\x1b[2J"'
    assert shown[5][14:] == f"web-1 (5)             gone  {UUID}"
    assert all(line.isprintable() for line in shown)


def test_one_domain_of_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(file), "web-1", "-o", "name"]) == 0

    assert capsys.readouterr().out.splitlines() == [
        "/local/domain/5/name",
        "/local/domain/5/vm",
        "/local/domain/5/data/x",
        "5",
    ]


def test_what_nothing_in_it_is_of(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(file), "web-2"]) == 3

    assert "nothing in" in capsys.readouterr().err
    assert main(["replay", str(file), "store.*.device"]) == 3
    assert main(["replay", str(file), "7"]) == 0


def test_programs_get_the_recording_again(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(file)]) == 0

    assert capsys.readouterr().out == file.read_text()


def test_at_its_own_pace(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(file), "--speed", "1e9"]) == 0
    assert main(["replay", str(file), "--speed", "0"]) == 2


def test_a_gap_of_the_recording_is_one_of_the_replay(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with file.open("a") as out:
        out.write(ndjson(mark("gap", {"service": "store", "why": "slow"})) + "\n")

    assert main(["replay", str(file)]) == 4


def test_what_is_no_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f").write_text("hello\n")

    assert main(["replay", str(tmp_path / "f")]) == 1
    assert "line 1 is no record" in capsys.readouterr().err
    assert main(["replay", str(tmp_path / "nope")]) == 3


_JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5), lambda inner: st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@given(
    st.floats(),
    st.sampled_from(["xenmesh.item", "xenmesh.gap", "xenmesh.x", "xen.v1.h.store.5.data", "xen.v1.h.state.x", "", "a"])
    | st.text(max_size=9),
    _JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20),
)
def test_whatever_a_recording_holds_a_terminal_is_safe(time: float, subject: str, data: bytes) -> None:
    heard = Heard(Mode.TABLE)

    Player(heard.printer, parse("")).show(Record.of(time, subject, data))

    assert all(line.isprintable() for line in heard.lines)
