import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenmesh.xenstore.errors import FramingError, PayloadError
from xenmesh.xenstore.messages import GetDomainPath, Read, TransactionEnd
from xenmesh.xenstore.packets import Op, Packet, Parser, encode
from xenmesh.xenstore.server import OCAML, C, ServerConnection, ServerDialect

READ = encode(Packet(Op.READ, 1, 0, b"/a\0"))
OVERSIZE = b"\x02\0\0\0\x07\0\0\0\0\0\0\0\x01\x10\0\0" + b"x" * 4097


@given(st.binary(max_size=300), st.lists(st.integers(0, 300)), st.sampled_from([C, OCAML]))
def test_any_bytes_cut_anywhere_mean_the_same(data: bytes, cuts: list[int], dialect: ServerDialect) -> None:
    def read(pieces: list[bytes]) -> list[tuple[int, int, bytes]]:
        wire, got = ServerConnection(0, dialect), []
        try:
            for piece in pieces:
                got += [(each.op, each.req_id, each.payload) for each in wire.receive_data(piece)]
        except FramingError:
            pass
        return got

    at = sorted({cut for cut in cuts if cut < len(data)})
    pieces = [data[a:b] for a, b in zip([0, *at], [*at, len(data)])]
    assert read(pieces) == read([data])


def test_c_closes_at_an_oversize_packet_after_those_before() -> None:
    wire = ServerConnection(0, C)
    assert [each.message for each in wire.receive_data(READ + OVERSIZE)] == [Read("/a")]
    assert wire.closed
    with pytest.raises(FramingError):
        wire.receive_data(b"")


def test_oxenstored_answers_e2big_and_is_out_of_step() -> None:
    wire = ServerConnection(0, OCAML)
    (request,) = wire.receive_data(OVERSIZE)
    assert isinstance(request.message, PayloadError)
    assert request.message.code == "E2BIG"
    assert request.req_id == 7
    # The byte left over is taken for the start of a header.
    assert all(each.message != Read("/a") for each in wire.receive_data(READ))


def test_oxenstored_holds_an_empty_packet_until_the_next_byte() -> None:
    empty = encode(Packet(Op.GET_FEATURE, 1, 0, b""))
    assert len(ServerConnection(0, C).receive_data(empty)) == 1
    wire = ServerConnection(0, OCAML)
    assert wire.receive_data(empty) == []
    assert len(wire.receive_data(READ)) == 2


def test_loose_readings() -> None:
    junk = encode(Packet(Op.GET_DOMAIN_PATH, 1, 0, b"junk\0"))
    end = encode(Packet(Op.TRANSACTION_END, 1, 1, b"T"))
    assert ServerConnection(0, C).receive_data(junk)[0].message == GetDomainPath(0)
    assert ServerConnection(0, OCAML).receive_data(end)[0].message == TransactionEnd(commit=True)
    assert isinstance(ServerConnection(0, C).receive_data(end)[0].message, PayloadError)


@pytest.mark.parametrize(("dialect", "count"), [(C, 1), (OCAML, 3)])
def test_equal_events_collapse_while_they_wait(dialect: ServerDialect, count: int) -> None:
    wire = ServerConnection(0, dialect)
    for _ in range(3):
        wire.fire("/a", b"t")
    assert len(wire.frames_to_send()) == count
    assert wire.fire("/a", b"t")


def test_an_event_too_long_is_dropped() -> None:
    wire = ServerConnection(0)
    assert not wire.fire("/" + "a" * 4000, b"t" * 200)
    assert wire.data_to_send() == b""
    assert wire.dropped_events == 1


def test_what_went_before_an_oversize_packet_is_still_answered() -> None:
    wire = ServerConnection(0, C)

    (request,) = wire.receive_data(READ + OVERSIZE)

    assert request.message == Read("/a")
    assert wire.closed
    with pytest.raises(FramingError):
        wire.receive_data(READ)


def test_a_live_update_of_oxenstored_forgets_half_a_request() -> None:
    wire = ServerConnection(0, OCAML)
    assert wire.receive_data(READ[:-1]) == []

    wire.forget_partial()

    assert [each.message for each in wire.receive_data(READ)] == [Read("/a")]


def test_an_operation_that_the_dialect_does_not_know() -> None:
    unknown = next(iter(OCAML.unknown))

    (request,) = ServerConnection(0, OCAML).receive_data(encode(Packet(unknown, 1, 0, b"/a\0")))

    assert isinstance(request.message, PayloadError)
    assert request.message.code == "ENOSYS"


def test_a_packet_waits_to_be_sent() -> None:
    wire = ServerConnection(0, C)
    (request,) = wire.receive_data(READ)

    wire.reply(request, b"value")

    assert wire.queued == 1
    assert wire.data_to_send()
    assert wire.queued == 0


@pytest.mark.parametrize(("dialect", "tx_id"), [(C, 9), (OCAML, 0)])
def test_which_server_echoes_the_tx_id_of_a_watch(dialect: ServerDialect, tx_id: int) -> None:
    wire = ServerConnection(0, dialect)
    (request,) = wire.receive_data(encode(Packet(Op.WATCH, 1, 9, b"/a\0t\0")))

    wire.reply(request, b"OK\0")

    assert Parser().feed(wire.data_to_send()) == [Packet(Op.WATCH, 1, tx_id, b"OK\0")]
