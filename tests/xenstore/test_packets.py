from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xenmesh.xenstore.errors import FramingError, TooLongError
from xenmesh.xenstore.packets import HEADER_SIZE, PAYLOAD_MAX, Op, Packet, Parser, encode

uint32 = st.integers(0, 0xFFFFFFFF)
packets = st.builds(
    Packet,
    uint32.filter(lambda op: op != Op.INVALID),
    uint32,
    uint32,
    st.one_of(st.binary(max_size=40), st.integers(0, PAYLOAD_MAX).map(lambda length: b"x" * length)),
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at the places named, wherever they fall."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in zip(places, places[1:])]


def fed(parser: Parser, chunks: list[bytes]) -> tuple[list[Packet], bool]:
    """All packets that come out, and whether the stream broke."""
    out: list[Packet] = []
    for chunk in chunks:
        try:
            out += parser.feed(chunk)
        except FramingError as error:
            return out + error.intact, True
    return out, False


def test_the_header_is_four_little_endian_words() -> None:
    assert encode(Packet(Op.READ, 7, 9, b"/a\0")) == bytes.fromhex("02000000 07000000 09000000 03000000") + b"/a\0"


@given(st.lists(packets, max_size=8), st.lists(st.integers(0), max_size=20))
def test_packets_come_out_as_they_went_in_however_cut(sent: list[Packet], cuts: list[int]) -> None:
    parser = Parser()

    assert fed(parser, pieces(b"".join(map(encode, sent)), cuts)) == (sent, False)
    assert parser.held == 0


@given(st.binary(max_size=200), st.lists(st.integers(0), max_size=20))
@example(b"\xff\xff\0\0" + bytes(12), [3])
def test_arbitrary_bytes_mean_the_same_however_cut(data: bytes, cuts: list[int]) -> None:
    assert fed(Parser(), pieces(data, cuts)) == fed(Parser(), [data])


def test_a_packet_byte_by_byte() -> None:
    parser = Parser()
    data = encode(Packet(Op.WRITE, 1, 0, b"/a\0value"))

    assert [parser.feed(data[i : i + 1]) for i in range(len(data) - 1)] == [[]] * (len(data) - 1)
    assert parser.held == len(data) - 1
    assert parser.feed(data[-1:]) == [Packet(Op.WRITE, 1, 0, b"/a\0value")]


def test_an_unknown_type_is_a_packet_all_the_same() -> None:
    assert Parser().feed(encode(Packet(128, 1, 0, b""))) == [Packet(128, 1, 0, b"")]


@pytest.mark.parametrize(
    "header",
    [
        Op.INVALID.to_bytes(4, "little") + bytes(12),
        bytes(12) + (PAYLOAD_MAX + 1).to_bytes(4, "little"),
    ],
    ids=["type 65535", "payload of 4097"],
)
def test_a_violation_ends_the_stream_but_not_what_came_before(header: bytes) -> None:
    parser = Parser()
    good = Packet(Op.READ, 1, 0, b"x")

    with pytest.raises(FramingError) as caught:
        parser.feed(encode(good) + header)
    assert caught.value.intact == [good]

    with pytest.raises(FramingError):
        parser.feed(encode(good))


def test_an_oversize_packet_is_refused_at_its_header() -> None:
    with pytest.raises(FramingError):
        Parser().feed(bytes(12) + b"\xff\xff\xff\x7f")


def test_a_long_directory_may_be_allowed() -> None:
    # oxenstored 4.17 answers DIRECTORY with 5600 bytes and more
    def frame(op: Op, length: int) -> bytes:
        return bytes([op]) + bytes(11) + length.to_bytes(4, "little") + b"x" * length

    parser = Parser(max_directory=6000)

    assert [len(packet.payload) for packet in parser.feed(frame(Op.DIRECTORY, 5600))] == [5600]
    with pytest.raises(FramingError):
        Parser(max_directory=6000).feed(frame(Op.DIRECTORY, 6001))
    with pytest.raises(FramingError):
        parser.feed(frame(Op.READ, 5600))


def test_the_limit_may_be_changed_on_the_way() -> None:
    parser = Parser(max_payload=4)
    parser.max_payload = 8

    assert parser.feed(encode(Packet(Op.READ, 1, 0, b"12345678")))


def test_nothing_oversize_is_sent() -> None:
    assert len(encode(Packet(Op.WRITE, 1, 0, b"x" * PAYLOAD_MAX))) == HEADER_SIZE + PAYLOAD_MAX
    with pytest.raises(TooLongError) as caught:
        encode(Packet(Op.WRITE, 1, 0, b"x" * (PAYLOAD_MAX + 1)))
    assert (caught.value.length, caught.value.limit) == (PAYLOAD_MAX + 1, PAYLOAD_MAX)
