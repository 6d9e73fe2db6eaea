import msgspec
import pytest

from xenmesh.schemas.errors import failure
from xenmesh.schemas.request import Command, Outcome, Position, Query, Snapshot, decode_command


class Start(Command, frozen=True, kw_only=True, omit_defaults=True, tag="domains.start"):
    name: str
    paused: bool = False


def test_defaults_are_left_out_so_that_an_older_host_understands() -> None:
    assert msgspec.json.encode(Start(request_id="r", name="web")) == b'{"op":"domains.start","request_id":"r","name":"web"}'
    assert msgspec.json.encode(Snapshot()) == b"{}"


def test_a_command_survives_the_wire() -> None:
    assert decode_command(msgspec.json.encode(Start(request_id="r", name="web")), Start) == Start(request_id="r", name="web")


@pytest.mark.parametrize(
    "data",
    [
        b'{"request_id":"r","name":"web"}',
        b'{"op":"domains.stop","request_id":"r","name":"web"}',
        b'{"op":"domains.start","name":"web"}',
        b'{"op":"domains.start","request_id":"r","name":"web","force":true}',
        b'{"request_id":"","boot":"b","seq":1,"result":{}}',
    ],
)
def test_a_command_is_taken_for_nothing_else(data: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_command(data, Start)


def test_a_query_skips_what_it_does_not_know() -> None:
    assert msgspec.json.decode(b'{"colour":"blue"}', type=Query) == Query()


def test_an_outcome_has_a_result_or_an_error() -> None:
    good = Outcome(request_id="r", boot="b", seq=1, result=Position(boot="b", seq=1, newest=0))
    bad: Outcome[Position] = Outcome(request_id="r", boot="b", seq=1, error=failure("draining", service="store"))

    for outcome in (good, bad):
        assert msgspec.json.decode(msgspec.json.encode(outcome), type=Outcome[Position]) == outcome
