"""Root may read and write everything; some tests need somebody who may not."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["nobody_special"]

NOBODY = 65534


@contextmanager
def nobody_special() -> Iterator[None]:
    """Be an ordinary user for a while, whoever runs the tests."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
