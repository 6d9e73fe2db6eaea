"""The streams and the bucket that a host's bus has, made or brought up to date: `provision` is run at start by the bus user ``provision``.

Idempotent: what stands as wanted is left alone; what stands otherwise is updated; what cannot be updated is an error, never deleted.
"""

from __future__ import annotations

import msgspec

from xenmesh.schemas.subjects import prefix

from .abc import Bus
from .errors import NoHistory, NoResponders
from .jetstream import AUDIT, EVENTS, STATE, Republish, StreamConfig, read_stream, state_subject

__all__ = ["PROVISION", "provision", "wanted"]

PROVISION = "provision"
"""The bus user that may make streams; no service may."""

_DAY = 86_400_000_000_000
_MIB = 1 << 20
_TIMEOUT = 5.0


def wanted(host: str) -> tuple[StreamConfig, ...]:
    """What the bus of ``host`` shall have."""
    where = prefix(host)
    return (
        StreamConfig(name=EVENTS, subjects=[f"{where}.evt.>"], max_age=7 * _DAY, max_bytes=64 * _MIB),
        StreamConfig(name=AUDIT, subjects=[f"{where}.audit.>"], max_age=90 * _DAY, max_bytes=32 * _MIB),
        StreamConfig(
            name=STATE,
            subjects=[state_subject(">")],
            storage="memory",  # the truth is Xen's; its writers put it anew
            discard="new",
            max_bytes=8 * _MIB,
            max_msgs_per_subject=1,
            allow_rollup_hdrs=True,
            allow_msg_ttl=True,
            deny_delete=True,
            republish=Republish(state_subject(">"), f"{where}.state.>"),
        ),
    )


async def provision(bus: Bus, host: str) -> list[str]:
    """Make or update all of `wanted`; returns the names of what was changed.

    Raises:
        NoHistory: the server keeps no streams, or refuses one; the sentence says why.
    """
    return [config.name for config in wanted(host) if await _ensure(bus, config)]


async def _ensure(bus: Bus, config: StreamConfig) -> bool:
    stands = await _ask(bus, "INFO", config.name, b"")
    if stands == config:
        return False
    verb = "CREATE" if stands is None else "UPDATE"
    made = await _ask(bus, verb, config.name, msgspec.json.encode(config))
    if made != config:
        raise NoHistory(why=f"the server made the stream {config.name} otherwise than asked; it may be too old")
    return True


async def _ask(bus: Bus, verb: str, name: str, body: bytes) -> StreamConfig | None:
    try:
        answer = await bus.request(f"$JS.API.STREAM.{verb}.{name}", body, timeout=_TIMEOUT)
    except NoResponders as error:
        raise NoHistory(why="the server keeps no streams") from error
    return read_stream(answer.data)
