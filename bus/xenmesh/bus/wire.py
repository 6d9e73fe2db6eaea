"""The few lines of NATS's protocol that our side writes and reads itself: publishing, and header blocks. Pure.

nats-py's own reading of a header block or subject raises on bytes that a server passes on, which ends its read loop; this one does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .errors import BadSubject

__all__ = ["check_pattern", "check_subject", "encode_publish", "parse_headers"]

_SUBJECT = re.compile(r"[!-)+-\-/-=?-~]+(?:\.[!-)+-\-/-=?-~]+)*")  # printable ASCII but "*", ".", ">"
_PATTERN = re.compile(r"(?:(?:\*|[!-)+-\-/-=?-~]+)\.)*(?:\*|>|[!-)+-\-/-=?-~]+)")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LONGEST = 512
_FIRST = b"NATS/1.0"


def check_subject(subject: str) -> None:
    """Raises BadSubject where nothing may be published there."""
    if len(subject) > _LONGEST or not _SUBJECT.fullmatch(subject):
        raise BadSubject(
            subject=repr(subject[:80]), why="a subject is tokens of printable ASCII joined by dots, without wildcards"
        )


def check_pattern(pattern: str) -> None:
    """Raises BadSubject where nobody can subscribe to it."""
    if len(pattern) > _LONGEST or not _PATTERN.fullmatch(pattern):
        raise BadSubject(
            subject=repr(pattern[:80]),
            why="a pattern is tokens of printable ASCII joined by dots; '*' is a token, '>' the last one",
        )


def encode_publish(subject: str, reply: str, headers: Mapping[str, str] | None, data: bytes) -> bytes:
    """The PUB or HPUB command. The subjects must have been checked; a header that cannot be sent raises BadSubject."""
    address = f"{subject} {reply} " if reply else f"{subject} "
    if not headers:
        return b"PUB %b%d\r\n%b\r\n" % (address.encode(), len(data), data)
    lines = [_FIRST.decode()]
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or not value.isprintable():
            raise BadSubject(subject=f"the header {name!r}", why="names are tokens, values have no control characters")
        lines.append(f"{name}: {value}")
    block = ("\r\n".join(lines) + "\r\n\r\n").encode()
    return b"HPUB %b%d %d\r\n%b%b\r\n" % (address.encode(), len(block), len(block) + len(data), block, data)


def parse_headers(block: bytes) -> dict[str, str] | None:
    """The headers of a message; ``Status`` and ``Description`` are those of an inline status. Nothing where the block is not one.

    Takes any bytes: what cannot be read is left out, what is not UTF-8 has U+FFFD in its place.
    """
    first, _, rest = block.partition(b"\r\n")
    if not first.startswith(_FIRST):
        return None
    headers: dict[str, str] = {}
    status, _, description = first[len(_FIRST) :].strip().partition(b" ")
    if status.isdigit():
        headers["Status"] = status.decode("ascii")
        if description:
            headers["Description"] = description.strip().decode("utf-8", "replace")
    for line in rest.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon and name.isascii():
            headers[name.decode("ascii").strip()] = value.strip().decode("utf-8", "replace")
    return headers or None
