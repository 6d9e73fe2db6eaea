import re

from cli.house import Heard, House

from xenmesh.cli import services


async def test_who_is_there_and_who_is_missing(house: House, table: Heard, ndjson: Heard, names: Heard) -> None:
    async with house.serve():
        assert await services.show(house.mesh(), table.printer) == 1  # events is missing
        await services.show(house.mesh(), ndjson.printer)
        await services.show(house.mesh(), names.printer)

    assert table.lines[0].split() == ["SERVICE", "STATE", "VERSION", "UP", "EVENTS", "STATUS"]
    assert re.fullmatch(r"store +ready +1\.2\.3 +\ds +\d+ +tells what a test writes", table.lines[1])
    assert table.lines[2].startswith("events   missing")
    assert [(each["name"], each["ready"]) for each in ndjson.records] == [("store", True), ("events", False)]
    assert names.lines == ["store", "events"]


async def test_not_ready_is_seen(house: House, ndjson: Heard) -> None:
    async with house.serve(ready=False):
        assert await services.show(house.mesh(), ndjson.printer) == 1

    assert ndjson.records[0]["ready"] is False


def test_ages() -> None:
    assert [services._age(each) for each in (-1, 5, 65, 3700, 90000)] == ["0s", "5s", "1m5s", "1h1m", "1d1h"]
