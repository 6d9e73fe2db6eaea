import contextlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenmesh.schemas import EVENTS
from xenmesh.schemas.envelope import Envelope, State, Unknown, decode, decode_item, decode_state, encode
from xenmesh.schemas.service import ServiceState
from xenmesh.schemas.store import Changed


def envelope(event: msgspec.Struct) -> Envelope[msgspec.Struct]:
    return Envelope(host="h", service="store", boot="b", seq=2, prev=1, time=1.5, event=event)


CHANGED = Changed(domid=5, uuid=None, path="/local/domain/5/name", value="web", size=3)


def test_an_event_survives_the_wire() -> None:
    assert decode(encode(envelope(CHANGED)), EVENTS) == envelope(CHANGED)


def test_bytes_travel_as_base64() -> None:
    event = Changed(domid=5, uuid=None, path="/a", value=None, raw=b"\xff\x00", size=2)

    assert b'"raw":"/wA="' in encode(envelope(event))
    assert decode(encode(envelope(event)), EVENTS).event == event


def test_an_unknown_type_keeps_its_place_in_the_order() -> None:
    data = encode(envelope(CHANGED)).replace(b"store.changed", b"store.eaten")

    got = decode(data, EVENTS)

    assert (got.seq, got.prev) == (2, 1)
    assert isinstance(got.event, Unknown)
    assert got.event.type == "store.eaten"
    assert b"/local/domain/5/name" in got.event.raw


def test_facts_of_the_wrong_shape_are_unknown_with_their_reason() -> None:
    got = decode(encode(envelope(CHANGED)).replace(b'"domid":5', b'"domid":"x"'), EVENTS).event

    assert isinstance(got, Unknown)
    assert got.type == "store.changed"
    assert "domid" in got.why


def test_a_newer_host_may_say_more() -> None:
    data = encode(envelope(CHANGED)).replace(b'"domid":5', b'"domid":5,"colour":"blue"')

    assert decode(data, EVENTS).event == CHANGED


def test_what_is_no_envelope_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(b'{"host":"h"}', EVENTS)


def test_a_state_survives_the_wire() -> None:
    value = ServiceState(name="store", version="1", boot="b", ready=True, status="well", since=1.0, lame_duck=False)
    state = State(host="h", service="store", boot="b", seq=3, time=2.0, state=value)

    assert decode_state(encode(state), EVENTS) == state


@pytest.mark.parametrize(("data", "tag"), [(b"\xff", ""), (b"[]", ""), (b"{}", ""), (b'{"type":"none"}', "none")])
def test_an_item_never_raises(data: bytes, tag: str) -> None:
    got = decode_item(data, EVENTS)

    assert isinstance(got, Unknown)
    assert got.type == tag


@pytest.mark.parametrize("read", [decode, decode_state])
@pytest.mark.parametrize("closed", [0, 100_000])
def test_what_is_nested_too_deeply_is_no_envelope(read: Callable[..., object], closed: int) -> None:
    with pytest.raises(msgspec.DecodeError, match="nested too deeply"):
        read(b'{"host":"h","event":' + b"[" * 100_000 + b"]" * closed + b"}", EVENTS)


@pytest.mark.parametrize("start", [b'{"type":"store.changed","domid":', b'{"later":', b'{"type":"none","later":'])
def test_an_item_nested_too_deeply_is_unknown_with_its_reason(start: bytes) -> None:
    data = start + b"[" * 100_000

    got = decode_item(data, EVENTS)

    assert isinstance(got, Unknown)
    assert got.why == "nested too deeply"
    assert got.raw == data


@settings(deadline=None)
@given(st.binary())
def test_arbitrary_bytes_are_at_worst_unknown(data: bytes) -> None:
    got = decode_item(data, EVENTS)

    assert isinstance(got, Unknown)
    assert got.raw == data
    with contextlib.suppress(msgspec.DecodeError):
        decode(data, EVENTS)


def test_what_is_no_text_is_no_envelope() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(encode(envelope(CHANGED)).replace(b'"b"', b'"\xff"'), EVENTS)
