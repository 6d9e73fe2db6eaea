"""Numbers on the command line that have bounds: types for argparse, which makes one sentence of what they raise."""

from __future__ import annotations

import argparse

__all__ = ["count", "port"]


def count(text: str) -> int:
    """How many: 1 or more.

    Raises:
        argparse.ArgumentTypeError: it is not such a number.
    """
    return _bounded(text, 1, None, "a number of at least 1")


def port(text: str) -> int:
    """A TCP port; 0 stands for any free one. Raises as `count`."""
    return _bounded(text, 0, 65535, "a port (0 to 65535; 0: any free one)")


def _bounded(text: str, least: int, most: int | None, what: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None
    if number < least or (most is not None and number > most):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return number
