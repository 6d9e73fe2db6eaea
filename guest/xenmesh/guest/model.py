"""From facts to xenstore keys, relative to the guest's own path: the names and forms that xapi's clients read (xe-guest-utilities)."""

from __future__ import annotations

from .facts import Os

__all__ = ["keys"]

VALUE_MAX = 256
"""Bytes; readers in Dom0 cut what is longer."""


def keys(os: Os) -> dict[str, bytes]:
    """Path -> value for what is known; an unknown fact has no key."""
    major, _, rest = os.version.partition(".")
    wanted = {
        "data/os_name": os.name,
        "data/os_distro": os.distro,
        "data/os_majorver": major if major.isdigit() else "",
        "data/os_minorver": rest.partition(".")[0] if rest else "",
        "data/os_uname": os.kernel,
    }
    return {path: text.encode("ascii", "replace")[:VALUE_MAX] for path, text in wanted.items() if text}
