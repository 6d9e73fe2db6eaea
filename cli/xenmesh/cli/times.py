"""Durations and moments as people write them. Pure: now is an argument."""

from __future__ import annotations

import datetime as dt
import re

__all__ = ["moment", "seconds"]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float:
    """``90``, ``90s``, ``1.5h``, ``1h30m``, ``2d`` in seconds.

    Raises:
        ValueError: it is none of these.
    """
    parts = list(_DURATION.finditer(text))
    whole = "".join(part.group() for part in parts) == text
    bare = [part for part in parts if part[2] is None]
    if not parts or not whole or (bare and len(parts) > 1):
        raise ValueError(f"{text!r} is not a duration: write 30s, 5m, 1h30m or 2d")
    return sum(float(part[1]) * _UNITS[part[2] or "s"] for part in parts)


def moment(text: str, now: float) -> float:
    """Seconds since 1970 of a moment in the past: a duration ago (``1h``), a time of day (``10:30``, the last one), or a date and time in ISO 8601
    (local unless it says otherwise).

    Raises:
        ValueError: it is none of these.
    """
    try:
        return now - seconds(text)
    except ValueError:
        pass
    local = dt.datetime.fromtimestamp(now).astimezone()
    try:
        time = dt.time.fromisoformat(text)
    except ValueError:
        pass
    else:
        today = local.replace(hour=time.hour, minute=time.minute, second=time.second, microsecond=time.microsecond)
        return (today if today.timestamp() <= now else today - dt.timedelta(days=1)).timestamp()
    try:
        given = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a moment: write 1h (ago), 10:30, or 2026-11-20T10:30") from None
    return (given if given.tzinfo else given.astimezone()).timestamp()
