"""Waiting on a condition, always with a deadline; never a bare sleep."""

import time
from collections.abc import Callable
from typing import TypeVar

import anyio

__all__ = ["eventually", "wait_until"]

_PAUSE = 0.005

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, *, within: float = 10.0) -> T:
    """The first true value of ``condition()``, asked again and again.

    Raises TimeoutError with ``what`` (a phrase: "the socket to answer") after ``within`` seconds.
    """
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {within:g} s in vain for {what}")
        time.sleep(_PAUSE)
    return value


async def eventually(condition: Callable[[], T], what: str, *, within: float = 10.0) -> T:
    """`wait_until` for tests that run an event loop: the loop goes on meanwhile."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {within:g} s in vain for {what}")
        await anyio.sleep(_PAUSE)
    return value
