"""A dead connection is revived; errors by the thousand make few lines."""

import logging

import anyio
import pytest
from rigs.waiting import eventually

from xenmesh.bus.supervision import Quiet, supervise


class Dead:
    def __init__(self) -> None:
        self.wrong: str | None = None
        self.revivals: list[str] = []

    def fault(self) -> str | None:
        return self.wrong

    async def revive(self, fault: str) -> None:
        self.revivals.append(fault)
        self.wrong = None


async def test_supervise_revives_what_is_dead_each_time() -> None:
    link = Dead()
    async with anyio.create_task_group() as group:
        group.start_soon(supervise, link)
        for number in (1, 2):
            link.wrong = f"deaf {number}"
            await eventually(lambda: link.wrong is None, "the revival", within=1)
        group.cancel_scope.cancel()
    assert link.revivals == ["deaf 1", "deaf 2"]


def test_quiet_says_the_first_of_a_kind_and_counts_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    quiet = Quiet(logging.getLogger("test"), every=30, clock=lambda: now)
    said = [quiet.warning("slow", "too slow") for _ in range(1000)]
    assert said == [True] + [False] * 999
    assert quiet.warning("other", "another kind")
    now += 30
    assert quiet.warning("slow", "too slow")
    assert caplog.messages == ["too slow", "another kind", "too slow (and 999 more of this kind)"]
