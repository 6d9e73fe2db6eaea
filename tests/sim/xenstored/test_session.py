import pytest

from xenmesh.sim.xenstored.errors import Refused
from xenmesh.sim.xenstored.session import Session
from xenmesh.sim.xenstored.store import Store


def test_requests() -> None:
    session = Session(Store())
    session.write("/a/b", 1)
    session.write_all("/a", {"c": "x", "d": 2})
    session.mkdir("/a/e")
    assert session.read("/a/b") == b"1"
    assert session.children("/a") == ["b", "c", "d", "e"]
    session.rm("/a/b")
    session.rm("/a/b")
    assert not session.exists("/a/b")
    with pytest.raises(Refused, match="EINVAL"):
        session.rm("/")


def test_a_domains_session_has_a_domains_rights() -> None:
    store = Store()
    dom0, guest = Session(store), Session(store, 7)
    dom0.introduce(7)
    dom0.write("/local/domain/7/name", "g")
    dom0.set_perms("/local/domain/7/name", "n0", "r7")
    assert guest.read("name") == b"g"
    with pytest.raises(Refused, match="EACCES"):
        guest.write("name", "h")
    dom0.release(7)
    with pytest.raises(Refused):
        dom0.release(7)


def test_a_conflict_is_tried_again_and_a_failure_ends_the_transaction() -> None:
    store = Store()
    session, rival = Session(store), Session(store)
    tries = []

    def body() -> None:
        tries.append(session.exists("/a"))
        if len(tries) < 3:
            rival.write("/a", len(tries))
        session.write("/b", len(tries))

    session.atomically(body)
    assert tries == [False, True, True]
    assert session.read("/b") == b"3"

    def broken() -> None:
        session.write("/c")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        session.atomically(broken)
    assert not session.exists("/c")
    assert not session._client.transactions


def test_a_conflict_that_never_ends_is_told() -> None:
    store = Store()
    store.eagain_every = 1
    with pytest.raises(Refused, match="EAGAIN"):
        Session(store).atomically(lambda: None)


def test_events_come_once_and_not_after_the_end() -> None:
    store = Store()
    watcher, writer = Session(store), Session(store)
    watcher.watch("/a", "t")
    writer.write("/a/b")
    assert [(event.path, event.token) for event in watcher.events()] == [("/a", b"t"), ("/a/b", b"t")]
    assert watcher.events() == []
    watcher.close()
    writer.write("/a/b")
    assert watcher.events() == []
    assert len(store.clients) == 1
