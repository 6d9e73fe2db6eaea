import json
from pathlib import Path

from cli.house import changed

from xenmesh.bus.recording import read
from xenmesh.cli.output import ndjson
from xenmesh.cli.records import event_record, mark
from xenmesh.schemas.envelope import Envelope, Item, Unknown


def envelope(item: Item) -> Envelope[Item]:
    return Envelope(host="h", service="store", boot="b", seq=3, prev=2, time=1.5, event=item)


def test_every_line_is_a_recording(tmp_path: Path) -> None:
    lines = [
        ndjson(event_record("h", "store.5.data", envelope(changed("/local/domain/5/data/x", "1")))),
        ndjson(mark("gap", {"why": "slow"})),
    ]
    (tmp_path / "f").write_text("\n".join(lines) + "\n")

    first, second = read(tmp_path / "f")

    assert (first.time, first.subject) == (1.5, "xen.v1.h.store.5.data")
    assert json.loads(first.data)["event"]["type"] == "store.changed"
    assert (second.subject, json.loads(second.data)) == ("xenmesh.gap", {"why": "slow"})


def test_an_event_of_an_unknown_type_stands_as_it_came() -> None:
    record = json.loads(ndjson(event_record("h", "", envelope(Unknown(type="new", raw=b'{"type":"new","x":1}')))))

    assert record["event"]["event"] == {"type": "new", "x": 1}
    assert record["subject"] == "xen.v1.h.unknown"
