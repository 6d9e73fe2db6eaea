"""Figures, their table, and ``build/bench.json``."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Figure", "percentile", "spread", "table", "write"]


class Figure(NamedTuple):
    """One line of the table."""

    name: str
    value: float
    unit: str
    against: str = ""
    """The floor, rival or aim of the same run."""

    ratio: float | None = None
    """``value`` by that of ``against``; None where there is none."""

    spread: str = ""
    """Lowest to highest of the repetitions."""


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: Sequence[float], form: str = "{:.3g}") -> str:
    """``lowest to highest``."""
    return f"{form.format(min(values))} to {form.format(max(values))}"


def machine() -> str:
    """What the figures were measured on."""
    return f"{os.cpu_count()} CPUs, {platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}"


def table(figures: Iterable[Figure]) -> str:
    """A Markdown table, which reads well on a terminal too."""
    rows = [("name", "value", "unit", "ratio", "against", "spread")]
    rows += [
        (f.name, f"{f.value:.4g}", f.unit, "" if f.ratio is None else f"{f.ratio:.2f}", f.against, f.spread) for f in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write(figures: Sequence[Figure], path: Path) -> None:
    """The figures as a list of objects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = ("name", "value", "unit", "against", "ratio")
    text = json.dumps([{key: getattr(f, key) for key in keys} for f in figures], indent=1)
    path.write_text(text + "\n")
    sys.stderr.write(f"wrote {path}\n")


def middle(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)
