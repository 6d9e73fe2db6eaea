"""Streams and bucket are made once, brought up to date, and never deleted."""

from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from rigs.nats_server import NatsServer

from xenmesh.bus.errors import NoHistory
from xenmesh.bus.jetstream import EVENTS, STATE, read_stream
from xenmesh.bus.nats import NatsBus, connect
from xenmesh.bus.provision import provision, wanted

Start = Callable[..., NatsServer]


@pytest.fixture
async def bus(nats_server: Start) -> AsyncIterator[NatsBus]:
    async with connect(nats_server().url, user="t", host="h1") as joined:
        yield joined


def test_wanted_is_bounded_in_every_way() -> None:
    streams = {config.name: config for config in wanted("h1")}
    assert list(streams) == ["XEN_EVT", "XEN_AUDIT", "KV_xen_state"]
    day = 24 * 3600 * 10**9
    assert (streams["XEN_EVT"].max_age, streams["XEN_EVT"].max_bytes) == (7 * day, 64 << 20)
    assert (streams["XEN_AUDIT"].max_age, streams["XEN_AUDIT"].max_bytes) == (90 * day, 32 << 20)
    state = streams["KV_xen_state"]
    assert (state.storage, state.max_msgs_per_subject, state.max_bytes) == ("memory", 1, 8 << 20)
    assert state.republish is not None
    assert (state.republish.src, state.republish.dest) == ("$KV.xen_state.>", "xen.v1.h1.state.>")


async def test_made_once(bus: NatsBus) -> None:
    assert await provision(bus, "h1") == ["XEN_EVT", "XEN_AUDIT", "KV_xen_state"]
    await bus.keep("xen.v1.h1.evt.host.a", b"1", identity="1")
    assert await provision(bus, "h1") == []
    assert [kept.data async for kept in bus.history("xen.v1.h1.evt.>")] == [b"1"]


async def test_brought_up_to_date_with_what_it_holds(bus: NatsBus) -> None:
    await provision(bus, "h1")
    await bus.keep("xen.v1.h1.evt.host.a", b"1", identity="1")
    old = msgspec.structs.replace(wanted("h1")[0], max_bytes=1 << 20)
    await bus.request(f"$JS.API.STREAM.UPDATE.{EVENTS}", msgspec.json.encode(old), timeout=5)
    assert await provision(bus, "h1") == ["XEN_EVT"]
    answer = await bus.request(f"$JS.API.STREAM.INFO.{EVENTS}", b"", timeout=5)
    assert read_stream(answer.data) == wanted("h1")[0]
    assert [kept.data async for kept in bus.history("xen.v1.h1.evt.>")] == [b"1"]


async def test_what_cannot_be_brought_up_to_date_is_told_and_left(bus: NatsBus) -> None:
    await bus.request(f"$JS.API.STREAM.CREATE.{EVENTS}", b'{"name":"XEN_EVT","subjects":["x"],"storage":"memory"}', timeout=5)
    with pytest.raises(NoHistory, match="storage"):
        await provision(bus, "h1")


async def test_a_purged_value_leaves_no_mark_for_long(bus: NatsBus) -> None:
    await provision(bus, "h1")
    await bus.put("domain.a", b"1")
    await bus.purge("domain.a")
    answer = await bus.request(f"$JS.API.STREAM.INFO.{STATE}", b"", timeout=5)
    config = read_stream(answer.data)
    assert config is not None
    assert config.allow_msg_ttl  # without it the server ignores the mark's time to live


async def test_a_server_without_streams(nats_server: Start) -> None:
    async with connect(nats_server(jetstream=False).url, user="t", host="h1") as bus:
        with pytest.raises(NoHistory, match="keeps no streams"):
            await provision(bus, "h1")
