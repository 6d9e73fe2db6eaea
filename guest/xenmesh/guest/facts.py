"""What an agent knows of its machine. The collectors that watch it change come later; these facts hold from boot to boot."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import NamedTuple

__all__ = ["Os", "collect", "parse_os_release"]


class Os(NamedTuple):
    """The operating system; empty where the machine does not say."""

    name: str = ""
    distro: str = ""
    version: str = ""
    kernel: str = ""


def parse_os_release(text: str) -> dict[str, str]:
    """The assignments of an os-release file (os-release(5)): quotes taken off, comments and what is malformed left out."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if not equals or name.startswith("#"):
            continue
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        found[name] = value
    return found


def collect(root: Path = Path("/")) -> Os:
    """What this machine says of its operating system; ``root`` is where its files are found."""
    release: dict[str, str] = {}
    for place in ("etc/os-release", "usr/lib/os-release"):
        try:
            release = parse_os_release((root / place).read_text("utf-8", "replace"))
        except OSError:
            continue
        break
    return Os(
        name=release.get("PRETTY_NAME") or release.get("NAME", ""),
        distro=release.get("ID", ""),
        version=release.get("VERSION_ID", ""),
        kernel=platform.release(),
    )
