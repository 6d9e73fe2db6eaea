"""`xenmesh record`: write the stream to a file, as it travelled."""

from __future__ import annotations

import argparse
from pathlib import Path

import anyio

from xenmesh.bus.consumer import Snapshot
from xenmesh.bus.errors import RecordingError
from xenmesh.bus.message import BusState
from xenmesh.bus.recording import record as recording
from xenmesh.schemas.subjects import DECLARATIONS, PUBLIC_CLASSES, VIEW, prefix

from . import times
from .context import Mesh, add_options, connect
from .errors import CommandError, UsageError
from .exits import Exit
from .output import Printer, ndjson
from .output import add_options as add_output
from .records import mark
from .stream import has_snapshot, listen, may_hear

__all__ = ["DESCRIPTION", "ENDLESS", "EXAMPLES", "options", "run"]

DESCRIPTION = """Append to FILE all that is said on the bus, byte for byte, one JSON object a line with time, subject and event, until Ctrl-C or
--for. A recording is a bug report, a demo (`xenmesh replay`) and a test fixture. Secrets are not in it: the store service leaves them out."""

EXAMPLES = """
xenmesh record case.ndjson                       # until Ctrl-C
xenmesh record case.ndjson --snapshot --for 60s  # the state first, then a minute of events
xenmesh record vif.ndjson 'store.*.device'       # these subjects alone
xenmesh record case.ndjson && xz case.ndjson
"""

ENDLESS = True


def options(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("file", metavar="FILE", help="where to; appended to if it exists")
    parser.add_argument(
        "patterns",
        nargs="*",
        default=[],
        metavar="SUBJECT",
        help="subject patterns below xen.v1.<host> (default: evt.> store.> state.> tele.>)",
    )
    parser.add_argument("--snapshot", action="store_true", help="begin with the state as it is")
    parser.add_argument("--for", dest="seconds", metavar="TIME", help="end after this time: 30s, 5m")
    add_output(parser)
    add_options(parser)


async def run(args: argparse.Namespace, out: Printer) -> int:
    """Connect and record."""
    try:
        seconds = times.seconds(args.seconds) if args.seconds else None
    except ValueError as error:
        raise UsageError(str(error)) from None
    async with connect(args) as mesh:
        below = args.patterns or ([*PUBLIC_CLASSES] if mesh.target.user == VIEW else ["store.>", *PUBLIC_CLASSES])
        return await record(mesh, out, Path(args.file), below, snapshot=args.snapshot, seconds=seconds)


async def record(mesh: Mesh, out: Printer, file: Path, below: list[str], *, snapshot: bool, seconds: float | None) -> int:
    """Record what is said under the patterns ``below`` until cancelled, or for so many seconds."""
    count = 0

    def changed(state: BusState) -> None:
        if state is BusState.UP:
            out.gap(
                "the bus was lost and is back; what was said meanwhile is not in the recording",
                mark("gap", {"why": "reconnect"}),
            )

    forget = mesh.bus.on_state(changed)
    try:
        with anyio.move_on_after(seconds):
            async with recording(mesh.bus, [f"{prefix(mesh.host)}.{each}" for each in below], file) as recorder:
                try:
                    if snapshot:
                        await _snapshots(mesh, file)
                    out.note(f"recording to {file}" + (f" for {seconds:g} s" if seconds else "; Ctrl-C ends it"))
                    await anyio.sleep_forever()
                finally:
                    count = recorder.count
                    out.note(f"{count} events in {file}; see them with: xenmesh replay {file}")
    except RecordingError as error:
        if error.facts["line"]:
            out.gap(error.sentence, mark("gap", {"why": str(error.facts["why"])}))
        else:
            raise CommandError(f"{file} cannot be written: {error.facts['why']}", "choose another file") from None
    finally:
        forget()
    return Exit.CUT if out.cut else Exit.OK


async def _snapshots(mesh: Mesh, file: Path) -> None:
    """Append each service's state, as `xenmesh watch --snapshot` tells it."""
    wanted = {name for name, each in DECLARATIONS.items() if each.built and has_snapshot(each) and may_hear(mesh, each)}
    async with listen(mesh, [DECLARATIONS[name] for name in wanted], own=False) as told:
        while wanted:
            each = await anext(told)
            if isinstance(each.what, Snapshot):
                taken = each.what
                facts: dict[str, object] = {"service": each.service, "boot": taken.boot, "seq": taken.seq}
                lines = [ndjson(mark("snapshot", {**facts, "why": taken.why}))]
                lines += [ndjson(mark("item", {**facts, "item": item})) for item in taken.items]
                await anyio.to_thread.run_sync(_append, file, lines)
                wanted.discard(each.service)


def _append(file: Path, lines: list[str]) -> None:
    with file.open("a") as out:
        out.write("".join(f"{line}\n" for line in lines))
