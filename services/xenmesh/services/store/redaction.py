"""Which values are secrets, and what is kept of them: a digest under a key of this process, to tell that they changed."""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Iterable

__all__ = ["Redaction"]


class Redaction:
    """Tells secrets by their paths.

    ``patterns`` are shell patterns of whole paths, letter case ignored: ``*/vncpasswd``. ``key``: random, of at most 64 bytes; with it, a
    short password cannot be found out from its digest.
    """

    def __init__(self, patterns: Iterable[str], key: bytes) -> None:
        each = [fnmatch.translate(pattern.lower()) for pattern in patterns]
        self._match = re.compile("|".join(each)).match if each else None
        self._key = key

    def covers(self, path: str) -> bool:
        """Whether the value at ``path`` is a secret."""
        return self._match is not None and self._match(path.lower()) is not None

    def digest(self, value: bytes) -> bytes:
        """What stands for the secret ``value``."""
        return hashlib.blake2b(value, digest_size=16, key=self._key).digest()
