"""What may be set of the events service: the section ``[events]``."""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = ["EventsConfig"]


class EventsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[events]``."""

    page: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 500
    """Events of one page at most, whatever is asked for: a page is read from the history for each request."""
