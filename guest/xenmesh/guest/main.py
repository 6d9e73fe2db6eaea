"""``xenmesh-guest``: for now it prints the keys that it would publish. Watching and publishing come with the agent itself."""

from __future__ import annotations

import argparse
import sys
from typing import Optional

from .facts import collect
from .model import keys

__all__ = ["main"]


def main(argv: Optional[list[str]] = None) -> int:  # noqa: UP045  Python 3.9
    """Print ``path = value`` for each key, sorted; 0."""
    parser = argparse.ArgumentParser(
        prog="xenmesh-guest",
        description="Print what an agent in this machine would tell its host, as xenstore keys. This release does not write them yet.",
    )
    parser.add_argument("--print", action="store_true", help="print and end (the only thing this release does)")
    parser.parse_args(argv)
    for path, value in sorted(keys(collect()).items()):
        sys.stdout.write(f"{path} = {value.decode('ascii')}\n")
    return 0
