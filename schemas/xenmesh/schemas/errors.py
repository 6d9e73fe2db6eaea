"""The codes that an answer may carry, in one table.

``Whose`` tells who can mend it: THEIRS, the asker, by asking otherwise; OURS, a bug or a lack of this service; WORLD, neither (Xen, xenstored,
the disk): try again or look there. A code never changes its meaning and is never taken away.
"""

from __future__ import annotations

import enum

import msgspec

__all__ = ["CODES", "Code", "Fact", "Failure", "Whose", "failure"]

Fact = str | int | float | bool | None | list[str]


class Whose(enum.Enum):
    """Who can mend it."""

    THEIRS = "theirs"
    OURS = "ours"
    WORLD = "world"


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request has no result."""

    code: str
    """A key of `CODES`; a client treats a code it does not know as its ``number`` class."""

    sentence: str
    """For people, whole, with the facts in it."""

    facts: dict[str, Fact]
    """For programs: the values that the sentence names. For libxl, its own log lines under ``log``."""

    number: int
    """As an HTTP status: 4xx theirs, 500 ours, 503 and 504 the world's."""


class Code(msgspec.Struct, frozen=True):
    """One line of the table."""

    code: str
    number: int
    whose: Whose
    sentence: str
    """Made whole by ``str.format`` with the facts."""

    retry: bool = False
    """The same request may succeed later."""


_T, _O, _W = Whose.THEIRS, Whose.OURS, Whose.WORLD

CODES: dict[str, Code] = {
    line.code: line
    for line in (
        Code("bad-request", 400, _T, "The request is not what {verb} takes: {why}."),
        Code("unknown-field", 400, _T, "{verb} knows no field {field}; nothing was done."),
        Code("bad-path", 400, _T, "{path} is not a xenstore path: {why}."),
        Code("not-allowed", 403, _T, "{user} may not ask for {verb}."),
        Code("unknown-verb", 404, _T, "{service} has no verb {verb}."),
        Code("not-found", 404, _T, "There is no {what} {name}."),
        Code("no-reply", 400, _T, "A command needs a reply subject; {verb} was not carried out."),
        Code("too-large", 413, _T, "The request has {size} bytes; {verb} takes at most {limit}."),
        Code(
            "stale-cut",
            410,
            _T,
            "The snapshot {cut} is no longer kept; ask for a new one.",
            retry=True,
        ),
        Code(
            "request-reused",
            409,
            _T,
            "The request id {request_id} was used for another request within 24 hours.",
        ),
        Code("wrong-state", 409, _T, "{what} is {state}; {verb} needs it to be {wanted}."),
        Code("busy", 409, _T, "{what} is busy with the task {task}.", retry=True),
        Code("exists", 409, _T, "{what} {name} is in use already."),
        Code("cancelled", 499, _T, "{verb} was cancelled."),
        Code(
            "deadline",
            504,
            _T,
            "The deadline had passed when {verb} was to begin; nothing was done.",
            retry=True,
        ),
        Code("timeout", 504, _W, "{verb} did not end within {seconds} s.", retry=True),
        Code("too-busy", 429, _O, "{service} has {waiting} requests waiting already.", retry=True),
        Code("not-ready", 503, _O, "{service} is still reading its source.", retry=True),
        Code("draining", 503, _O, "{service} is stopping and takes no more requests.", retry=True),
        Code(
            "outcome-unknown",
            500,
            _O,
            "{verb} was cut short by a restart and its outcome was not recorded; look before you repeat it.",
        ),
        Code("unsupported", 501, _W, "{what} is not possible here: {why}."),
        Code("store-lost", 503, _W, "xenstored does not answer.", retry=True),
        Code("store-refused", 502, _W, "xenstored refused {path}: {errno}."),
        Code("no-history", 503, _W, "No history is kept: {why}."),
        Code("backend-failed", 502, _W, "{what} failed: {why}."),
        Code("no-memory", 507, _W, "{wanted} MiB are needed and {free} MiB are free."),
        Code(
            "internal",
            500,
            _O,
            "{service} met an error of its own in {verb}; its log names it as {incident}.",
        ),
    )
}


def failure(code: str, **facts: Fact) -> Failure:
    """The failure of that code, its sentence made from ``facts``.

    Raises:
        KeyError: the code is not in the table, or a fact that its sentence names is missing: a bug of the caller.
    """
    line = CODES[code]
    return Failure(code=code, sentence=line.sentence.format_map(facts), facts=facts, number=line.number)
