"""What may be said on the xenmesh bus: envelopes, events, states, requests, subjects, errors."""

from __future__ import annotations

from . import domain, guest, metrics, service, store
from .envelope import Event

__all__ = ["EVENTS"]

_CLASSES: tuple[type[Event], ...] = (
    store.Changed, store.Removed, store.DomainSeen, store.DomainGone, store.Capped, store.Flooding,
    service.Started, service.Stopping, service.Source, service.ServiceState, service.Audit,
    domain.Lifecycle, domain.Vanished, domain.Task, domain.Domain,
    guest.GuestChanged, guest.GuestInfo,
    metrics.Columns, metrics.Sample,
)  # fmt: skip

EVENTS: dict[str, type[Event]] = {str(kind.__struct_config__.tag): kind for kind in _CLASSES}
"""Every event, state and item by its tag."""
