"""A nats-server that outlived whoever started it: found by its command line, told from others by a mark, and ended.

Whoever is killed (kill -9, out of memory) cannot stop the nats-server it started, and that goes on holding the port and the store. Each
is therefore started with a mark in its environment that names its owner; the next start in the same directory ends one whose owner is gone. One
without a mark (systemd's), and one whose owner lives, is left alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import anyio

__all__ = ["MARK", "Running", "end", "find", "mark"]

MARK = "XENMESH_STARTED_BY"
"""The variable in the environment of a nats-server of ours."""

_PATIENCE = 5.0


class Running(NamedTuple):
    """A nats-server that runs."""

    pid: int
    owner: int | None
    """The process that started it; None: it bears no mark that can be read."""

    orphan: bool
    """Its owner is gone."""


def mark() -> str:
    """Names this process, and no later one that gets its number."""
    return f"{os.getpid()}/{_begun(os.getpid())}"


def find(config_file: Path) -> list[Running]:
    """Every nats-server that runs with that configuration, whoever started it. Looks through /proc: call it in a thread."""
    return [_running(pid) for pid in _processes() if _runs_with(pid, config_file)]


async def end(running: Running, config_file: Path) -> None:
    """Stop it: asked first, killed after 5 s. Nothing happens where it has ended already."""
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(running.pid)
        try:
            if not _runs_with(running.pid, config_file):  # the number is another's by now
                return
            for order in (signal.SIGTERM, signal.SIGKILL):
                signal.pidfd_send_signal(process, order)
                with anyio.move_on_after(_PATIENCE):
                    await anyio.wait_readable(process)
                    return
        finally:
            os.close(process)


def _processes() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _runs_with(pid: int, config_file: Path) -> bool:
    words = _read(pid, "cmdline").split(b"\0")[:-1]
    return words[-2:] == [b"-c", os.fsencode(config_file.resolve())] and b"-t" not in words


def _running(pid: int) -> Running:
    start = f"{MARK}=".encode()
    found = next((word for word in _read(pid, "environ").split(b"\0") if word.startswith(start)), b"")
    owner, _, begun = found.removeprefix(start).decode("ascii", "replace").partition("/")
    if not owner.isdigit():
        return Running(pid, None, orphan=False)
    return Running(pid, int(owner), orphan=_begun(int(owner)) != begun)


def _begun(pid: int) -> str:
    """When that process began, in ticks since the boot of the machine; empty: there is none, or it is a corpse."""
    words = _read(pid, "stat").rpartition(b")")[2].split()  # the name before may hold anything
    return words[19].decode() if len(words) > 19 and words[0] not in {b"Z", b"X"} else ""


def _read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:  # ended meanwhile, or another user's
        return b""
