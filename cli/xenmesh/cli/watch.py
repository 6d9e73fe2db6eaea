"""`xenmesh watch`: events as they happen."""

from __future__ import annotations

import argparse
import time
from collections.abc import AsyncIterator

import anyio

from xenmesh.bus.consumer import Away, Snapshot, ask
from xenmesh.schemas import EVENTS
from xenmesh.schemas.envelope import Envelope, Item, decode
from xenmesh.schemas.request import Since, SincePage
from xenmesh.schemas.store import DomainGone
from xenmesh.schemas.subjects import VIEW, below

from . import numbers, times
from .context import Mesh, add_options, connect
from .domains import Domains
from .errors import NotAllowed, UsageError
from .exits import Exit
from .lines import line_of, name_of
from .output import Printer, Style, harmless
from .output import add_options as add_output
from .records import event_record, mark
from .selection import Selection, overlap, parse
from .stream import Gap, Told, has_snapshot, listen, may_hear

__all__ = ["DESCRIPTION", "ENDLESS", "EXAMPLES", "Watcher", "options", "run"]

DESCRIPTION = """Show events as they happen, until Ctrl-C. They come in order and without a silent gap: where something was missed, that is said
on standard error (and in the JSON stream), and the exit code is 4.

PATTERN is a domain's name, domid or uuid (it is followed over a reboot), a service, or a subject pattern below xen.v1.<host>."""

EXAMPLES = """
xenmesh watch                              # everything
xenmesh watch web-1                        # one domain, by name, domid or uuid
xenmesh watch 'store.*.device'             # devices of every domain, as xenstore has them
xenmesh watch 'evt.service.>'              # services: started, stopping, source lost
xenmesh watch web-1 --snapshot             # first what is, then what happens
xenmesh watch evt --since 1h               # from the history on, then live, without a gap or a repetition
xenmesh watch -o json | jq 'select(.event.event.type == "store.domain")'
xenmesh watch -o json > case.ndjson        # a recording: xenmesh replay case.ndjson
"""

ENDLESS = True


