"""`xenmesh replay`: show a recorded stream, or serve it as if it were happening."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import msgspec

from xenmesh.bus.errors import RecordingError
from xenmesh.bus.recording import Record, read
from xenmesh.bus.recording import replay as again
from xenmesh.schemas import EVENTS
from xenmesh.schemas.envelope import decode, decode_item, decode_state
from xenmesh.schemas.store import DomainGone
from xenmesh.schemas.subjects import below

from .domains import Domains
from .errors import CommandError, NotFound, UsageError
from .exits import Exit
from .lines import clock, line_of, name_of
from .output import Printer, Span, Style
from .output import add_options as add_output
from .place import absolute
from .records import MARKS
from .selection import Selection, parse

__all__ = ["DESCRIPTION", "ENDLESS", "EXAMPLES", "Player", "options", "run"]

DESCRIPTION = """Show a recorded stream as `xenmesh watch` would have shown it, at once or at its own pace. With --serve it is a mesh of its own: a bus
on loopback on which the recorded services speak again, for any consumer to connect to. No Xen and no running mesh is needed."""

EXAMPLES = """
xenmesh replay case.ndjson
xenmesh replay case.ndjson web-1 --speed 1        # one domain, at its own pace
xenmesh replay case.ndjson -o json | jq .event.event.path
xz -dc case.ndjson.xz | xenmesh replay -
xenmesh replay case.ndjson --serve --speed 10     # then, elsewhere: xenmesh watch --dir DIR
"""

ENDLESS = True


def options(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("file", metavar="FILE", help="a recording; - for standard input")
    parser.add_argument(
        "pattern", nargs="?", default="", metavar="PATTERN", help="what to show (default: everything), as for watch"
    )
    parser.add_argument(
        "--speed", type=float, metavar="X", help="1: at its own pace, 10: ten times as fast (default: at once; with --serve 1)"
    )
    parser.add_argument("--serve", action="store_true", help="be a mesh on which it happens again, until Ctrl-C")
    parser.add_argument("--dir", metavar="DIR", help="with --serve: the mesh's directory (default: as for `up`)")
    add_output(parser)


async def run(args: argparse.Namespace, out: Printer) -> int:
    """Show it, or serve it."""
    if args.speed is not None and not args.speed > 0:
        raise UsageError("--speed must be above 0")
    try:
        selection = parse(args.pattern)
    except ValueError as error:
        raise UsageError(str(error)) from None
    file = Path("/dev/stdin") if args.file == "-" else absolute(args.file)
    player = Player(out, selection)
    try:
        if args.serve:
            from .serving import serve

            await serve(list(read(file)), args.dir, 1.0 if args.speed is None else args.speed, player, out)
        else:
            await again(player.seen(read(file)), player.say, speed=args.speed)
    except RecordingError as error:
        if error.facts["line"] == 0:
            raise NotFound(f"{args.file} cannot be read: {error.facts['why']}") from None
        raise CommandError(
            f"{args.file}, line {error.facts['line']} is no record: {error.facts['why']}",
            "a recording is made by: xenmesh record FILE",
        ) from None
    if args.pattern and not player.shown:
        raise NotFound(f"nothing in {args.file} is of {args.pattern}", f"see all of it: xenmesh replay {args.file}")
    return Exit.CUT if out.cut else Exit.OK


class _Facts(msgspec.Struct):
    """Of a mark, what is looked at."""

    service: str = ""
    why: str = ""
    item: msgspec.Raw = msgspec.Raw(b"null")


class Player:
    """Shows records as `xenmesh watch` shows events. Whatever stands in them is untrusted: a recording comes from anywhere."""

    def __init__(self, out: Printer, selection: Selection) -> None:
        self._out = out
        self._selection = selection
        self._domains = Domains()
        self._record: Record | None = None
        self.shown = 0
        """Events and items that the selection let through."""

    def seen(self, records: Iterator[Record]) -> Iterator[Record]:
        """The same records; remembers which one is being said."""
        for self._record in records:
            yield self._record

    async def say(self, subject: str, data: bytes) -> None:
        """Show the record that is being said; where `again` sends it."""
        del subject, data
        if self._record is not None:
            self.show(self._record)

    def show(self, record: Record) -> None:
        """Show one record."""
        if record.subject.startswith(MARKS):
            self._mark(record)
            return
        try:
            subject = below(record.subject)
            envelope = (decode_state if subject.startswith("state.") else decode)(record.data, EVENTS)
        except (ValueError, msgspec.DecodeError):
            self._raw(record)
            return
        item = envelope.state if hasattr(envelope, "state") else envelope.event
        if not isinstance(item, DomainGone):
            self._domains.apply(item)
        if self._selection.shows(subject, item, self._domains):
            self.shown += 1
            self._out.line(line_of(envelope.time, item, self._domains, by=envelope.service), record, name_of(item))
        if isinstance(item, DomainGone):
            self._domains.apply(item)

    def _raw(self, record: Record) -> None:
        """Something else that was heard; shown as it is where nothing is selected."""
        if self._selection.word is None and self._selection.pattern == ">":
            text = record.data.decode(errors="replace")
            self._out.line((Span(clock(record.time), Style.DIM), "  ", Span(record.subject, Style.DIM), "  ", text), record, "")

    def _mark(self, record: Record) -> None:
        try:
            facts = msgspec.json.decode(record.data, type=_Facts)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._raw(record)
            return
        match record.subject.removeprefix(MARKS):
            case "item":
                item = decode_item(bytes(facts.item), EVENTS)
                self._domains.apply(item)
                if self._selection.shows(None, item, self._domains):
                    self.shown += 1
                    self._out.line(line_of(None, item, self._domains, by=facts.service), record, name_of(item))
            case "gap":
                self._out.gap(f"the recording has a gap: {facts.why}", record)
            case _:
                self._out.mark(record)
