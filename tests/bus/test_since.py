"""Kept events in pages: none twice, none left out, and what was discarded is told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenmesh.bus.errors import Refused
from xenmesh.bus.memory import MemoryBus, MemoryServer
from xenmesh.bus.message import Kept
from xenmesh.bus.since import Pager, check, lost_before, since
from xenmesh.schemas.envelope import encode
from xenmesh.schemas.request import Since


@settings(deadline=None)
@given(sizes=st.lists(st.integers(2, 100_000), max_size=30), limit=st.integers(1, 12))
def test_pages_hold_every_event_once_in_order_and_none_is_too_large(sizes: list[int], limit: int) -> None:
    kept = [Kept(3 * n + 1, float(n), "xen.v1.h.evt.a.b", b'"' + b"x" * (size - 2) + b'"') for n, size in enumerate(sizes)]
    seen: list[float] = []
    cursor: int | None = None
    for _ in range(len(sizes) + 1):
        page = Pager.fill([each for each in kept if cursor is None or each.number > cursor], Since(limit=limit, cursor=cursor))
        assert len(page.events) <= limit
        assert len(page.events) <= 1 or len(encode(page)) < (256 << 10) + 2000
        seen += [event.time for event in page.events]
        cursor = page.next
        if cursor is None:
            break
    assert cursor is None
    assert seen == [each.time for each in kept]


def test_what_is_no_json_breaks_no_page() -> None:
    kept = [Kept(1, 1.0, "s", b"\xff"), Kept(2, 2.0, "s", b'{"a":1}'), Kept(3, 3.0, "s", b'"\xff"'), Kept(4, 4.0, "s", b"")]
    page = Pager.fill(kept, Since())
    assert [event.time for event in page.events] == [2.0]
    assert encode(page)


@pytest.mark.parametrize(
    ("asked", "oldest", "lost"),
    [
        (Since(cursor=5), 6, False),
        (Since(cursor=5), 7, True),
        (Since(time=50.0), 1, False),
        (Since(time=50.0), 2, True),
        (Since(time=150.0), 2, False),
        (Since(), 9, False),
        (Since(cursor=5), None, False),
    ],
)
def test_it_is_told_when_events_were_discarded(asked: Since, oldest: int | None, lost: bool) -> None:
    assert lost_before(asked, None if oldest is None else Kept(oldest, 100.0, "s", b"{}")) is lost


@pytest.mark.parametrize(
    "asked",
    [
        Since(limit=0),
        Since(limit=1001),
        Since(pattern=""),
        Since(pattern="evt"),
        Since(pattern="store.>"),
        Since(pattern="evt..a"),
        Since(pattern="evt.>.a"),
        Since(pattern="evt.a b"),
        Since(pattern="evt.\n"),
        Since(pattern="*.>"),
        Since(cursor=-1),
    ],
)
def test_what_cannot_be_answered_is_refused(asked: Since) -> None:
    with pytest.raises(Refused) as refused:
        check(asked)
    assert refused.value.code == "bad-request"


async def test_it_reads_the_history_of_a_bus() -> None:
    now = 0.0
    server = MemoryServer(clock=lambda: now)
    bus = MemoryBus(server, host="h")
    assert (await since(bus, "h", Since())).events == []
    for number in range(10):
        now = float(number)
        await bus.publish(f"xen.v1.h.evt.{'domain' if number % 2 else 'host'}.x", b'{"n":%d}' % number)
        await bus.publish("xen.v1.h.store.1.data", b"{}")
    page = await since(bus, "h", Since(pattern="evt.domain.>", limit=2))
    assert [bytes(event.event) for event in page.events] == [b'{"n":1}', b'{"n":3}']
    page = await since(bus, "h", Since(pattern="evt.domain.>", limit=3, cursor=page.next))
    assert [event.time for event in page.events] == [5.0, 7.0, 9.0]
    assert (page.next, page.lost) == (None, False)
    assert [event.time for event in (await since(bus, "h", Since(time=7.5))).events] == [8.0, 9.0]
    server.discard("xen.v1.*.evt.>", before=5)
    page = await since(bus, "h", Since(cursor=2))
    assert page.lost
    assert page.events[0].time == 4.0


async def test_without_a_history_it_says_so() -> None:
    with pytest.raises(Refused) as refused:
        await since(MemoryBus(MemoryServer(history=False)), "h", Since())
    assert refused.value.code == "no-history"
