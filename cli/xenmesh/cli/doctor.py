"""`xenmesh doctor`: what is wrong, why, and the command that mends it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from xenmesh.bus.errors import BusError

from . import checks
from .checks import Finding, Level
from .context import Mesh, Running, Target, add_options, find, open_bus, read_running
from .discovery import Found, discover
from .errors import CommandError
from .exits import Exit
from .output import Printer, Span, Style
from .output import add_options as add_output

__all__ = ["DESCRIPTION", "EXAMPLES", "look", "options", "run"]

DESCRIPTION = """Look at everything that the mesh needs: nats-server, the bus, credentials and permissions, the host's id, xenstored, each service
and its heartbeat, the history, disk and clock. Of what is wrong it says why it matters, and the command that mends it. Exit code 1 if anything
is. It changes nothing, and takes a few seconds, for it waits for heartbeats."""

EXAMPLES = """
xenmesh doctor
xenmesh doctor --dir /tmp/mesh
xenmesh doctor -o json | jq 'select(.level == "wrong")'
"""

_STYLES = {Level.OK: Style.GOOD, Level.NOTE: Style.WARN, Level.WRONG: Style.BAD}


def options(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_output(parser)
    add_options(parser)


async def run(args: argparse.Namespace, out: Printer) -> int:
    """Look, and say."""
    wrong = 0

    def tell(finding: Finding) -> None:
        nonlocal wrong
        wrong += finding.level is Level.WRONG
        out.line(
            (Span(finding.level.value, _STYLES[finding.level], 7), Span(finding.what, Style.KEY, 13), finding.saw),
            finding,
            finding.what if finding.level is Level.WRONG else "",
        )
        if finding.why:
            out.text((" " * 20, Span("why: ", Style.DIM), finding.why))
        if finding.mend:
            out.text((" " * 20, Span("do:  ", Style.DIM), Span(finding.mend, Style.BOLD)))

    await look(args, tell)
    out.text()
    out.text((Span(f"{wrong} wrong", Style.BAD) if wrong else Span("all is well", Style.GOOD),))
    return Exit.FAILED if wrong else Exit.OK


async def look(args: argparse.Namespace, tell: Callable[[Finding], None]) -> None:
    """Look at everything, and tell each finding as it is made."""
    running: Running | None = None
    target: Target | None = None
    missing: Finding | None = None
    try:
        target = find(args)
        running = _running(target)
    except CommandError as error:
        missing = Finding(
            "mesh", Level.WRONG, error.sentence, "there is nothing to connect to", error.hint.removeprefix("start one: ")
        )
    if running is not None or target is None:
        tell(checks.binary())
        tell(checks.xenstore(running))
        tell(checks.disk(running))
    if target is None:
        if missing is not None:
            tell(missing)
        return
    key = checks.key(target)
    tell(key)
    if key.level is Level.WRONG:
        return  # the bus would only say the same
    try:
        async with open_bus(target, deadline=3.0) as bus:
            tell(await checks.round_trip(bus, target))
            found = await discover(bus)
            tell(checks.host_ids(target, found))
            host = target.host or next((each.host for each in found if each.host), None)
            if host is not None:
                await _on_the_bus(Mesh(bus, host, target), found, tell)
    except BusError as error:
        tell(checks.bus_lost(target, error, running))


async def _on_the_bus(mesh: Mesh, found: list[Found], tell: Callable[[Finding], None]) -> None:
    if mesh.target.user == "view":  # it does not hear heartbeats
        for finding in [*await checks.services(mesh, found), *await checks.history(mesh), await checks.reading(mesh)]:
            tell(finding)
        return
    async with checks.listening(mesh) as hearts:
        for finding in [
            *await checks.services(mesh, found),
            *await checks.history(mesh),
            await checks.reading(mesh),
            *await hearts.findings(),
        ]:
            tell(finding)


def _running(target: Target) -> Running | None:
    """What is known of the mesh on this host; None where only a URL is."""
    try:
        return read_running(Path(target.source)) if target.source.startswith("/") else None
    except (OSError, CommandError):
        return None
