from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from cli.house import HOST, OTHER, UUID, Heard, House, changed
from rigs.waiting import eventually

from xenmesh.bus.memory import MemoryBus
from xenmesh.bus.recording import read
from xenmesh.bus.service import Service
from xenmesh.cli.selection import parse
from xenmesh.cli.watch import Watcher
from xenmesh.schemas import request, service, store
from xenmesh.schemas.subjects import DECLARATIONS, prefix


@asynccontextmanager
async def watching(
    house: House, heard: Heard, pattern: str = "", since: float | None = None, **given: object
) -> AsyncIterator[Watcher]:
    watcher = Watcher(house.mesh("watcher"), parse(pattern), heard.printer, **given)  # type: ignore[arg-type]
    async with anyio.create_task_group() as group:
        group.start_soon(watcher.watch, since)
        await eventually(lambda: "store" in watcher._began, "the first snapshot")
        yield watcher
        group.cancel_scope.cancel()


async def test_events_as_they_happen_with_names(house: House, table: Heard) -> None:
    async with house.serve():
        await house.boot(5, "web-1")
        async with watching(house, table):
            await house.say(
                changed("/local/domain/5/data/x", "1", UUID), store.Removed(domid=5, uuid=UUID, path="/local/domain/5/data/x")
            )
            await house.say(store.DomainGone(domid=5, uuid=UUID, generation=1))
            await eventually(lambda: len(table.lines) == 3, "three events")

    assert [line[14:] for line in table.lines] == [
        'web-1 (5)             /local/domain/5/data/x = "1"',
        "web-1 (5)             /local/domain/5/data/x removed",
        f"web-1 (5)             gone  {UUID}",
    ]
    assert not table.printer.cut


async def test_programs_get_a_recording(house: House, ndjson: Heard, tmp_path: Path) -> None:
    async with house.serve():
        await house.boot(5, "web-1")
        async with watching(house, ndjson, snapshot=True):
            await house.say(changed("/local/domain/5/data/x", "\x1b\u202e", UUID))
            await eventually(lambda: len(ndjson.lines) == 5, "mark, items, event")

    assert ndjson.out.isascii()
    (tmp_path / "file").write_text(ndjson.out)
    assert [record.subject for record in read(tmp_path / "file")] == [
        "xenmesh.snapshot",
        *["xenmesh.item"] * 3,
        f"{prefix(HOST)}.store.5.data",
    ]
    assert ndjson.records[4]["event"]["event"]["value"] == "\x1b\u202e"


async def test_one_domain(house: House, names: Heard) -> None:
    async with house.serve():
        await house.boot(5, "web-1")
        await house.boot(7, "web-2", OTHER)
        async with watching(house, names, "web-1"):
            await house.say(changed("/local/domain/7/data/x", "1", OTHER), changed("/local/domain/5/data/y", "1", UUID))
            await eventually(lambda: names.lines, "an event")

    assert names.lines == ["/local/domain/5/data/y"]


async def test_a_domain_that_is_not_there_is_waited_for_and_told_of(house: House, names: Heard) -> None:
    async with house.serve():
        await house.boot(7, "web-2", OTHER)
        async with watching(house, names, "web-1"):
            assert "no domain web-1 yet, it is waited for; there are: web-2" in names.notes
            await house.boot(5, "web-1")
            await eventually(lambda: names.lines, "its coming")

    assert not names.printer.cut


async def test_it_ends_after_so_many(house: House, names: Heard) -> None:
    async with house.serve():
        await house.boot(5, "web-1")
        watcher = Watcher(house.mesh(), parse("5"), names.printer, count=2)
        async with anyio.create_task_group() as group:
            group.start_soon(watcher.watch)
            await eventually(lambda: "store" in watcher._began, "the first snapshot")
            await house.say(*(changed(f"/local/domain/5/data/{index}", "1", UUID) for index in range(5)))

    assert len(names.lines) == 2


async def test_a_lost_bus_is_a_gap_that_is_told(house: House, ndjson: Heard) -> None:
    async with house.serve(), watching(house, ndjson):
        house.server.cut("watcher")
        house.server.mend("watcher")
        await eventually(lambda: "state was read again" in ndjson.notes, "word of the gap")

    assert ndjson.printer.cut
    assert "xenmesh.gap" in {record["subject"] for record in ndjson.records}


async def test_a_service_that_goes_is_told_and_is_no_gap_yet(house: House, table: Heard) -> None:
    async with house.serve(), watching(house, table) as watcher:
        house.server.cut("watcher")
        await eventually(lambda: "store is away" in table.notes, "word that it is away")
        assert watcher is not None

    assert not table.printer.cut


@asynccontextmanager
async def history(house: House, pages: list[request.SincePage]) -> AsyncIterator[list[request.Since]]:
    """An events service that has these pages."""
    asked: list[request.Since] = []

    async def since(given: request.Since, caller: object) -> request.SincePage:
        asked.append(given)
        return pages[len(asked) - 1]

    events = Service(MemoryBus(house.server, user="events", host=HOST), DECLARATIONS["events"], HOST, version="1")
    events.answer("since", since)
    async with events.serve():
        await events.ready()
        yield asked


def kept(seq: int, boot: str) -> request.Kept:
    import msgspec

    from xenmesh.schemas.envelope import Envelope, encode

    event = service.Source(source="xenstored", state=service.SourceState.LOST, why=str(seq), lost=seq)
    data = encode(Envelope(host=HOST, service="store", boot=boot, seq=seq, prev=seq - 1, time=seq, event=event))
    return request.Kept(time=seq, subject=f"{prefix(HOST)}.evt.service.store.source", event=msgspec.Raw(data))


async def test_since_gives_the_history_then_what_is_new_once(house: House, ndjson: Heard) -> None:
    async with house.serve() as running:
        pages = [
            request.SincePage(events=[kept(1, running.boot), kept(2, running.boot)], next=2),
            request.SincePage(events=[kept(3, running.boot)], next=None),
        ]
        async with history(house, pages) as asked, watching(house, ndjson, "evt", since=0.5):
            await eventually(lambda: len(ndjson.lines) == 3, "the history")
            lost = service.Source(source="xenstored", state=service.SourceState.LOST, why="x", lost=1)
            while running.seq < 3:  # these the history has shown
                await running.emit(lost)
            await running.emit(lost)
            await eventually(lambda: len(ndjson.lines) == 4, "what is new")

    assert [record["event"]["seq"] for record in ndjson.records] == [1, 2, 3, 4]
    assert [(each.time, each.pattern, each.cursor) for each in asked] == [(0.5, "evt.>", None), (None, "evt.>", 2)]


async def test_what_the_history_lost_is_told(house: House, ndjson: Heard) -> None:
    async with house.serve() as running:
        page = request.SincePage(events=[kept(9, running.boot)], next=None, lost=True)
        async with history(house, [page]), watching(house, ndjson, "evt", since=0.5):
            await eventually(lambda: len(ndjson.lines) == 2, "a gap and an event")

    assert ndjson.printer.cut
    assert "discarded" in ndjson.notes


@pytest.mark.parametrize("hostile", ["\x1b]0;x\x07", "a\nb", "\u202e"])
async def test_a_guests_name_cannot_paint(house: House, table: Heard, hostile: str) -> None:
    async with house.serve():
        await house.boot(5, hostile)
        async with watching(house, table):
            await house.say(changed("/local/domain/5/data/x", hostile, UUID))
            await eventually(lambda: table.lines, "an event")

    assert len(table.lines) == 1
    assert table.lines[0].isprintable()
