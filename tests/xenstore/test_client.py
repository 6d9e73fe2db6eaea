from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenmesh.xenstore.client import (
    DEVICE,
    SOCKET,
    Broken,
    ClientConnection,
    Event,
    Failure,
    Link,
    Reply,
)
from xenmesh.xenstore.errors import (
    DisconnectedError,
    FramingError,
    NotFoundError,
    OutcomeUnknown,
    PathError,
    QuotaError,
    ReplyError,
    TooLongError,
    UsageError,
)
from xenmesh.xenstore.messages import (
    Directory,
    GetDomainPath,
    GetFeature,
    Message,
    Mkdir,
    Read,
    ResetWatches,
    Rm,
    TransactionEnd,
    TransactionStart,
    Unwatch,
    Watch,
    WatchEvent,
    Write,
)
from xenmesh.xenstore.packets import Op, Packet, Parser, encode
from xenmesh.xenstore.server import Incoming, ServerConnection

SMALL = Link(window=4, payload_max=4096, kernel=False)


def sent(connection: ClientConnection) -> list[Packet]:
    return Parser().feed(connection.data_to_send())


def answer(connection: ClientConnection, *packets: Packet) -> list[Event]:
    return connection.receive_data(b"".join(map(encode, packets)))


def event(path: str, token: bytes, req_id: int = 0, tx_id: int = 0) -> Packet:
    return Packet(Op.WATCH_EVENT, req_id, tx_id, WatchEvent(path, token).payload())


def ok(op: Op, req_id: int) -> Packet:
    return Packet(op, req_id, 0, b"OK\0")


def error(req_id: int, code: bytes) -> Packet:
    return Packet(Op.ERROR, req_id, 0, code + b"\0")


def watched(connection: ClientConnection, path: str = "/a", token: bytes = b"t") -> None:
    req_id = connection.request(Watch(path, token))
    connection.data_to_send()
    answer(connection, ok(Op.WATCH, req_id))


# -- answers


def test_a_request_and_its_answer() -> None:
    connection = ClientConnection()
    req_id = connection.request(Read("/a"))

    assert sent(connection) == [Packet(Op.READ, req_id, 0, b"/a\0")]
    assert connection.data_to_send() == b""
    assert answer(connection, Packet(Op.READ, req_id, 0, b"v")) == [Reply(req_id, Read("/a"), b"v")]
    assert connection.pending == 0


def test_the_tx_id_is_sent_and_not_trusted_in_answers() -> None:
    # oxenstored answers some requests with tx_id 0, where C echoes it
    connection = ClientConnection()
    req_id = connection.request(Read("/a"), tx_id=9)

    assert sent(connection)[0].tx_id == 9
    assert isinstance(answer(connection, Packet(Op.READ, req_id, 0, b"v"))[0], Reply)


def test_answers_in_any_order() -> None:
    connection = ClientConnection()
    first, second = connection.request(Read("/a")), connection.request(Read("/b"))
    connection.data_to_send()

    events = answer(connection, Packet(Op.READ, second, 0, b"2"), Packet(Op.READ, first, 0, b"1"))

    assert events == [Reply(second, Read("/b"), b"2"), Reply(first, Read("/a"), b"1")]


def test_a_refusal() -> None:
    connection = ClientConnection()
    req_id = connection.request(Read("/a"))
    connection.data_to_send()

    (failure,) = answer(connection, error(req_id, b"ENOENT"))

    assert isinstance(failure, Failure)
    assert isinstance(failure.error, NotFoundError)
    assert str(failure.error) == "xenstored answered ENOENT to READ /a"


def test_a_code_that_the_protocol_does_not_list() -> None:
    connection = ClientConnection()
    req_id = connection.request(Mkdir("/a"))
    connection.data_to_send()

    (failure,) = answer(connection, error(req_id, b"EQUOTA"))

    assert isinstance(failure, Failure)
    assert isinstance(failure.error, QuotaError)
    assert failure.error.code == "EQUOTA"


