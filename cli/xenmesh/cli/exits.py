"""Exit codes: stable, documented in every ``--help``, one meaning each."""

from __future__ import annotations

import enum

__all__ = ["TABLE", "Exit"]


class Exit(enum.IntEnum):
    """What the shell learns. A code never changes its meaning and is never taken away."""

    OK = 0
    """Done, and whole."""

    FAILED = 1
    """It was tried and did not succeed, or doctor found something wrong."""

    USAGE = 2
    """The command line is not valid; nothing was tried."""

    NOT_FOUND = 3
    """There is no such domain, path, service or file."""

    CUT = 4
    """The stream was cut or had a gap: what was printed is true but not whole."""

    NO_BUS = 5
    """The bus or the service cannot be reached."""

    TIMEOUT = 6
    """The time given with --timeout ran out."""

    NOT_ALLOWED = 7
    """The bus does not let this user do that."""

    INTERRUPTED = 130
    """Ctrl-C before it was done; a command that runs until Ctrl-C gives 0 or 4 instead."""

    PIPE = 141
    """The reader of the output has gone."""


TABLE: dict[Exit, str] = {
    Exit.OK: "done, and whole",
    Exit.FAILED: "tried without success; doctor: something is wrong",
    Exit.USAGE: "the command line is not valid",
    Exit.NOT_FOUND: "no such domain, path, service or file",
    Exit.CUT: "the stream was cut or had a gap: what was printed is true but not whole",
    Exit.NO_BUS: "the bus or the service cannot be reached",
    Exit.TIMEOUT: "the time given with --timeout ran out",
    Exit.NOT_ALLOWED: "the bus does not let this user do that",
    Exit.INTERRUPTED: "Ctrl-C before it was done (0 or 4 for commands that run until Ctrl-C)",
    Exit.PIPE: "the reader of the output has gone",
}
"""For --help and the man page."""
