"""How results are shown: a table or lines for people, NDJSON for programs, bare names for xargs.

On a terminal the default is the table, in a pipe NDJSON. Whatever a guest may have written is made harmless here and nowhere else: no control
character, no change of writing direction and no invisible character of its making reaches a terminal.
"""

from __future__ import annotations

import enum
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TextIO

import msgspec

if TYPE_CHECKING:
    import argparse

__all__ = ["Mode", "Printer", "Row", "Span", "Style", "add_options", "clip", "harmless", "ndjson", "width"]


class Mode(enum.Enum):
    """What the reader is: a person, a program, or xargs."""

    TABLE = "table"
    JSON = "json"
    NAME = "name"


class Style(enum.Enum):
    """Colours by meaning; their values are the parameters of the terminal's SGR sequence."""

    PLAIN = ""
    DIM = "2"
    BOLD = "1"
    GOOD = "32"
    WARN = "33"
    BAD = "31"
    KEY = "36"


class Span(NamedTuple):
    """A piece of a line: any text, also a guest's, and how it looks."""

    untrusted_text: str
    style: Style = Style.PLAIN
    columns: int = 0
    """If given: cut or filled up to so many columns."""


class Row(NamedTuple):
    """One result: its cells for the table, its record for NDJSON, its name for xargs."""

    cells: Sequence[Span | str]
    record: object
    name: str


_LEAST = 24
"""Columns that the last piece of a line gets in any case."""

_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}


def harmless(untrusted_text: str) -> str:
    r"""The text with every character that is not plainly visible, and the backslash, written as an escape: ``\n``, ``\x1b``, ``\u202e``.

    Combining marks beyond the third in a row are escaped too: stacked, they climb over the lines around.
    """
    if untrusted_text.isascii() and untrusted_text.isprintable() and "\\" not in untrusted_text:
        return untrusted_text
    done: list[str] = []
    marks = 0
    for character in untrusted_text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if character in _SHORT:
            done.append(_SHORT[character])
        elif character.isprintable() and marks <= 3:
            done.append(character)
        else:
            done.append(_escape(character))
    return "".join(done)


def _escape(character: str) -> str:
    number = ord(character)
    if number <= 0xFF:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


def ndjson(record: object) -> str:
    r"""The record as one line of JSON; characters that are not plainly visible come as ``\u`` escapes, which changes no value."""
    text = msgspec.json.encode(record).decode()
    if text.isascii() and text.isprintable():
        return text
    return _UNPRINTABLE.sub(_json_escape, text)


def _json_escape(found: re.Match[str]) -> str:
    character = found.group()
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[index]:02x}{units[index + 1]:02x}" for index in range(0, len(units), 2))


def width(text: str) -> int:
    """Columns that the harmless text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def clip(text: str, columns: int) -> str:
    """The text, cut to so many columns; a cut is shown by an ellipsis."""
    if width(text) <= columns:
        return text
    kept: list[str] = []
    left = max(columns, 1) - 1
    for character in text:
        left -= width(character)
        if left < 0:
            break
        kept.append(character)
    return "".join(kept) + "…"


class Printer:
    """Where a command's results and notes go. Results to ``stream``, each flushed at once; notes to ``notes``."""

    def __init__(
        self,
        mode: Mode,
        stream: TextIO,
        notes: TextIO,
        *,
        colour: bool = False,
        notes_colour: bool = False,
        columns: int | None = None,
    ) -> None:
        self.mode = mode
        self.cut = False
        """The stream had a gap; the exit code will say so."""
        self.columns = columns
        """Of the terminal: the last piece of a line (a value, as a rule) is cut to fit. None: not a terminal, nothing is cut."""
        self._stream = stream
        self._notes = notes
        self._colour = colour
        self._notes_colour = notes_colour

    @classmethod
    def standard(cls, choice: str | None, environ: Mapping[str, str] = os.environ) -> Printer:
        """The printer for this process: ``choice`` is that of ``-o``, None for the default."""
        terminal = sys.stdout.isatty()
        mode = Mode(choice) if choice else Mode.TABLE if terminal else Mode.JSON
        sober = bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
        return cls(
            mode,
            sys.stdout,
            sys.stderr,
            colour=terminal and not sober,
            notes_colour=sys.stderr.isatty() and not sober,
            columns=shutil.get_terminal_size().columns if terminal else None,
        )

    def line(self, spans: Sequence[Span | str], record: object, name: str = "") -> None:
        """One result of a stream. In mode NAME nothing is written where there is no name."""
        match self.mode:
            case Mode.JSON:
                self._write(ndjson(record))
            case Mode.NAME:
                if name:
                    self._write(harmless(name))
            case Mode.TABLE:
                self._write(self._join(spans, self.columns))

    def text(self, spans: Sequence[Span | str] = ()) -> None:
        """A line for people only; programs are told nothing."""
        if self.mode is Mode.TABLE:
            self._write(self._join(spans, None))

    def mark(self, record: object) -> None:
        """A line for programs only, between the results of a stream."""
        if self.mode is Mode.JSON:
            self._write(ndjson(record))

    def table(self, heads: Sequence[str], rows: Iterable[Row]) -> None:
        """Results as a table with these heads, or a line each."""
        if self.mode is not Mode.TABLE:
            for row in rows:
                self.line(row.cells, row.record, row.name)
            return
        lines = [[Span(head, Style.BOLD) for head in heads]]
        lines += [[_span(cell) for cell in row.cells] for row in rows]
        widths = [max(width(harmless(line[index].untrusted_text)) for line in lines) for index in range(len(heads))]
        for line in lines:
            spans: list[Span | str] = []
            for cell, columns in zip(line[:-1], widths, strict=False):
                spans += [cell._replace(columns=columns), "  "]
            self._write(self._join([*spans, line[-1]], self.columns))

    def note(self, sentence: str, style: Style = Style.DIM) -> None:
        """Something about the result rather than of it, for people, on standard error."""
        text = harmless(sentence)
        self._notes.write(f"{_painted(text, style) if self._notes_colour else text}\n")
        self._notes.flush()

    def gap(self, sentence: str, record: object) -> None:
        """The stream had a gap: said to people on standard error and to programs in the stream; the exit code will be `Exit.CUT`."""
        self.cut = True
        self.note(sentence, Style.WARN)
        self.mark(record)

    def _join(self, spans: Sequence[Span | str], columns: int | None) -> str:
        done: list[str] = []
        left = columns
        for index, given in enumerate(spans):
            span = _span(given)
            text = harmless(span.untrusted_text)
            if span.columns:
                text = clip(text, span.columns)
                text += " " * (span.columns - width(text))
            if left is not None:
                if index == len(spans) - 1:
                    text = clip(text, max(left, _LEAST))
                left -= width(text)
            done.append(_painted(text, span.style) if self._colour else text)
        return "".join(done).rstrip()

    def _write(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


def _span(given: Span | str) -> Span:
    return Span(given) if isinstance(given, str) else given


def _painted(text: str, style: Style) -> str:
    return f"\x1b[{style.value}m{text}\x1b[0m" if style.value and text else text


def add_options(parser: argparse.ArgumentParser) -> None:
    """``-o``."""
    parser.add_argument(
        "-o",
        "--output",
        choices=[mode.value for mode in Mode],
        metavar="FORMAT",
        help="table (default on a terminal), json: one object a line (default in a pipe), or name: bare names for xargs",
    )