def test_req_ids_are_never_zero_nor_in_use_twice() -> None:
    connection = ClientConnection()
    connection._last_id = 0xFFFFFFFE
    assert [connection.request(Read("/a")) for _ in range(3)] == [0xFFFFFFFF, 1, 2]

    connection._last_id = 0xFFFFFFFE
    assert connection.request(Read("/a")) == 3


# -- violations


@pytest.mark.parametrize(
    "bytes_",
    [
        encode(Packet(Op.READ, 77, 0, b"v")),
        encode(Packet(Op.ERROR, 0, 0, b"EIO\0")),
        encode(Packet(Op.WRITE, 1, 0, b"OK\0")),
        encode(Packet(Op.WATCH, 0, 0, b"OK\0")),
        b"\xff\xff\0\0" + bytes(12),
        bytes(12) + b"\x01\x10\0\0",
    ],
    ids=[
        "nothing asked",
        "error to nothing",
        "another type",
        "old kernel's, but on a socket",
        "type 65535",
        "4097 bytes",
    ],
)
def test_a_stream_out_of_step_is_given_up(bytes_: bytes) -> None:
    connection = ClientConnection()
    req_id = connection.request(Read("/a"))
    connection.data_to_send()

    (broken,) = connection.receive_data(bytes_)

    assert isinstance(broken, Broken)
    assert isinstance(broken.error, FramingError)
    assert connection.receive_data(encode(Packet(Op.READ, req_id, 0, b"v"))) == []
    with pytest.raises(DisconnectedError):
        connection.request(Read("/a"))
    (failure,) = connection.connection_lost()
    assert (failure.req_id, type(failure.error)) == (req_id, OutcomeUnknown)


def test_what_came_before_the_violation_counts() -> None:
    connection = ClientConnection()
    req_id = connection.request(Read("/a"))
    connection.data_to_send()

    events = connection.receive_data(encode(Packet(Op.READ, req_id, 0, b"v")) + b"\xff\xff\0\0" + bytes(12))

    assert [type(e) for e in events] == [Reply, Broken]


def test_two_violations_are_told_once() -> None:
    connection = ClientConnection()

    events = connection.receive_data(encode(Packet(Op.READ, 5, 0, b"v")) + b"\xff\xff\0\0" + bytes(12))

    assert [type(e) for e in events] == [Broken]


def test_an_event_that_cannot_be_read() -> None:
    connection = ClientConnection()

    (broken,) = answer(connection, Packet(Op.WATCH_EVENT, 0, 0, b"/a"))

    assert isinstance(broken, Broken)
    assert isinstance(broken.error, ReplyError)


def test_the_long_directory_of_oxenstored_4_17_is_taken() -> None:
    connection = ClientConnection()
    req_id = connection.request(Directory("/a"))
    connection.data_to_send()
    payload = b"name\0" * 1120
    header = encode(Packet(Op.DIRECTORY, req_id, 0, b""))[:12] + len(payload).to_bytes(4, "little")

    (reply,) = connection.receive_data(header + payload)

    assert isinstance(reply, Reply)
    assert len(reply.payload) == 5600


@given(st.binary(max_size=120), st.integers(0, 120))
def test_arbitrary_bytes_never_raise(data: bytes, cut: int) -> None:
    connection = ClientConnection()
    connection.request(Read("/a"))
    connection.request(Watch("/a", b"t"))
    connection.data_to_send()

    events = connection.receive_data(data[:cut]) + connection.receive_data(data[cut:])
    lost = connection.connection_lost()

    answered = [e for e in events if isinstance(e, (Reply, Failure))]
    assert sorted(e.req_id for e in [*answered, *lost]) == [1, 2]


# -- what is not sent


@pytest.mark.parametrize(
    ("link", "length", "fits"), [(SOCKET, 4096, True), (SOCKET, 4097, False), (DEVICE, 4080, True), (DEVICE, 4081, False)]
)
def test_lengths_are_checked_before_sending(link: Link, length: int, fits: bool) -> None:
    connection = ClientConnection(link)
    write = Write("/a", b"x" * (length - 3))
    if fits:
        connection.request(write)
    else:
        with pytest.raises(TooLongError):
            connection.request(write)
        assert connection.pending == 0


