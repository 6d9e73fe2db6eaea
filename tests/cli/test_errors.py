import pytest

from xenmesh.bus import errors as bus
from xenmesh.cli import errors
from xenmesh.cli.exits import Exit


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (bus.Refused.of("not-found", what="node", name="/x"), Exit.NOT_FOUND),
        (bus.Refused.of("bad-path", path="x", why="y"), Exit.USAGE),
        (bus.Refused.of("no-history", why="y"), Exit.FAILED),
        (bus.Forbidden(user="view", what="publish", subject="q"), Exit.NOT_ALLOWED),
        (bus.NoResponders(subject="q"), Exit.NO_BUS),
        (bus.ConnectFailed(url="u", user="o", seconds=1, why="w"), Exit.NO_BUS),
        (bus.Timeout(subject="q", seconds=1), Exit.TIMEOUT),
        (bus.KeyFileError(file="f", why="w"), Exit.NOT_ALLOWED),
        (bus.TooLarge(subject="q", size=2, limit=1), Exit.FAILED),
    ],
)
def test_errors_of_the_bus_have_a_code(error: bus.BusError, code: Exit) -> None:
    assert errors.exit_of(error)[0] is code


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.CommandError, 1),
        (errors.UsageError, 2),
        (errors.NotFound, 3),
        (errors.NoMesh, 5),
        (errors.TimedOut, 6),
        (errors.NotAllowed, 7),
    ],
)
def test_errors_of_commands_have_a_code(kind: type[errors.CommandError], code: int) -> None:
    error = kind("sentence", "hint")

    assert (error.exit, error.sentence, error.hint) == (code, "sentence", "hint")
