"""Streams recorded on real Xen (tests/lab/test_mesh.py), through the store's model and through a bus to a consumer."""

from pathlib import Path

import anyio
import msgspec
import pytest
from rigs.streams import Published, Stream

from xenmesh.bus.consumer import Snapshot, follow
from xenmesh.bus.memory import MemoryBus, MemoryServer
from xenmesh.bus.message import Message
from xenmesh.bus.recording import replay
from xenmesh.schemas import request
from xenmesh.schemas.envelope import Envelope, Event, Item, encode
from xenmesh.schemas.store import Changed, DomainGone, DomainSeen
from xenmesh.schemas.subjects import prefix, query
from xenmesh.services.store.config import StoreConfig
from xenmesh.services.store.model import Model
from xenmesh.services.store.source import recorded

HERE = Path(__file__).parent
EXPECTED = sorted(HERE.glob("*.expected.ndjson"))
"""States that were compared node by node with what `xenstore-ls` showed at that moment."""


def stream_of(expected: Path) -> Stream:
    return Stream.load(HERE / f"{expected.name.split('.')[0]}.ndjson")


def items_of(model: Model) -> list[Item]:
    return [item for view in model.cut().values() for item in view]


def test_every_stream_has_an_expected_state() -> None:
    assert EXPECTED
    streams = {file.name.split(".")[0] for file in HERE.glob("*.ndjson")}
    assert streams == {file.name.split(".")[0] for file in EXPECTED}


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda file: file.name)
def test_the_model_says_the_same_again_and_ends_in_the_same_state(expected: Path) -> None:
    stream, wanted = stream_of(expected), Stream.load(expected)
    said = [envelope for envelope in stream.said if envelope.seq <= wanted.seq]
    model = Model(StoreConfig())
    for observation in recorded(stream.items):
        model.apply(observation)
    assert Published(items_of(model)).items() == Published(stream.items).items()

    again = [event for observation in recorded(envelope.event for envelope in said) for event in model.apply(observation)]

    assert again == [envelope.event for envelope in said]
    assert Published(items_of(model)).items() == Published(wanted.items).items()


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda file: file.name)
async def test_a_consumer_of_the_replayed_stream_ends_in_the_same_state(expected: Path) -> None:
    stream, wanted = stream_of(expected), Stream.load(expected)
    server, told = MemoryServer(), Published()
    stage = MemoryBus(server, user="store", host=stream.host)

    def answer(asked: Message) -> None:
        page = request.SnapshotPage(
            boot=stream.boot,
            seq=stream.seq,
            cut="recorded",
            page=0,
            next=None,
            items=[msgspec.Raw(encode(item)) for item in stream.items if isinstance(item, Event)],
        )
        outcome = request.Outcome(request_id="", boot=stream.boot, seq=stream.seq, result=page)
        server.route(Message(asked.reply, encode(outcome)))

    await stage.subscribe(f"{prefix(stream.host)}.{query('store', 'snapshot')}", answer)
    async with follow(MemoryBus(server, user="view", host=stream.host), stream.host, "store") as items:
        with anyio.fail_after(20):
            first = await anext(items)
            assert isinstance(first, Snapshot)
            told = Published(first.items)
            for record in stream.records:
                await replay([record], stage, speed=None)
                if record.subject.split(".")[3] != "store":
                    continue
                envelope = msgspec.json.decode(record.data, type=_Place)
                if stream.seq < envelope.seq <= wanted.seq:
                    heard = await anext(items)
                    assert isinstance(heard, Envelope)
                    assert heard.seq == envelope.seq
                    told.apply(heard.event)
    assert items.counters["snapshots"] == 1
    assert told.facts() == Published(wanted.items).facts()


class _Place(msgspec.Struct):
    seq: int


def test_the_boot_of_a_pv_guest_is_told_in_the_order_of_its_life() -> None:
    events = [envelope.event for envelope in Stream.load(HERE / "one-pv-guest-boots.ndjson").said]
    [uuid] = {event.uuid for event in events if isinstance(event, DomainGone)}
    [domid] = {event.domid for event in events if isinstance(event, DomainGone)}
    home = f"/local/domain/{domid}"

    def first(path: str, value: str) -> int:
        return next(
            n for n, event in enumerate(events) if isinstance(event, Changed) and (event.path, event.value) == (path, value)
        )

    life = [
        next(
            n for n, event in enumerate(events) if isinstance(event, DomainSeen) and event.introduced and event.domid == domid
        ),
        first(f"{home}/device/vbd/51712/state", "4"),
        first(f"{home}/control/shutdown", "poweroff"),
        next(n for n, event in enumerate(events) if isinstance(event, DomainGone)),
    ]
    assert life == sorted(life)
    assert first(f"{home}/vm", f"/vm/{uuid}") < life[1]
