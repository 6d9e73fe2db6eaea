import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenmesh.sim.xenstored.dialect import DIALECTS
from xenmesh.sim.xenstored.errors import Refused
from xenmesh.sim.xenstored.session import Session
from xenmesh.sim.xenstored.store import Client, Store
from xenmesh.xenstore import messages as m
from xenmesh.xenstore.errors import FramingError
from xenmesh.xenstore.packets import PAYLOAD_MAX, Op, Packet, Parser, encode

KINDS = pytest.mark.parametrize("kind", list(DIALECTS))
REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 30),
        st.integers(0, 2),
        st.lists(st.sampled_from([b"/", b"/a", b"data", b"@x", b"7", b"T", b"n7", b"", b"\xff", b"sim"]), max_size=4),
        st.booleans(),
    ),
    max_size=25,
)


@KINDS
@given(requests=REQUESTS, domid=st.sampled_from([0, 7]))
def test_every_request_gets_one_answer(kind: str, requests: list[tuple[int, int, list[bytes], bool]], domid: int) -> None:
    store = Store(DIALECTS[kind])
    client = store.connect(domid)
    for number, (op, tx_id, fields, ends) in enumerate(requests, 1):
        payload = b"\0".join(fields) + (b"\0" if ends else b"")
        # The byte after makes oxenstored see a packet without payload.
        data = encode(Packet(op, number, tx_id, payload)) + encode(Packet(Op.READ, 0, 0, b"/\0"))
        try:
            for incoming in client.wire.receive_data(data):
                store.handle(client, incoming)
        except FramingError:
            return
        parser = Parser(1 << 20)
        answers = [packet.req_id for packet in parser.feed(client.wire.data_to_send()) if packet.op != Op.WATCH_EVENT]
        assert answers == [number, 0]


@KINDS
@given(names=st.lists(st.text("abc", min_size=1, max_size=300), unique=True, max_size=60))
def test_the_parts_of_a_long_directory_are_all_of_it(kind: str, names: list[str]) -> None:
    store = Store(DIALECTS[kind])
    session = Session(store)
    client = session._client
    session.mkdir("/d")
    for name in names:
        session.mkdir(f"/d/{name}")
    got = b""
    while not got.endswith(b"\0\0") and got != b"\0":
        part = store.do(client, m.DirectoryPart("/d", len(got)))
        assert len(part) <= PAYLOAD_MAX
        got += part[part.index(b"\0") + 1 :]
    assert got.rstrip(b"\0").split(b"\0") == [name.encode() for name in session_order(kind, names)]


def session_order(kind: str, names: list[str]) -> list[str]:
    found = sorted(names) if DIALECTS[kind].sorted_children else names
    return found or [""]


@pytest.mark.parametrize(("kind", "order"), [("c", [Op.WATCH_EVENT, Op.WRITE]), ("ocaml", [Op.WRITE, Op.WATCH_EVENT])])
def test_an_event_and_the_reply_come_in_the_dialects_order(kind: str, order: list[int]) -> None:
    store = Store(DIALECTS[kind])
    client = store.connect()
    store.do(client, m.Watch("/a", b"t"))
    client.wire.frames_to_send()
    (incoming,) = client.wire.receive_data(encode(Packet(Op.WRITE, 1, 0, b"/a\0v")))
    store.handle(client, incoming)
    assert [frame[0] for frame in client.wire.frames_to_send()] == order


@KINDS
def test_a_dead_domain_leaves_nothing_to_its_domids_next_bearer(kind: str) -> None:
    store = Store(DIALECTS[kind])
    dom0 = Session(store)
    dropped: list[Client] = []
    store.on_drop = dropped.append
    dom0.introduce(7)
    guest = Session(store, 7)
    dom0.write("/local/domain/7/data")
    dom0.set_perms("/local/domain/7/data", "n7")
    dom0.write("/shared")
    dom0.set_perms("/shared", "n0", "r7")
    guest.write("data/secret", "x")
    guest.watch("data", "t")
    store.gone(7)
    assert dropped == [guest._client]
    assert store.tree.owned_by(7) == 0
    assert dom0.exists("/shared")
    assert not dom0.exists("/local/domain/7/data")
    assert (store.tree.of(7) == []) is DIALECTS[kind].forgets_perms
    dom0.introduce(7)
    assert store.domains[7].target is None


def test_releases_are_told_once_for_a_shutdown_and_once_for_the_end() -> None:
    store = Store(DIALECTS["ocaml"])
    watcher = Session(store)
    watcher.watch("@releaseDomain", "r")
    store.introduce(7)
    watcher.events()
    told = []
    for happening in (store.shut_down, store.shut_down, store.gone, store.gone):
        happening(7)
        told.append(len(watcher.events()))
    assert told == [1, 0, 1, 0]


def test_events_above_the_quota_are_dropped_and_counted() -> None:
    store = Store(DIALECTS["ocaml"])
    store.quotas.events = 3
    dom0, guest = Session(store), Session(store, 7)
    dom0.introduce(7)
    dom0.write("/local/domain/7/a")
    dom0.set_perms("/local/domain/7/a", "r7")
    guest.watch("a", "t")
    for _ in range(10):
        dom0.write("/local/domain/7/a", "x")
    assert len(guest.events()) == 3
    assert store.dropped_events == 8


def test_a_stub_domain_may_do_what_its_target_may() -> None:
    store = Store()
    dom0, stub = Session(store), Session(store, 8)
    dom0.introduce(7)
    dom0.introduce(8)
    dom0.write("/local/domain/7/x", "v")
    dom0.set_perms("/local/domain/7/x", "n7")
    with pytest.raises(Refused, match="EACCES"):
        stub.read("/local/domain/7/x")
    store.do(dom0._client, m.SetTarget(8, 7))
    assert stub.read("/local/domain/7/x") == b"v"


def test_features_and_quotas_by_request() -> None:
    store = Store(DIALECTS["c-4.23"])
    client = store.connect()
    store.introduce(7)
    for request, answer in (
        (m.GetFeature(), b"14\0"),
        (m.SetFeature(7, 4), b"OK\0"),
        (m.GetFeature(7), b"4\0"),
        (m.SetQuota("nodes", 5, 7), b"OK\0"),
        (m.GetQuota("nodes", 7), b"5\0"),
        (m.SetQuota("nodes", 9), b"OK\0"),
        (m.GetQuota("nodes"), b"9\0"),
        (m.GetQuota("nodes", 7), b"5\0"),
    ):
        assert store.do(client, request) == answer
    assert b"nodes" in store.do(client, m.GetQuota())
    for request, code in (
        (m.GetFeature(8), "ENOENT"),
        (m.SetFeature(8, 0), "ENOENT"),
        (m.SetFeature(7, 1), "EINVAL"),
        (m.GetQuota("nope"), "EINVAL"),
        (m.SetQuota("nope", 1), "EINVAL"),
        (m.SetQuota("nodes", 1, 8), "ENOENT"),
        (m.GetQuota("nodes", 8), "ENOENT"),
    ):
        with pytest.raises(Refused, match=code):
            store.do(client, request)


def test_what_the_hypervisor_does_not_have_gets_no_rights() -> None:
    store = Store(exists=lambda domid: domid == 9)
    session = Session(store)
    session.write("/a")
    session.set_perms("/a", "n0", "r9")
    with pytest.raises(Refused, match="ENOENT"):
        session.set_perms("/a", "n0", "r10")