def test_what_only_one_server_takes() -> None:
    loose, strict = ClientConnection(), ClientConnection(portable=True)
    for message in (Write("/a", b"x" * 2049), Read("/" + "a" * 1024)):
        loose.request(message)
        with pytest.raises(TooLongError):
            strict.request(message)
    strict.request(Write("/a", b"x" * 2048))
    strict.request(Read("/" + "a" * 1023))
    strict.request(GetDomainPath(0))


@pytest.mark.parametrize(
    ("link", "message", "tx_id"),
    [
        (SOCKET, Read("/a b"), 0),
        (SOCKET, TransactionStart(), 5),
        (SOCKET, ResetWatches(), 5),
        (DEVICE, ResetWatches(), 0),
        (DEVICE, Watch("/a", b"t", 1), 0),
        (SOCKET, Rm("/"), 0),
    ],
    ids=["bad path", "nested", "XSA-484", "the kernel's own watches", "depth on the device", "RM / wipes oxenstored"],
)
def test_what_must_not_be_asked(link: Link, message: Message, tx_id: int) -> None:
    connection = ClientConnection(link)
    with pytest.raises(UsageError):
        connection.request(message, tx_id)
    assert connection.data_to_send() == b""


def test_the_same_watch_twice() -> None:
    connection = ClientConnection()
    watched(connection)
    with pytest.raises(UsageError):
        connection.request(Watch("/a", b"t"))


def test_an_illegal_path_is_told_as_such() -> None:
    with pytest.raises(PathError):
        ClientConnection().request(Read(""))


# -- the window


def test_no_more_than_the_window_is_under_way() -> None:
    connection = ClientConnection(SMALL)
    for _ in range(10):
        connection.request(Read("/a"))

    assert [packet.req_id for packet in sent(connection)] == [1, 2, 3, 4]
    assert connection.waiting == 6
    assert sent(connection) == []

    answer(connection, Packet(Op.READ, 2, 0, b""), Packet(Op.READ, 1, 0, b""))
    assert [packet.req_id for packet in sent(connection)] == [5, 6]


def test_the_windows_of_the_links() -> None:
    assert DEVICE.window == 1
    assert 64 <= SOCKET.window <= 256
    with pytest.raises(UsageError):
        ClientConnection(Link(window=1, payload_max=4096, kernel=False))


@pytest.mark.parametrize("link", [SOCKET, SMALL])
def test_an_empty_payload_is_never_the_last_thing_sent(link: Link) -> None:
    # oxenstored looks at a bare header only when more bytes come
    connection = ClientConnection(link)
    req_id = connection.request(GetFeature())

    packets = sent(connection)
    assert [bool(packet.payload) for packet in packets] == [False, True]

    push = packets[1]
    events = answer(
        connection,
        Packet(Op.GET_FEATURE, req_id, 0, b"6\0"),
        Packet(push.op, push.req_id, 0, b"/local/domain/0\0"),
    )
    assert events == [Reply(req_id, GetFeature(), b"6\0")]
    assert connection.pending == 0


def test_the_pushing_request_is_nobodys_when_the_connection_goes() -> None:
    connection = ClientConnection()
    req_id = connection.request(GetFeature())

    assert [failure.req_id for failure in connection.connection_lost()] == [req_id]


# -- watches


def test_the_initial_event_may_overtake_the_ok() -> None:
    connection = ClientConnection()
    req_id = connection.request(Watch("/a", b"t"))
    connection.data_to_send()

    events = answer(connection, event("/a", b"t"), ok(Op.WATCH, req_id))

    assert events == [WatchEvent("/a", b"t"), Reply(req_id, Watch("/a", b"t"), b"OK\0")]


def test_events_may_come_before_or_after_the_answer_of_the_write() -> None:
    for c_order in (True, False):
        connection = ClientConnection()
        watched(connection)
        req_id = connection.request(Write("/a", b""))
        connection.data_to_send()
        packets = [event("/a", b"t"), ok(Op.WRITE, req_id)]

        events = answer(connection, *(packets if c_order else packets[::-1]))

        assert {type(e) for e in events} == {WatchEvent, Reply}


