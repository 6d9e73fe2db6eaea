"""`xenmesh services`: who is on the bus and how they are."""

from __future__ import annotations

import argparse
import time

import anyio

from xenmesh.bus.consumer import ask
from xenmesh.bus.errors import BusError
from xenmesh.schemas.request import Health, HealthReport
from xenmesh.schemas.subjects import DECLARATIONS

from .context import Mesh, add_options, connect
from .discovery import Found, discover
from .exits import Exit
from .output import Printer, Row, Span, Style
from .output import add_options as add_output

__all__ = ["DESCRIPTION", "EXAMPLES", "options", "run"]

DESCRIPTION = """Show the services on the bus: found by the standard discovery ($SRV, which `nats service ls` uses too), then asked how they
are. A service that is declared and not there is shown as missing, and the exit code is 1."""

EXAMPLES = """
xenmesh services                      # a table
xenmesh services -o name              # names, for xargs
xenmesh services -o json | jq -r 'select(.ready | not) | .name'
"""


def options(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_output(parser)
    add_options(parser)


async def run(args: argparse.Namespace, out: Printer) -> int:
    """Connect and show."""
    async with connect(args) as mesh:
        return await show(mesh, out)


async def show(mesh: Mesh, out: Printer) -> int:
    """All services of the mesh's host, and those that are missing."""
    found = [each for each in await discover(mesh.bus) if each.host in ("", mesh.host)]
    reports: dict[str, HealthReport | None] = {}

    async def learn(each: Found) -> None:
        try:
            reports[each.id] = await ask(mesh.bus, mesh.host, each.name, "health", Health(), HealthReport, timeout=3.0)
        except BusError as error:
            out.note(f"xenmesh: {each.name}: {error.sentence}", Style.WARN)

    async with anyio.create_task_group() as group:
        for each in found:
            if each.name in DECLARATIONS:
                group.start_soon(learn, each)
    now = time.time()
    rows = [_row(each, reports.get(each.id), now) for each in found]
    missing = [name for name, each in DECLARATIONS.items() if each.built and name not in {other.name for other in found}]
    rows += [_missing(name) for name in missing]
    out.table(("SERVICE", "STATE", "VERSION", "UP", "EVENTS", "STATUS"), rows)
    return Exit.FAILED if missing or any(not report or not report.ready for report in reports.values()) else Exit.OK


def _row(found: Found, report: HealthReport | None, now: float) -> Row:
    state, style = "no answer", Style.BAD
    if report is not None:
        state, style = (
            ("stopping", Style.WARN)
            if report.lame_duck
            else ("ready", Style.GOOD)
            if report.ready
            else ("starting", Style.WARN)
        )
    elif found.name not in DECLARATIONS:
        state, style = "foreign", Style.DIM
    events = report.counters.get("events", 0) if report else 0
    record = {
        "name": found.name,
        "id": found.id,
        "host": found.host,
        "version": found.version,
        "ready": report.ready if report else None,
        "lame_duck": report.lame_duck if report else None,
        "status": report.status if report else None,
        "since": report.since if report else None,
        "counters": report.counters if report else {},
    }
    cells = (
        Span(found.name, Style.KEY),
        Span(state, style),
        found.version,
        _age(now - report.since) if report else "-",
        str(events) if report else "-",
        report.status if report else found.description,
    )
    return Row(cells, record, found.name)


def _missing(name: str) -> Row:
    record = {"name": name, "id": None, "ready": False, "status": "missing"}
    return Row(
        (Span(name, Style.KEY), Span("missing", Style.BAD), "-", "-", "-", "nobody answers under this name"), record, name
    )


def _age(seconds: float) -> str:
    whole = max(int(seconds), 0)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{whole % 60}s" if minutes else f"{whole}s"
