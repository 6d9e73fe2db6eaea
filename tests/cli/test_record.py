from pathlib import Path

import anyio
import pytest
from cli.house import HOST, UUID, Heard, House, changed
from rigs.waiting import eventually

from xenmesh.bus.recording import read
from xenmesh.cli.errors import CommandError
from xenmesh.cli.record import record
from xenmesh.schemas.subjects import prefix


async def test_what_is_said_is_in_the_file(house: House, table: Heard, tmp_path: Path) -> None:
    file = tmp_path / "case.ndjson"
    async with house.serve():
        await house.boot(5, "web-1")
        async with anyio.create_task_group() as group:

            async def work() -> None:
                await record(house.mesh(), table.printer, file, ["store.>"], snapshot=True, seconds=None)

            group.start_soon(work)
            await eventually(lambda: "recording to" in table.notes, "the recording")
            await house.say(changed("/local/domain/5/data/x", "\x1b", UUID))
            await eventually(lambda: len(list(read(file))) == 5, "five lines")
            group.cancel_scope.cancel()

    assert [each.subject for each in read(file)] == ["xenmesh.snapshot", *["xenmesh.item"] * 3, f"{prefix(HOST)}.store.5.data"]
    assert f"1 events in {file}" in table.notes


async def test_it_ends_by_itself(house: House, table: Heard, tmp_path: Path) -> None:
    async with house.serve():
        code = await record(house.mesh(), table.printer, tmp_path / "f", ["evt.>"], snapshot=False, seconds=0.05)

    assert code == 0


async def test_a_lost_bus_leaves_a_hole_that_is_told(house: House, ndjson: Heard, tmp_path: Path) -> None:
    codes: list[int] = []
    async with anyio.create_task_group() as group:

        async def work() -> None:
            codes.append(await record(house.mesh("rec"), ndjson.printer, tmp_path / "f", ["evt.>"], snapshot=False, seconds=1))

        group.start_soon(work)
        await eventually(lambda: "recording to" in ndjson.notes, "the recording")
        house.server.cut("rec")
        house.server.mend("rec")

    assert codes == [4]


async def test_a_file_that_cannot_be_written(house: House, table: Heard) -> None:
    with pytest.raises(CommandError, match="cannot be written"):
        await record(house.mesh(), table.printer, Path("/nope/x"), ["evt.>"], snapshot=False, seconds=1)