def test_the_header_of_an_event_is_not_looked_at() -> None:
    connection = ClientConnection(DEVICE)
    watched(connection)
    req_id = connection.request(Read("/a"))

    events = answer(connection, event("/a", b"t", req_id=req_id, tx_id=0xDEADBEEF))

    assert events == [WatchEvent("/a", b"t")]
    assert connection.pending == 1


def test_late_events_of_a_dropped_watch_are_dropped() -> None:
    connection = ClientConnection()
    watched(connection)
    req_id = connection.request(Unwatch("/a", b"t"))
    connection.data_to_send()

    events = answer(connection, event("/a", b"t"), ok(Op.UNWATCH, req_id), event("/a/b", b"t"))

    assert events == [Reply(req_id, Unwatch("/a", b"t"), b"OK\0")]
    assert connection.stray_events == 2


def test_events_of_unknown_tokens_are_dropped() -> None:
    connection = ClientConnection()

    assert answer(connection, event("/a", b"forged")) == []
    assert connection.stray_events == 1


def test_a_refused_watch_is_no_watch() -> None:
    connection = ClientConnection()
    req_id = connection.request(Watch("/a", b"t", 1))
    connection.data_to_send()
    answer(connection, error(req_id, b"EINVAL"))

    assert answer(connection, event("/a", b"t")) == []
    connection.request(Watch("/a", b"t"))


def test_a_token_of_two_watches_lives_as_long_as_either() -> None:
    connection = ClientConnection()
    watched(connection, "/a")
    watched(connection, "/b")
    connection.request(Unwatch("/a", b"t"))

    assert answer(connection, event("/b", b"t")) == [WatchEvent("/b", b"t")]


def test_an_unwatch_of_nothing_is_left_to_the_server() -> None:
    connection = ClientConnection()
    connection.request(Unwatch("/a", b"t"))

    assert [packet.op for packet in sent(connection)] == [Op.UNWATCH]


def test_reset_watches() -> None:
    connection = ClientConnection()
    watched(connection)
    connection.request(ResetWatches())

    assert answer(connection, event("/a", b"t")) == []


# -- the device


def test_the_device_gets_one_message_a_write() -> None:
    connection = ClientConnection(DEVICE)
    for path in ("/a", "/b"):
        connection.request(Read(path))

    first = connection.next_frame()
    assert first is not None
    assert Parser().feed(first[1]) == [Packet(Op.READ, 1, 0, b"/a\0")]


def test_the_device_gets_a_request_only_after_the_answer_to_the_one_before() -> None:
    # the kernel has one buffer for the payloads of all that is under way
    connection = ClientConnection(DEVICE)
    for path in ("/a", "/b"):
        connection.request(Read(path))
    connection.next_frame()

    assert connection.next_frame() is None
    assert connection.waiting == 1

    answer(connection, Packet(Op.READ, 1, 0, b""))
    second = connection.next_frame()
    assert second is not None
    assert second[0] == 2


def test_the_device_takes_no_request_without_a_payload() -> None:
    with pytest.raises(UsageError, match="payload"):
        ClientConnection(DEVICE).request(GetFeature())


def test_a_watch_refused_by_errno_of_write() -> None:
    connection = ClientConnection(DEVICE)
    req_id = connection.request(Watch("/a", b"t"))
    connection.next_frame()

    (failure,) = connection.refused(req_id, "EACCES")

    assert isinstance(failure, Failure)
    assert getattr(failure.error, "code", "") == "EACCES"
    assert connection.pending == 0
    assert answer(connection, event("/a", b"t")) == []


def test_old_kernels_answer_watches_without_req_id() -> None:
    connection = ClientConnection(DEVICE)
    read = connection.request(Read("/a"))
    first = connection.request(Watch("/a", b"1"))
    second = connection.request(Watch("/b", b"2"))
    gone = connection.request(Unwatch("/a", b"1"))

    events = answer(
        connection,
        ok(Op.WATCH, 0),
        ok(Op.UNWATCH, 0),
        ok(Op.WATCH, 0),
        Packet(Op.READ, read, 0, b""),
    )

    assert [e.req_id for e in events if isinstance(e, Reply)] == [first, gone, second, read]


