"""The directory of one running `xenmesh up` or `xenmesh sim`: this user's alone, and used by one at a time."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .context import trusted
from .errors import CommandError

__all__ = ["MARK", "SOCKET_LIMIT", "absolute", "end", "ended", "hold", "leftovers"]

MARK = "XENMESH_UP"
"""Set in the environment of every process of a mesh that `xenmesh up` started: its directory. A later `up` knows by it what an earlier one, killed
with SIGKILL, left behind."""

SOCKET_LIMIT = 107
"""Bytes of a unix socket's path."""


@contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Make the directory if need be, and keep it for this process.

    Raises:
        CommandError: somebody else's, somebody's at work, or not to be made; the hint says what to do.
    """
    if len(os.fsencode(directory / "socket")) > SOCKET_LIMIT:
        raise CommandError(f"{directory} is too long a path for a unix socket in it", "choose a shorter one: --dir DIR")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{directory} cannot be made: {error.strerror}", "choose another: --dir DIR") from None
    if not trusted(directory):
        raise CommandError(
            f"{directory} can be written by others than this user", f"chmod 0700 {directory}, or choose another: --dir DIR"
        )
    try:
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise CommandError(f"{directory} cannot be used: {error.strerror}", "choose another: --dir DIR") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(lock, 20).decode(errors="replace").strip()
            raise CommandError(
                f"a mesh runs in {directory} already (pid {pid})",
                f"use it: xenmesh watch --dir {directory}      or end it: kill {pid}      or choose another: --dir DIR",
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(lock)


def leftovers(directory: Path) -> list[int]:
    """Pids of this user's processes that an earlier mesh in ``directory`` left behind. Ask only while it is held."""
    mark = f"{MARK}={directory}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if entry.stat().st_uid == os.getuid() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue  # it has ended, or may not be looked at
    return found


def absolute(directory: str | Path) -> Path:
    """The directory, whatever the current one is or will be."""
    return Path(directory).absolute()


def end(pids: list[int]) -> None:
    """Ask them to end."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue


def ended(pids: list[int], within: float) -> bool:
    """Whether they have all ended, at the latest after so many seconds. Blocks."""
    deadline = time.monotonic() + within
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if not select.select([handle], [], [], max(deadline - time.monotonic(), 0))[0]:
                return False
        finally:
            os.close(handle)
    return True
