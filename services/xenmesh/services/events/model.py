"""Which page is answered: the history itself is the only state, so all that is decided here is how much of it one answer may hold."""

from __future__ import annotations

import msgspec

from xenmesh.schemas.request import Since

from .config import EventsConfig

__all__ = ["bounded"]


def bounded(asked: Since, config: EventsConfig) -> Since:
    """``asked`` with its limit brought down to what one page may hold; what cannot be answered is left for the history to refuse."""
    return msgspec.structs.replace(asked, limit=min(asked.limit, config.page))
