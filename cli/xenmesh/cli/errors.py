"""What a command may end with besides success; each tells its exit code and what to do next.

    CommandError         1  tried without success
    ├── UsageError       2  theirs: the command line
    ├── NotFound         3  theirs: no such domain, path, service or file
    ├── NoMesh           5  the world's: nothing to connect to
    ├── TimedOut         6  the world's: not within --timeout
    └── NotAllowed       7  theirs: this user may not

Errors of the bus are mapped to these codes by `exit_of`.
"""

# ruff: noqa: N818 - the names say what is the case, as anyio's do

from __future__ import annotations

from xenmesh.bus import errors as bus

from .exits import Exit

__all__ = ["CommandError", "NoMesh", "NotAllowed", "NotFound", "TimedOut", "UsageError", "exit_of"]


class CommandError(Exception):
    """A command could not do its work. ``sentence`` says why; ``hint``, if any, is what to do: a command to copy where there is one."""

    exit: Exit = Exit.FAILED
    code: str = "failed"

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.hint = hint


class UsageError(CommandError):
    """The command line asks for something that cannot be."""

    exit = Exit.USAGE
    code = "usage"


class NotFound(CommandError):
    """There is no such thing now."""

    exit = Exit.NOT_FOUND
    code = "not-found"


class NoMesh(CommandError):
    """There is no bus to be found, or nobody answers on it."""

    exit = Exit.NO_BUS
    code = "no-bus"


class TimedOut(CommandError):
    """It did not come about in the time given."""

    exit = Exit.TIMEOUT
    code = "timeout"


class NotAllowed(CommandError):
    """The bus user that was used has no right to it."""

    exit = Exit.NOT_ALLOWED
    code = "not-allowed"


_REFUSALS = {
    "not-found": Exit.NOT_FOUND,
    "not-allowed": Exit.NOT_ALLOWED,
    "bad-path": Exit.USAGE,
    "bad-request": Exit.USAGE,
    "timeout": Exit.TIMEOUT,
    "deadline": Exit.TIMEOUT,
}


def exit_of(error: bus.BusError) -> tuple[Exit, str]:
    """The exit code for an error of the bus, and a hint (or an empty string)."""
    match error:
        case bus.Refused():
            return _REFUSALS.get(error.code, Exit.FAILED), ""
        case bus.Forbidden():
            return Exit.NOT_ALLOWED, "the operator's credentials may: see --creds in `xenmesh help`"
        case bus.NoResponders():
            return Exit.NO_BUS, "see which services run: xenmesh services"
        case bus.BusLost():
            return Exit.NO_BUS, "see what is wrong: xenmesh doctor"
        case bus.Timeout():
            return Exit.TIMEOUT, "see what is wrong: xenmesh doctor"
        case bus.KeyFileError():
            return Exit.NOT_ALLOWED, "see what is wrong: xenmesh doctor"
        case _:
            return Exit.FAILED, ""