def test_even_from_old_kernels_other_answers_need_their_req_id() -> None:
    connection = ClientConnection(DEVICE)
    connection.request(Read("/a"))

    assert [type(e) for e in answer(connection, Packet(Op.READ, 0, 0, b""))] == [Broken]


def test_an_old_kernels_answer_to_no_watch() -> None:
    connection = ClientConnection(DEVICE)
    connection.request(Read("/a"))

    assert [type(e) for e in answer(connection, ok(Op.WATCH, 0))] == [Broken]


# -- the end


@pytest.mark.parametrize(
    ("message", "tx_id", "safe"),
    [
        (Read("/a"), 0, True),
        (Read("/a"), 3, False),
        (Write("/a", b""), 0, True),
        (Write("/a", b""), 3, False),
        (Rm("/a"), 0, True),
        (TransactionStart(), 0, False),
        (TransactionEnd(commit=True), 3, False),
    ],
    ids=str,
)
def test_what_may_be_repeated_when_the_outcome_is_unknown(message: Message, tx_id: int, safe: bool) -> None:
    connection = ClientConnection()
    req_id = connection.request(message, tx_id)
    connection.data_to_send()

    (failure,) = connection.connection_lost()

    assert failure.req_id == req_id
    assert isinstance(failure.error, OutcomeUnknown)
    assert failure.error.sent
    assert failure.error.safe_to_repeat is safe
    assert connection.connection_lost() == []


def test_what_was_never_sent_may_always_be_repeated() -> None:
    connection = ClientConnection(SMALL)
    for _ in range(6):
        connection.request(TransactionEnd(commit=True), 3)
    connection.data_to_send()

    errors = [failure.error for failure in connection.connection_lost()]

    assert [e.sent for e in errors if isinstance(e, OutcomeUnknown)] == [True] * 4 + [False] * 2
    assert [e.safe_to_repeat for e in errors if isinstance(e, OutcomeUnknown)] == [False] * 4 + [True] * 2


def test_the_end_is_the_end() -> None:
    connection = ClientConnection()
    watched(connection)
    connection.connection_lost()

    assert connection.receive_data(encode(event("/a", b"t"))) == []
    assert connection.data_to_send() == b""
    assert connection.next_frame() is None
    with pytest.raises(DisconnectedError):
        connection.request(Read("/a"))


# -- against the other side


@settings(max_examples=50)
@given(st.data())
def test_each_request_has_one_outcome_whatever_the_order_and_the_cuts(data: st.DataObject) -> None:
    """A server of ours answers at random; bytes travel in pieces; in the end the connection goes."""
    client, server = ClientConnection(SMALL), ServerConnection(domid=0)
    asked = [client.request(Read(f"/{number}")) for number in range(data.draw(st.integers(0, 8)))]
    asked.append(client.request(Watch("/w", b"t")))
    outcomes: list[int] = []
    events = 0
    waiting: list[Incoming] = []
    wire = b""
    for _ in range(data.draw(st.integers(0, 15))):
        wire += client.data_to_send()
        cut = data.draw(st.integers(0, len(wire)))
        waiting += server.receive_data(wire[:cut])
        wire = wire[cut:]
        assert len(waiting) <= SMALL.window
        if waiting:
            request = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
            if data.draw(st.booleans()):
                server.reply(request, b"value")
            else:
                server.fail(request, "ENOENT")
        events += server.fire("/w", b"t")
        for event in client.receive_data(server.data_to_send()):
            assert not isinstance(event, Broken)
            if isinstance(event, WatchEvent):
                events -= 1
            else:
                outcomes.append(event.req_id)

    outcomes += [failure.req_id for failure in client.connection_lost()]
    assert sorted(outcomes) == asked
    assert events == client.stray_events
