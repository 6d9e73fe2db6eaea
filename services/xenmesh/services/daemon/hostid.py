"""The host's id: who this host is on the bus, for ever.

Generated once and kept beside the state, or configured; never the hostname, which people change and two hosts may share.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from pathlib import Path

from xenmesh.schemas.subjects import token

from .errors import HostIdError

__all__ = ["FILE", "host_id", "kept_id"]

FILE = "host-id"
"""Its name in the state directory."""


def host_id(state: Path) -> str:
    """The id kept in ``state``; made there if there is none. Processes that start at the same time agree on one.

    Raises:
        HostIdError: the file holds something else, or cannot be read or made.
    """
    kept = kept_id(state)
    if kept is not None:
        return kept
    file = state / FILE
    try:
        _keep(file, f"{uuid.uuid4()}\n")
    except OSError as error:
        raise HostIdError(
            f"the host has no id and none can be kept in {state}: {error.strerror}. Make the directory writable for uid {os.geteuid()}, "
            f"choose another with [mesh] state, or set [mesh] host."
        ) from error
    return _read(file)


def kept_id(state: Path) -> str | None:
    """The id kept in ``state``, if there is one already.

    Raises:
        HostIdError: the file holds something else, or cannot be read.
    """
    try:
        return _read(state / FILE)
    except FileNotFoundError:
        return None


def _read(file: Path) -> str:
    try:
        untrusted_text = file.read_bytes()[:200].decode("ascii", "replace").removesuffix("\n")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise HostIdError(f"the host's id in {file} cannot be read: {error.strerror}") from error
    try:
        return token(untrusted_text)
    except ValueError:
        raise HostIdError(
            f"{file} does not hold a host's id but {untrusted_text[:40]!r}. Put the id back (consumers know the host by it; any recorded event "
            f"names it), or remove the file to become a new host."
        ) from None


def _keep(file: Path, text: str) -> None:
    """Whole or not at all, also over a power cut; a file that somebody else made meanwhile stands."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "w") as out:
            out.write(text)
            out.flush()
            os.fchmod(out.fileno(), 0o644)
            os.fsync(out.fileno())
        try:
            Path(file).hardlink_to(temporary)
        except FileExistsError:
            return
        directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        Path(temporary).unlink()
