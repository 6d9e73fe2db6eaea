import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenmesh.cli.output import Mode, Printer, Row, Span, Style, clip, harmless, ndjson, width

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202eevil\u200b\x9b31m\r\n\x7f"


@given(st.text())
def test_nothing_invisible_survives(text: str) -> None:
    assert harmless(text).isprintable()


@given(st.text())
def test_what_is_shown_tells_texts_apart(text: str) -> None:
    assert (harmless(text) == text) == (text == harmless(text))
    if text != harmless(text):
        assert "\\" in harmless(text)


def test_a_terminal_sees_no_sequence_of_a_guests() -> None:
    shown = harmless(HOSTILE)

    assert shown == "\\x1b]0;owned\\x07\\x1b[2J\\u202eevil\\u200b\\x9b31m\\r\\n\\x7f"


def test_marks_do_not_pile_up() -> None:
    shown = harmless("a" + "\u0301" * 50)

    assert sum(bool(unicodedata.combining(c)) for c in shown) == 3


@given(st.recursive(st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_ndjson_changes_no_value_and_is_one_printable_line(value: object) -> None:
    line = ndjson(value)

    assert json.loads(line) == value
    assert line.isprintable()


@given(st.text(), st.integers(min_value=1, max_value=80))
def test_clipped_text_fits(text: str, columns: int) -> None:
    assert width(clip(harmless(text), columns)) <= columns


def test_wide_characters_take_two_columns() -> None:
    assert width("日本") == 4
    assert clip("日本語", 5) == "日本…"


def printer(mode: Mode, **given: object) -> tuple[Printer, io.StringIO, io.StringIO]:
    stream, notes = io.StringIO(), io.StringIO()
    return Printer(mode, stream, notes, **given), stream, notes  # type: ignore[arg-type]


def test_columns_of_a_table_stand_under_their_heads() -> None:
    out, stream, _ = printer(Mode.TABLE)

    out.table(("NAME", "STATE"), [Row(("日本", Span("ready", Style.GOOD)), {}, "a"), Row(("x", "y"), {}, "x")])

    assert stream.getvalue() == "NAME  STATE\n日本  ready\nx     y\n"


def test_a_table_is_records_for_programs_and_names_for_xargs() -> None:
    row = Row(("a", "b"), {"name": "a"}, "a")
    out, stream, _ = printer(Mode.JSON)
    out.table(("X", "Y"), [row])
    assert stream.getvalue() == '{"name":"a"}\n'

    out, stream, _ = printer(Mode.NAME)
    out.table(("X", "Y"), [row])
    assert stream.getvalue() == "a\n"


def test_only_the_last_piece_of_a_line_is_cut_to_the_terminal() -> None:
    out, stream, _ = printer(Mode.TABLE, columns=40)

    out.line(("/a/long/path = ", "v" * 100), {})

    assert stream.getvalue() == f"/a/long/path = {'v' * 24}…\n"


def test_a_pipe_gets_whole_lines() -> None:
    out, stream, _ = printer(Mode.TABLE)

    out.line(("v" * 1000,), {})

    assert stream.getvalue() == "v" * 1000 + "\n"


def test_colours_are_ours_alone() -> None:
    out, stream, _ = printer(Mode.TABLE, colour=True)

    out.line((Span("\x1b[31mred", Style.GOOD),), {})

    assert stream.getvalue() == "\x1b[32m\\x1b[31mred\x1b[0m\n"


def test_a_gap_is_said_to_people_and_to_programs_and_counts() -> None:
    out, stream, notes = printer(Mode.JSON)

    out.gap("events were missed", {"gap": 1})

    assert out.cut
    assert (stream.getvalue(), notes.getvalue()) == ('{"gap":1}\n', "events were missed\n")


def test_notes_and_texts_are_not_for_programs() -> None:
    out, stream, notes = printer(Mode.JSON)

    out.text(("hello",))
    out.note("evil \x1b")
    out.line(("x",), {}, "")

    assert (stream.getvalue(), notes.getvalue()) == ("{}\n", "evil \\x1b\n")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "choice", "mode"),
    [
        (io.StringIO(), None, Mode.JSON),
        (_Terminal(), None, Mode.TABLE),
        (_Terminal(), "name", Mode.NAME),
        (io.StringIO(), "table", Mode.TABLE),
    ],
)
def test_the_default_suits_the_reader(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, choice: str | None, mode: Mode
) -> None:
    monkeypatch.setattr("sys.stdout", stream)

    assert Printer.standard(choice, {}).mode is mode


@pytest.mark.parametrize(("environ", "painted"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], painted: bool) -> None:
    terminal = _Terminal()
    monkeypatch.setattr("sys.stdout", terminal)

    Printer.standard(None, environ).line((Span("x", Style.BAD),), {})

    assert ("\x1b[" in terminal.getvalue()) is painted
