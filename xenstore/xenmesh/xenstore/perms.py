"""Permissions: a letter and a domid, "b5".

A node has a list of them. The first names the owner, and its letter is what everyone not listed may do; owner and dom0
may do everything. Source: docs/misc/xenstore.txt, SET_PERMS.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from xenmesh.xenstore.errors import PermError

__all__ = ["Access", "Perm"]


class Access(str, Enum):
    """What may be done."""

    READ = "r"
    WRITE = "w"
    BOTH = "b"
    NONE = "n"

    @property
    def can_read(self) -> bool:
        """Whether it includes reading."""
        return self in (Access.READ, Access.BOTH)

    @property
    def can_write(self) -> bool:
        """Whether it includes writing."""
        return self in (Access.WRITE, Access.BOTH)


# re.ASCII is implied by [0-9]; int() alone would take "1_0", " 1" and other alphabets' digits.
_PERM = re.compile("([rwbn])([0-9]{1,5})").fullmatch


class Perm(NamedTuple):
    """One entry of a node's list."""

    access: Access
    domid: int

    @classmethod
    def parse(cls, text: str) -> Perm:
        """Read "r0". Raises PermError."""
        match = _PERM(text)
        if match is None or int(match[2]) > 0xFFFF:
            raise PermError(f"not a permission: {text[:20]!r}", text=text[:20])
        return cls(Access(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.access.value}{self.domid}"
