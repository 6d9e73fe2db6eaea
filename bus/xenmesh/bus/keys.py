"""The nkeys of the bus's users: one seed a file, ``DIR/<user>.nk``, 0400 in a directory that only its owner may enter.

A seed is made once and never overwritten. The package nkeys (of the extra "server") is needed, and imported when it is.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from .errors import KeyFileError

__all__ = ["ensure_keys", "key_file", "public_key", "read_public_keys"]


def key_file(directory: Path, user: str) -> Path:
    """Where the seed of ``user`` is."""
    return directory / f"{user}.nk"


def ensure_keys(directory: Path, users: Iterable[str]) -> dict[str, str]:
    """Make the seeds that are missing; returns each user's public key.

    Raises:
        KeyFileError: the directory or a file cannot be made or used.
    """
    nkeys = _nkeys(str(directory))
    users = tuple(users)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if directory.stat().st_mode & 0o077:
            directory.chmod(0o700)
        for user in users:
            file = key_file(directory, user)
            if not file.exists():
                _write_once(file, nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER))
    except OSError as error:
        raise KeyFileError(file=str(error.filename or directory), why=error.strerror or str(error)) from error
    return read_public_keys(directory, users)


def _write_once(file: Path, seed: bytes) -> None:
    # Whole or not at all, and never in the place of another: link() refuses where the name is taken.
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
        with os.fdopen(descriptor, "wb") as out:
            out.write(seed + b"\n")
            out.flush()
            os.fsync(out.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def read_public_keys(directory: Path, users: Iterable[str]) -> dict[str, str]:
    """The public key of each user, read from its seed.

    Raises:
        KeyFileError: a file is missing, may be read by others, or holds no seed.
    """
    return {user: _read_public_key(key_file(directory, user)) for user in users}


def _read_public_key(file: Path) -> str:
    try:
        if file.stat().st_mode & 0o077:
            raise KeyFileError(file=str(file), why="others may read it; chmod 0400 it, or remove it to have a new key made")
        return public_key(file.read_bytes().strip(), str(file))
    except OSError as error:
        raise KeyFileError(file=str(file), why=error.strerror or str(error)) from error


def public_key(seed: bytes, source: str) -> str:
    """The public key (``U...``) of a user's seed; ``source`` names it in errors.

    Raises:
        KeyFileError: not the seed of a user, or nkeys is not installed.
    """
    nkeys = _nkeys(source)
    try:
        public = nkeys.from_seed(bytearray(seed)).public_key.decode("ascii")
    except Exception as error:
        # A seam: nkeys raises its own family, binascii's and PyNaCl's.
        raise KeyFileError(file=source, why="it holds no nkey seed") from error
    if not public.startswith("U"):
        raise KeyFileError(file=source, why="its nkey is not a user's (SU...)")
    return str(public)


def _nkeys(source: str) -> ModuleType:
    try:
        import nkeys
    except ImportError as error:
        raise KeyFileError(file=source, why="nkeys are needed to use it: install the package nkeys") from error
    module: ModuleType = nkeys
    return module
