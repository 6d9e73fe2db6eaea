import pytest

from xenmesh.sim.errors import FaultError, PathTooLong, SimError, SocketError, SocketInUse, SocketRefused


@pytest.mark.parametrize(
    ("error", "code", "fact"),
    [
        (PathTooLong("/x", 120, 107), "path_too_long", ("length", 120)),
        (SocketInUse("/x"), "socket_in_use", ("path", "/x")),
        (SocketRefused("/x", "no room"), "socket_refused", ("why", "no room")),
        (FaultError("no such command", command="nope"), "fault", ("command", "nope")),
    ],
)
def test_an_error_has_code_sentence_and_facts(error: SimError, code: str, fact: tuple[str, object]) -> None:
    assert error.code == code
    assert error.sentence == str(error)
    assert error.facts[fact[0]] == fact[1]


def test_who_cannot_have_the_socket_can_be_caught_at_once() -> None:
    assert issubclass(PathTooLong, SocketError)
    assert issubclass(SocketInUse, SocketError)
    assert not issubclass(FaultError, SocketError)
