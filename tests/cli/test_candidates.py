from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from cli.house import UUID, House, changed

from xenmesh.cli import candidates as module
from xenmesh.cli.candidates import candidates
from xenmesh.cli.context import Mesh


@pytest.fixture
def connected(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    @asynccontextmanager
    async def connect(args: object) -> AsyncIterator[Mesh]:
        yield house.mesh()

    monkeypatch.setattr(module, "connect", connect)
    return house


async def test_domains_by_name_and_domid(connected: House) -> None:
    async with connected.serve():
        await connected.boot(5, "web-1")
        await connected.boot(7, "evil\x1b[2J", UUID)

        assert await candidates("DOMAIN", "w", None) == ["web-1", "5", "7"]
        assert await candidates("PATTERN", "", None) == ["store", "events", "web-1", "5", "7"]


async def test_paths_go_level_by_level(connected: House) -> None:
    async with connected.serve():
        await connected.boot(5, "web-1")
        await connected.say(changed("/local/domain/5/data/os", "x", UUID))

        assert await candidates("PATH", "", None) == ["web-1/", "5/", "/local/domain/"]
        assert await candidates("PATH", "web-1/", None) == ["web-1/name", "web-1/vm", "web-1/data/"]
        assert await candidates("PATH", "web-1/da", None) == ["web-1/data/"]
        assert await candidates("PATH", "/local/domain/5/data/", None) == ["/local/domain/5/data/os"]
        assert await candidates("PATH", "/lo", None) == ["/local/"]


async def test_a_mesh_that_does_not_answer_gives_none(connected: House) -> None:
    assert await candidates("DOMAIN", "", None) == []
    assert await candidates("PATH", "web/", None) == []
