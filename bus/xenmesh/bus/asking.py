"""Typed requests to a service: a query that may be asked again, and a command that is carried out once."""

from __future__ import annotations

import random
import time
import uuid
from functools import cache
from typing import TypeVar

import anyio
import msgspec

from xenmesh.schemas import envelope, subjects
from xenmesh.schemas.request import Command, Outcome, Query

from .abc import Bus
from .errors import BusError, BusLost, NoResponders, ProtocolError, Refused, Timeout
from .message import Message

__all__ = ["ask", "command"]

R = TypeVar("R", bound=msgspec.Struct)

_PAUSE = 0.1
"""Seconds before a command is asked again, at random from the half of it; doubled each time, up to `_LONGEST`."""

_LONGEST = 5.0
_NOTHING_DONE = frozenset({"too-busy", "not-ready", "draining"})
"""Refusals of a service that is there in principle: try again."""

_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


async def ask(bus: Bus, host: str, service: str, verb: str, request: Query, result: type[R], *, timeout: float = 5.0) -> R:
    """Ask ``q.<service>.<verb>``.

    Raises:
        errors.Refused: the service's error outcome.
        errors.NoResponders, errors.Timeout, errors.BusLost: no outcome; a query may simply be asked again.
        errors.ProtocolError: the answer cannot be read.
    """
    subject = f"{subjects.prefix(host)}.{subjects.query(service, verb)}"
    return _result(await bus.request(subject, envelope.encode(request), timeout=timeout), subject, result)


async def command(
    bus: Bus,
    host: str,
    service: str,
    verb: str,
    request: Command,
    result: type[R],
    *,
    timeout: float = 60.0,
    attempt: float = 10.0,
) -> R:
    """Have ``cmd.<user>.<service>.<verb>`` carried out, once: asked again with the same ``request_id`` after ``attempt`` seconds without an
    answer, or when the service was away or too busy, until ``timeout`` seconds have passed. An empty ``request_id`` is filled in.

    Raises:
        errors.Refused: the error outcome.
        errors.Timeout: no outcome in time; it may have been carried out. The same ``request_id`` later tells.
        errors.NoResponders, errors.BusLost: the service was never reached.
    """
    subject = f"{subjects.prefix(host)}.{subjects.command(bus.user, service, verb)}"
    data = envelope.encode(request if request.request_id else msgspec.structs.replace(request, request_id=str(uuid.uuid4())))
    end = time.monotonic() + timeout
    pause, reached = _PAUSE, False
    while True:
        left = end - time.monotonic()
        try:
            return _result(await bus.request(subject, data, timeout=max(0.001, min(attempt, left))), subject, result)
        except Timeout:
            failed: BusError = Timeout(subject=subject, seconds=timeout)
            reached = True
        except Refused as error:
            if error.code not in _NOTHING_DONE:
                raise
            failed = error
        except (NoResponders, BusLost) as error:
            failed = error
        delay = random.uniform(pause / 2, pause)  # noqa: S311 - jitter
        if time.monotonic() + delay >= end:
            raise Timeout(subject=subject, seconds=timeout) if reached else failed
        await anyio.sleep(delay)
        pause = min(2 * pause, _LONGEST)


def _result(message: Message, subject: str, kind: type[R]) -> R:
    try:
        outcome: Outcome[R] = _decoder(kind).decode(message.data)
    except _MALFORMED as error:
        raise ProtocolError(what=f"the answer to {subject}", why=str(error)) from None
    if outcome.error is not None:
        raise Refused(outcome.error)
    if outcome.result is None:
        raise ProtocolError(what=f"the answer to {subject}", why="it has neither a result nor an error")
    return outcome.result


@cache
def _decoder(kind: type[R]) -> msgspec.json.Decoder[Outcome[R]]:
    return msgspec.json.Decoder(Outcome[kind])  # type: ignore[valid-type]
