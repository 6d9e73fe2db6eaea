"""Completion scripts, one module a shell: ``render(shapes)`` gives the script for the command line of that shape."""

from __future__ import annotations

from xenmesh.cli.shape import Shape

__all__ = ["LIVE", "MADE", "cases", "flags"]

LIVE = ("DOMAIN", "SERVICE", "PATH", "PATTERN")
"""Kinds of arguments whose candidates are asked of the mesh."""

MADE = "made by `xenmesh completion`; do not edit"


def cases(shapes: dict[str, Shape]) -> list[Shape]:
    """Every command and, after it, those below it."""
    found: list[Shape] = []
    for shape in shapes.values():
        found += [shape, *shape.below.values()]
    return found


def flags(shape: Shape) -> str:
    """All spellings of its options, with blanks between."""
    return " ".join(flag for option in shape.options for flag in option.flags)
