"""Recorded streams: byte for byte, with names for what is wrong, at any speed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenmesh.bus.errors import RecordingError
from xenmesh.bus.memory import MemoryBus, MemoryServer
from xenmesh.bus.message import Message
from xenmesh.bus.recording import Record, read, record, rehosted, replay

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
payloads = st.binary(max_size=40) | st.builds(
    lambda v, indent: json.dumps(v, indent=indent).encode(), values, st.none() | st.just(1)
)


@settings(deadline=None)
@given(data=payloads, time=st.floats(0, 2e9))
def test_a_record_gives_back_every_byte(data: bytes, time: float) -> None:
    line = Record.of(time, "xen.v1.h.store.1.data", data).line()
    assert line.count(b"\n") == 1
    file = _Lines(line)
    (back,) = read(file)  # type: ignore[arg-type]
    assert (back.time, back.subject, back.data) == (time, "xen.v1.h.store.1.data", data)


def test_an_event_stands_in_the_file_as_it_travelled() -> None:
    data = b'{"b": 1.50,"a":"\\u00e9"}'
    assert Record.of(1.5, "s", data).line() == b'{"time":1.5,"subject":"s","event":' + data + b"}\n"
    assert Record.of(1.5, "s", b"").line() == b'{"time":1.5,"subject":"s","raw":""}\n'


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"nonsense", "malformed"),
        (b'{"time":1,"subject":"s"}', "neither an event"),
        (b'{"time":1,"event":{}}', "subject"),
        (b'{"time":1,"subject":"s","event":"\xff"}', "utf-8"),
        (b'{"time":1,"subject":"s","event":{}', "truncated"),
    ],
)
def test_what_cannot_be_read_is_named_by_file_and_line(tmp_path: Path, line: bytes, why: str) -> None:
    file = tmp_path / "bad.ndjson"
    file.write_bytes(b'{"time":1,"subject":"s","event":{}}\n\n' + line + b"\n")
    records = read(file)
    assert next(records).data == b"{}"
    with pytest.raises(RecordingError, match=f"(?s)bad.ndjson, line 3: .*{why}"):
        next(records)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="No such file"):
        next(read(tmp_path / "none"))


async def test_what_is_said_while_it_records_is_in_the_file_and_is_said_again(tmp_path: Path) -> None:
    file = tmp_path / "stream.ndjson"
    server, ticks = MemoryServer(), iter(range(100))
    bus = MemoryBus(server, host="h")
    for part in range(2):  # the second appends
        async with record(bus, ["xen.v1.h.store.>", "xen.v1.h.evt.>"], file, clock=lambda: float(next(ticks))) as recorder:
            await bus.publish("xen.v1.h.store.1.data", b'{"host":"h","n":%d}' % part)
            await bus.publish("xen.v1.h.evt.host.x", b"")
            await bus.publish("xen.v1.h.tele.host", b"{}")
        assert recorder.count == 2
    await bus.publish("xen.v1.h.store.1.data", b'"after"')
    assert [(each.time, each.data) for each in read(file)] == [
        (0.0, b'{"host":"h","n":0}'),
        (1.0, b""),
        (2.0, b'{"host":"h","n":1}'),
        (3.0, b""),
    ]
    heard: list[Message] = []
    await bus.subscribe("xen.v1.other.>", heard.append)
    assert await replay(read(file), bus, speed=None, rehost="other") == 4
    await bus.settle()
    assert [message.subject for message in heard][:2] == ["xen.v1.other.store.1.data", "xen.v1.other.evt.host.x"]
    assert heard[2].data == b'{"host":"other","n":1}'


async def test_a_recorder_that_was_cut_off_says_so(tmp_path: Path) -> None:
    server = MemoryServer()
    with pytest.raises(RecordingError, match="too slow"):  # noqa: PT012
        async with record(MemoryBus(server), ["a"], tmp_path / "f"):
            for _ in range(1001):
                server.route(Message("a", b"1"))


async def test_a_full_disk_says_so() -> None:
    server = MemoryServer()
    bus = MemoryBus(server)
    with pytest.raises(RecordingError, match="No space left"):  # noqa: PT012
        async with record(bus, ["a"], Path("/dev/full")):
            await bus.publish("a", b"1")
            await bus.publish("a", b"2")
    with pytest.raises(RecordingError, match="Is a directory"):
        async with record(bus, ["a"], Path("/dev")):
            raise AssertionError


@pytest.mark.parametrize(("speed", "waits"), [(1.0, [1.0, 3.0]), (2.0, [0.5, 1.5]), (None, [])])
async def test_replay_keeps_the_distances_in_time(speed: float | None, waits: list[float]) -> None:
    now, slept, said = 100.0, [], []

    async def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    async def say(subject: str, data: bytes) -> None:
        said.append((subject, data))

    records = [Record.of(time, "xen.v1.h.a", b"1") for time in (5.0, 6.0, 5.5, 9.0)]
    assert await replay(records, say, speed=speed, clock=lambda: now, sleep=sleep) == 4
    assert slept == waits
    assert said == [("xen.v1.h.a", b"1")] * 4


async def test_no_speed_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        await replay([], MemoryBus(MemoryServer()), speed=0)


def test_rehosting_changes_the_host_and_nothing_else() -> None:
    given_ = Record.of(1.0, "xen.v1.h.store.1.data", b'{"seq": 1,"host":"h","event":{"host":"h"}}')
    assert rehosted(given_, "g").data == b'{"seq":1,"host":"g","event":{"host":"h"}}'
    for data in (b"[1]", b'{"a":1}', b"", b"\xff"):
        assert rehosted(Record.of(1.0, "xen.v1.h.a", data), "g") == Record.of(1.0, "xen.v1.g.a", data)
    for subject, host in (("other.v1.h.a", "g"), ("xen.v1.h", "g"), ("xen.v1.h.a", "a b")):
        with pytest.raises(ValueError):
            rehosted(Record.of(1.0, subject, b"1"), host)


class _Lines:
    """A file in memory, as `read` opens it."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def open(self, _: str) -> object:
        import io

        return io.BytesIO(self._data)
