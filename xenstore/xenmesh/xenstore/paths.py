"""Paths: which are legal, and how they relate.

A path is absolute ("/local/domain/0"), special ("@releaseDomain", "@releaseDomain/5") or relative to the caller's
/local/domain/<domid>. Elements are of ASCII letters, digits and "-_@"; none is empty. Source: docs/misc/xenstore.txt;
that "+", ".", ":", "~" and space give EINVAL is measured on both servers.
"""

from __future__ import annotations

import re

from xenmesh.xenstore.errors import PathError

__all__ = [
    "ABSOLUTE_MAX",
    "INTRODUCE_DOMAIN",
    "PORTABLE_PATH_MAX",
    "PORTABLE_VALUE_MAX",
    "RELATIVE_MAX",
    "RELEASE_DOMAIN",
    "absolute",
    "covers",
    "is_below",
    "is_special",
    "parent",
    "split",
    "validate",
]

ABSOLUTE_MAX = 3072
RELATIVE_MAX = 2048
PORTABLE_PATH_MAX = 1024
"""oxenstored refuses longer paths."""
PORTABLE_VALUE_MAX = 2048
"""oxenstored's quota for a node, dom0 included; C counts permissions and child names in it too."""

INTRODUCE_DOMAIN = "@introduceDomain"
RELEASE_DOMAIN = "@releaseDomain"

_ELEMENT = "[A-Za-z0-9_@-]+"
_LEGAL = re.compile(f"/|/?{_ELEMENT}(?:/{_ELEMENT})*").fullmatch


def validate(path: str, limit: int = ABSOLUTE_MAX) -> str:
    """Return `path` if a server may accept it, else raise PathError.

    `limit` bounds its length (a relative one is bounded by RELATIVE_MAX too).
    """
    if _LEGAL(path) is None:
        raise PathError(path, _flaw(path))
    if len(path) > limit or (len(path) > RELATIVE_MAX and path[0] != "/"):
        raise PathError(path, "too long")
    return path


def _flaw(path: str) -> str:
    if not path:
        return "empty"
    if "//" in path:
        return "empty element"
    if path.endswith("/"):
        return "trailing slash"
    return "illegal character"


def is_special(path: str) -> bool:
    """Whether it names an event of the server's own ("@...") and no node."""
    return path.startswith("@")


def absolute(path: str, domid: int = 0) -> str:
    """Return the absolute form of a path given by domain `domid`; special ones stay as they are."""
    if path[:1] in ("/", "@"):
        return path
    return f"/local/domain/{domid}/{path}"


def parent(path: str) -> str:
    """Return the path above; "/", "@name" and a single relative element have none and are returned as they are."""
    head, slash, _ = path.rpartition("/")
    if not slash:
        return path
    return head or "/"


def split(path: str) -> tuple[str, ...]:
    """Return the elements: () for "/", ("local", "domain") for "/local/domain", ("@releaseDomain", "5")."""
    return tuple(path.strip("/").split("/")) if path != "/" else ()


def is_below(path: str, above: str) -> bool:
    """Whether `path` lies strictly below `above`, by whole elements ("/tree" is not below "/tr")."""
    if above == "/":
        return path.startswith("/") and path != "/"
    return len(path) > len(above) and path[len(above)] == "/" and path.startswith(above)


def covers(watched: str, path: str, depth: int | None = None) -> bool:
    """Whether a watch on `watched` sees a change of `path`: the node itself and all below, to `depth` levels."""
    if path == watched:
        return True
    if not is_below(path, watched):
        return False
    return depth is None or len(split(path)) - len(split(watched)) <= depth