def options(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("pattern", nargs="?", default="", metavar="PATTERN", help="what to show (default: everything)")
    parser.add_argument(
        "--since", metavar="WHEN", help="from then on: 1h, 90s, 10:30, 2026-11-20T10:30 (what the history keeps: evt)"
    )
    parser.add_argument("--snapshot", action="store_true", help="first show the state as it is")
    parser.add_argument("--for", dest="seconds", metavar="TIME", help="end after this time: 30s, 5m")
    parser.add_argument("-n", "--count", type=numbers.count, metavar="N", help="end after N events")
    add_output(parser)
    add_options(parser)


async def run(args: argparse.Namespace, out: Printer) -> int:
    """Connect and show."""
    now = time.time()
    try:
        selection = parse(args.pattern)
        since = times.moment(args.since, now) if args.since else None
        seconds = times.seconds(args.seconds) if args.seconds else None
    except ValueError as error:
        raise UsageError(str(error)) from None
    if since is not None and not selection.kept:
        raise UsageError(f"the history keeps evt, and nothing under {args.pattern!r}", "leave out --since, or use --snapshot")
    async with connect(args) as mesh:
        if mesh.target.user == VIEW and not selection.kept:
            raise NotAllowed(f"view may not hear {args.pattern}", "the operator may: --user operator")
        unheard = [each.name for each in selection.services if has_snapshot(each) and not may_hear(mesh, each)]
        if unheard:
            out.note(
                f"view may not hear {', '.join(unheard)}: only evt is shown (the operator may: --user operator)", Style.WARN
            )
        watcher = Watcher(mesh, selection, out, snapshot=args.snapshot, count=args.count)
        with anyio.move_on_after(seconds):
            await watcher.watch(since)
    return Exit.CUT if out.cut else Exit.OK


class Watcher:
    """Shows what a selection lets through, and knows the domains' names."""

    def __init__(
        self, mesh: Mesh, selection: Selection, out: Printer, *, snapshot: bool = False, count: int | None = None
    ) -> None:
        self._mesh = mesh
        self._selection = selection
        self._out = out
        self._snapshot = snapshot
        self._left = count
        self._domains = Domains()
        self._began: set[str] = set()
        self._shown: dict[tuple[str, str], int] = {}
        """By service and boot: the newest ``seq`` shown from the history."""

    async def watch(self, since: float | None = None) -> None:
        """Show until cancelled, or until so many were shown. ``since``: first what the history kept from then on."""
        async with listen(self._mesh, self._selection.services) as told:
            if since is not None:
                await self._history_and_wait(told, since)
            while not self._done:
                self.take(await anext(told))

    @property
    def _done(self) -> bool:
        return self._left is not None and self._left <= 0

    async def _history_and_wait(self, told: AsyncIterator[Told], since: float) -> None:
        """The history, read only when all that is new is being heard, so that nothing falls between; then what was heard meanwhile."""
        kept = [each for each in self._selection.services if has_snapshot(each) and overlap(each.stream, "evt.>")]
        awaited = {each.name for each in kept}
        waiting: list[Told] = []
        while awaited:
            each = await anext(told)
            waiting.append(each)
            if isinstance(each.what, Snapshot | Away):
                awaited.discard(each.service)
        await self._mesh.bus.settle()
        await self._history(since)
        for each in waiting:
            if not self._done:
                self.take(each)

    async def _history(self, since: float) -> None:
        cursor: int | None = None
        first = True
        while first or cursor is not None:
            request = Since(time=since if first else None, pattern=self._selection.kept, cursor=cursor)
            page = await ask(self._mesh.bus, self._mesh.host, "events", "since", request, SincePage)
            if page.lost:
                self._gap("events", "the history has discarded events of that time")
            for kept in page.events:
                event = decode(bytes(kept.event), EVENTS)
                self._shown[event.service, event.boot] = max(event.seq, self._shown.get((event.service, event.boot), 0))
                self._event(event.service, below(kept.subject), event)
                if self._done:
                    return
            cursor, first = page.next, False

    def take(self, told: Told) -> None:
        """Show one thing, or know it for later."""
        match told.what:
            case Snapshot() as snapshot:
                self._take_snapshot(told.service, snapshot)
            case Away(why=why):
                self._out.note(f"{told.service} is away ({why}); what is known of it stands", Style.WARN)
                self._out.mark(mark("away", {"service": told.service, "why": why}))
            case Gap(why=why):
                self._gap(told.service, f"{told.service}: events on itself were missed ({why})")
            case Envelope() as envelope:
                if told.subject.startswith("evt.") and envelope.seq <= self._shown.get((told.service, envelope.boot), 0):
                    return  # the history had it
                self._event(told.service, told.subject, envelope)

    def _take_snapshot(self, service: str, snapshot: Snapshot) -> None:
        again = service in self._began
        self._began.add(service)
        if service == "store":
            self._domains.clear()
            for item in snapshot.items:
                self._domains.apply(item)
            if not again:
                self._expect_domain()
        if again:
            sentence = f"{service}: events were missed ({snapshot.why}); the state was read again"
            self._gap(service, sentence if self._snapshot else f"{sentence}, see it with --snapshot", why=snapshot.why)
        if not self._snapshot:
            return
        self._out.mark(mark("snapshot", {"service": service, "boot": snapshot.boot, "seq": snapshot.seq, "why": snapshot.why}))
        for item in snapshot.items:
            if self._selection.shows(None, item, self._domains):
                record = mark("item", {"service": service, "boot": snapshot.boot, "seq": snapshot.seq, "item": item})
                self._out.line(line_of(None, item, self._domains, by=service), record, name_of(item))
        self._out.text((f"-- {service} as of {snapshot.seq} --",))

    def _expect_domain(self) -> None:
        """A name may be that of a domain to come, and may be a slip: say which there are."""
        word = self._selection.word
        if word is None or self._domains.called(word):
            return
        there = ", ".join(each.label for each in list(self._domains.by_domid.values())[:12]) or "none"
        more = " ..." if len(self._domains.by_domid) > 12 else ""
        self._out.note(f"there is no domain {harmless(word)} yet, it is waited for; there are: {there}{more}", Style.WARN)

    def _event(self, service: str, subject: str, envelope: Envelope[Item]) -> None:
        item = envelope.event
        if not isinstance(item, DomainGone):
            self._domains.apply(item)
        if self._selection.shows(subject, item, self._domains):
            line = line_of(envelope.time, item, self._domains, by=service)
            self._out.line(line, event_record(self._mesh.host, subject, envelope), name_of(item))
            if self._left is not None:
                self._left -= 1
        if isinstance(item, DomainGone):  # known by its name until it has been shown
            self._domains.apply(item)

    def _gap(self, service: str, sentence: str, *, why: str = "") -> None:
        self._out.gap(sentence, mark("gap", {"service": service, "why": why or sentence}))
