from hypothesis import given
from hypothesis import strategies as st

from xenmesh.sim.xenstored.faults import Faults
from xenmesh.xenstore.packets import Op, Packet, Parser, encode

FRAMES = st.lists(
    st.builds(
        lambda op, number: encode(Packet(op, number, 0, b"x" * number)),
        st.sampled_from([Op.READ, Op.WRITE, Op.WATCH_EVENT]),
        st.integers(0, 50),
    ),
    max_size=12,
)


def events(frames: list[bytes]) -> list[tuple[int, bytes]]:
    return [(at, frame) for at, frame in enumerate(frames) if frame[0] == Op.WATCH_EVENT]


@given(FRAMES)
def test_nothing_is_done_unless_asked_for(frames: list[bytes]) -> None:
    assert not Faults().any
    assert Faults().shape(frames) == ([b"".join(frames)], False)


@given(FRAMES)
def test_split_sends_each_byte_by_itself(frames: list[bytes]) -> None:
    pieces, cut = Faults(split=True).shape(frames)
    assert b"".join(pieces) == b"".join(frames)
    assert all(len(piece) == 1 for piece in pieces)
    assert not cut


@given(FRAMES, st.integers(0, 5))
def test_reorder_keeps_each_frame_and_each_events_place(frames: list[bytes], seed: int) -> None:
    data = b"".join(Faults(reorder=True, seed=seed).shape(frames)[0])
    parser = Parser()
    got = [encode(packet) for packet in parser.feed(data)]
    assert sorted(got) == sorted(frames)
    assert events(got) == events(frames)
    assert data == b"".join(Faults(reorder=True, seed=seed).shape(frames)[0])


@given(FRAMES, st.integers(0, 400))
def test_a_cut_comes_after_so_many_bytes_over_all_flushes(frames: list[bytes], after: int) -> None:
    faults, sent, cut = Faults(cut_after=after), b"", False
    for frame in frames:
        pieces, cut = faults.shape([frame])
        sent += b"".join(pieces)
        if cut:
            break
    data = b"".join(frames)
    if not frames or len(data) < after:
        assert not cut
        assert sent == data
    else:
        assert cut
        assert sent == data[:after]
        assert faults.cut_after is None


def test_so_many_replies_are_too_long_and_events_never() -> None:
    faults = Faults(oversize=1)
    event, reply = encode(Packet(Op.WATCH_EVENT, 0, 0, b"/a\0t\0")), encode(Packet(Op.READ, 1, 0, b"v"))
    (data,), _ = faults.shape([event, reply, reply])
    assert data.startswith(event)
    assert data.endswith(reply)
    assert len(data) == len(event) + 16 + 4097 + len(reply)
    assert not faults.any
