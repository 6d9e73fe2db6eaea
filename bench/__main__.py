"""``make bench``: measure, print one table, write ``build/bench.json``. ``--only NAME`` runs what begins with that name."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from . import store, weight
from .report import Figure, machine, table, write

PARTS = {"store": (store.measure, ("store.",)), "mesh": (weight.measure, ("mesh.", "bus."))}
"""Each part, and how the names of its figures begin."""

REPOSITORY = Path(__file__).parents[1]


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only", default="", metavar="NAME", help="a part (%(prog)s knows: " + ", ".join(PARTS) + ", bus) or a figure's name"
    )
    parser.add_argument("--json", type=Path, default=REPOSITORY / "build/bench.json", help="where the figures go (%(default)s)")
    given = parser.parse_args()
    figures: list[Figure] = []
    wanted = given.only
    for measure, names in PARTS.values():
        if any(name.startswith(wanted) or wanted.startswith(name.rstrip(".")) for name in names):
            figures += [figure for figure in asyncio.run(measure(wanted)) if figure.name.startswith(wanted)]
    if not figures:
        parser.error(f"nothing is called {wanted}")
    sys.stdout.write(f"\n{machine()}\n\n{table(figures)}\n")
    write(figures, given.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
