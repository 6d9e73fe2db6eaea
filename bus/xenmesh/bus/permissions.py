"""Who may say and hear what on the bus: from `subjects.DECLARATIONS` to accounts, users and their permissions. Pure.

    XEN    services, one nkey each; operators, who ask everything and command under their own name; ``provision``
    VIEW   consumers that only look: ``evt``, ``state``, ``tele``, public queries and discovery come in by exports of XEN
    SYS    the health of the server itself

Looking is an account and not a permission, because a service answers wherever a request says: in its own account a user without rights could
have an answer delivered to a command's subject. From VIEW the answer ends in VIEW.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from xenmesh.schemas.subjects import (
    DECLARATIONS,
    OPERATOR,
    PUBLIC_CLASSES,
    VIEW,
    Declaration,
    heartbeat,
    prefix,
    query,
    token,
)

from .jetstream import AUDIT, EVENTS, STATE, direct_get, state_subject
from .provision import PROVISION

__all__ = ["ACCOUNTS", "SYS", "Export", "Plan", "User", "plan"]

SYS = "sys"
"""The bus user that asks the server about itself."""

ACCOUNTS = ("XEN", "VIEW", "SYS")

_DISCOVERY = ("$SRV.PING", "$SRV.INFO", "$SRV.STATS")
_OPERATOR_HEARS = ("evt.>", "state.>", "tele.>", "store.>", "hb.>", "audit.>")
_READING = (
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    *(f"$JS.API.STREAM.{verb}.{stream}" for verb in ("INFO", "MSG.GET") for stream in (EVENTS, AUDIT, STATE)),
    *(f"{direct_get(stream)}{below}" for stream in (EVENTS, AUDIT, STATE) for below in ("", ".>")),
)
"""Reading streams without consumers: a consumer may deliver to any subject, whatever its maker's permissions."""


class User(msgspec.Struct, frozen=True, kw_only=True):
    """One bus user. Whatever is not named in ``publish`` and ``subscribe`` is denied."""

    name: str
    account: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool = False
    """May publish once on the reply subject of what it heard."""

    @property
    def inbox(self) -> str:
        """The prefix of its inboxes; nobody else may hear them."""
        return f"_INBOX.{self.name}"


class Export(msgspec.Struct, frozen=True):
    """What VIEW gets from XEN."""

    kind: str
    """``stream`` (to hear) or ``service`` (to ask)."""

    subject: str
    many: bool = False
    """A service that answers with several messages."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All users of one host's bus, and what leaves XEN for VIEW."""

    users: tuple[User, ...]
    exports: tuple[Export, ...]

    def of(self, account: str) -> tuple[User, ...]:
        """The users of one account."""
        return tuple(user for user in self.users if user.account == account)


def plan(host: str, *, operators: Iterable[str] = (), viewers: Iterable[str] = ()) -> Plan:
    """The users of the bus of ``host``: every declared service, ``provision``, ``sys``, `OPERATOR` and `VIEW`, and those named.

    Raises:
        ValueError: a name is taken already, or cannot be part of a subject.
    """
    where = prefix(host)
    exports = _exports(where)
    users = (
        *(_service(where, declaration) for declaration in DECLARATIONS.values()),
        _provision(),
        *(_operator(where, name) for name in (OPERATOR, *operators)),
        *(_viewer(name, exports) for name in (VIEW, *viewers)),
        User(name=SYS, account="SYS", publish=("$SYS.REQ.>",), subscribe=(_inboxes(SYS),)),
    )
    names = [user.name for user in users]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"there is a bus user {name!r} already; choose another name")
    return Plan(users=users, exports=exports)


def _inboxes(name: str) -> str:
    return f"_INBOX.{token(name)}.>"


def _service(where: str, declaration: Declaration) -> User:
    says = [f"{where}.{subject}" for subject in (*declaration.says, *declaration.asks)]
    says += [state_subject(subject.removeprefix("state.")) for subject in declaration.says if subject.startswith("state.")]
    says.append(direct_get(STATE))
    if declaration.name == "events":
        says.append(direct_get(EVENTS))
    hears = [
        f"{where}.{pattern}" for pattern in (f"q.{declaration.name}.*", f"cmd.*.{declaration.name}.*", *_follows(declaration))
    ]
    hears += [f"{verb}{whose}" for verb in _DISCOVERY for whose in ("", f".{declaration.name}", f".{declaration.name}.*")]
    return User(
        name=declaration.name,
        account="XEN",
        publish=tuple(says),
        subscribe=(_inboxes(declaration.name), *hears),
        answers=True,
    )


def _follows(declaration: Declaration) -> tuple[str, ...]:
    """What it hears of others; whoever follows a service's stream hears its heartbeat too, by which a gap at the end is told."""
    beats = (heartbeat(other.name) for other in DECLARATIONS.values() if other.stream in declaration.hears)
    return (*declaration.hears, *beats)


def _provision() -> User:
    verbs = ("INFO", "CREATE", "UPDATE")
    return User(
        name=PROVISION,
        account="XEN",
        publish=tuple(f"$JS.API.STREAM.{verb}.{stream}" for stream in (EVENTS, AUDIT, STATE) for verb in verbs),
        subscribe=(_inboxes(PROVISION),),
    )


def _operator(where: str, name: str) -> User:
    return User(
        name=name,
        account="XEN",
        publish=(f"{where}.q.>", f"{where}.cmd.{token(name)}.>", "$SRV.>", *_READING),
        subscribe=(_inboxes(name), *(f"{where}.{pattern}" for pattern in _OPERATOR_HEARS)),
    )


def _exports(where: str) -> tuple[Export, ...]:
    public = (
        query(declaration.name, verb.name)
        for declaration in DECLARATIONS.values()
        for verb in declaration.answers
        if verb.public and not verb.commands
    )
    return (
        *(Export("stream", f"{where}.{pattern}") for pattern in PUBLIC_CLASSES),
        *(Export("service", f"{where}.{subject}") for subject in public),
        *(Export("service", f"{verb}{below}", many=True) for verb in _DISCOVERY for below in ("", ".>")),
    )


def _viewer(name: str, exports: tuple[Export, ...]) -> User:
    return User(
        name=name,
        account="VIEW",
        publish=tuple(export.subject for export in exports if export.kind == "service"),
        subscribe=(_inboxes(name), *(export.subject for export in exports if export.kind == "stream")),
    )
