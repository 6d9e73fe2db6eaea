"""What is said to JetStream, and what its answers mean."""

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenmesh.bus.errors import NoHistory, ProtocolError
from xenmesh.bus.jetstream import (
    StreamConfig,
    acknowledged,
    next_batch,
    read_batch_message,
    read_stream,
    seconds,
    state_subject,
)
from xenmesh.bus.message import Kept, Message


def test_acknowledged() -> None:
    assert acknowledged(b'{"stream":"XEN_EVT","seq":3,"duplicate":true}') is None
    assert acknowledged(b'{"error":{"code":503,"description":"no space"}}') == "no space"
    assert acknowledged(b'{"error":{"code":503}}') == "error 503"
    assert acknowledged(b"{}") == "the answer is no acknowledgement"
    assert "cannot be read" in str(acknowledged(b"x"))


def test_read_stream() -> None:
    config = StreamConfig(name="A", subjects=["a"])
    assert read_stream(b'{"config":' + msgspec.json.encode(config) + b',"state":{}}') == config
    assert read_stream(b'{"error":{"code":404,"err_code":10059,"description":"stream not found"}}') is None
    with pytest.raises(NoHistory, match="insufficient"):
        read_stream(b'{"error":{"code":500,"description":"insufficient storage"}}')
    with pytest.raises(ProtocolError):
        read_stream(b"{}")
    with pytest.raises(ProtocolError):
        read_stream(b"x")


def test_next_batch() -> None:
    assert msgspec.json.decode(next_batch("a.>", number=7, time=1.0))["seq"] == 8
    assert msgspec.json.decode(next_batch("a.>", number=None, time=None))["seq"] == 1
    asked = msgspec.json.decode(next_batch("a.>", number=None, time=1.5))
    assert asked["start_time"] == "1970-01-01T00:00:01.500000+00:00"
    assert "seq" not in asked
    assert asked["next_by_subj"] == "a.>"


def test_read_batch_message() -> None:
    headers = {
        "Nats-Sequence": "3",
        "Nats-Time-Stamp": "2026-11-20T17:01:53.5Z",
        "Nats-Subject": "a.b",
        "Nats-Num-Pending": "2",
    }
    assert read_batch_message(Message("i", b"x", "", headers)) == Kept(3, 1795194113.5, "a.b", b"x")
    assert read_batch_message(Message("i", b"", "", {"Status": "204", "Nats-Num-Pending": "2"})) == 2
    assert read_batch_message(Message("i", b"", "", {"Status": "404"})) == 0
    with pytest.raises(NoHistory, match="408 Empty Request"):
        read_batch_message(Message("i", b"", "", {"Status": "408", "Description": "Empty Request"}))
    with pytest.raises(ProtocolError):
        read_batch_message(Message("i", b"x"))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["Status", "Nats-Sequence", "Nats-Time-Stamp", "Nats-Num-Pending"]), st.text()))
def test_any_answer_is_read_or_refused(headers: dict[str, str]) -> None:
    with suppress(NoHistory, ProtocolError):
        read_batch_message(Message("i", b"", "", headers))


def test_seconds() -> None:
    assert seconds("1970-01-01T00:00:01Z") == 1.0
    assert seconds("1970-01-01T00:00:01.25Z") == 1.25
    assert seconds("1970-01-01T00:00:01.123456789Z") == pytest.approx(1.123456789)
    for wrong in ("", "soon", "1970-01-01T00:00:01.xZ"):
        with pytest.raises(ProtocolError):
            seconds(wrong)


def test_state_subject() -> None:
    assert state_subject("domain.x") == "$KV.xen_state.domain.x"
