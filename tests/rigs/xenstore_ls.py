"""What `xenstore-ls -fp` prints, read."""

import re
from typing import NamedTuple

__all__ = ["Listed", "parse"]

_LINE = re.compile(r'(/[^ ]*) = "(.*)"   \(([^()]*)\)')
_ESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2})|([0-7]{3})|(.))")
_SHORT = {b"t": b"\t", b"n": b"\n", b"r": b"\r", b"\\": b"\\"}


class Listed(NamedTuple):
    """A node: its value, and its permissions as ``n0``, ``r5``."""

    value: bytes
    perms: list[str]


def parse(text: str) -> dict[str, Listed]:
    """Path to node. Raises ValueError with the line that is none."""
    found = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(line)
        path, value, perms = match.groups()
        found[path] = Listed(_ESCAPE.sub(_unescape, value.encode()), perms.split(","))
    return found


def _unescape(match: re.Match[bytes]) -> bytes:
    hexadecimal, octal, short = match.groups()
    if short is not None:
        return _SHORT[short]
    return bytes([int(hexadecimal, 16) if hexadecimal else int(octal, 8)])
