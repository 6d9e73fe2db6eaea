"""What the metrics service will say: one columnar sample per owner. Shapes only, until that service is built."""

from __future__ import annotations

import enum

import msgspec

from .envelope import Event

__all__ = ["Column", "Columns", "Kind", "Sample"]


class Kind(enum.Enum):
    """How the values of a column are to be read."""

    GAUGE = "gauge"
    COUNTER = "counter"


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One data source of an owner."""

    name: str
    unit: str
    kind: Kind
    help: str


class Columns(Event, frozen=True, kw_only=True, tag="tele.columns"):
    """Which columns an owner's samples have; said when they change."""

    owner: str
    """``host``, ``domain.<uuid>`` or ``sr.<uuid>``."""

    legend: int
    """Number of this legend; a sample names the one it is made by."""

    columns: list[Column]


class Sample(Event, frozen=True, kw_only=True, tag="tele.sample"):
    """``tele.host``, ``tele.domain.<uuid>``, ``tele.sr.<uuid>``: one value a column; None where it is not known (JSON has no NaN)."""

    owner: str
    legend: int
    time: float
    """Seconds since 1970, aligned to the tick."""

    values: list[float | None]
