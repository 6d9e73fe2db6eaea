"""JSON Schema and one AsyncAPI 3 document, made from the structs and from `subjects`.

``python -m xenmesh.schemas.asyncapi --write DIR`` writes ``asyncapi.json`` and ``xenmesh.schema.json`` there; ``--check DIR`` exits 1 and names
the file when one is not current. Both are committed in ``schemas/xenmesh/schemas/generated``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from . import EVENTS, subjects
from .envelope import Envelope, Event, State
from .errors import CODES
from .request import Outcome
from .service import Heartbeat, ServiceState, Source, Started, Stopping
from .subjects import ADDRESSES, DECLARATIONS, Declaration, Verb

__all__ = ["FILES", "asyncapi", "json_schema"]

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
Object = dict[str, Json]

_PARAMETERS = {
    "host": "Id of the host: generated once and kept; never its name.",
    "domid": "Number of the domain, or `host` for what belongs to none.",
    "area": "Where the change lies; from a closed list.",
    "service": "Name of the service.",
    "verb": "Name of the request.",
    "user": "The bus user that commands; it may publish under its own name only.",
    "uuid": "uuid of the domain.",
    "task": "Id of the task.",
    "phase": "started, progress, ended, failed or cancelled.",
    "owner": "`host`, `domain.<uuid>` or `sr.<uuid>`.",
}


def _name(kind: type[msgspec.Struct]) -> str:
    return str(kind.__struct_config__.tag or kind.__name__)


def _wrapped(kind: type[Event]) -> type:
    """What travels: a state, a bare sample, or an event in its envelope."""
    address = ADDRESSES[kind]
    if address.startswith("state."):
        return State[kind]  # type: ignore[valid-type]
    if address.startswith(("tele.", "audit.")):
        return kind
    return Envelope[kind]  # type: ignore[valid-type]


def _verbs() -> Iterable[tuple[Declaration, Verb]]:
    return ((given, verb) for given in DECLARATIONS.values() for verb in given.answers)


def _types() -> dict[str, type]:
    """Every message by its name in the documents."""
    types: dict[str, type] = {_name(kind): _wrapped(kind) for kind in ADDRESSES}
    types["heartbeat"] = Heartbeat
    for _, verb in _verbs():
        types[f"{verb.request.__name__}.request"] = verb.request
        types[f"{verb.request.__name__}.outcome"] = Outcome[verb.result]  # type: ignore[name-defined]
    return types


def _components(template: str) -> tuple[dict[str, Object], dict[str, Object]]:
    types = _types()
    schemas, components = msgspec.json.schema_components(tuple(types.values()), ref_template=template)
    return dict(zip(types, schemas, strict=True)), components


def json_schema() -> Object:
    """Every message as ``$defs/<name>``; a name is an event's or state's ``type``, or ``<Request>.request`` and ``<Request>.outcome``."""
    messages, components = _components("#/$defs/{name}")
    definitions: Object = {**components, **messages}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What may be said on the xenmesh bus",
        "$defs": dict(sorted(definitions.items())),
    }


def _channel(address: str, messages: Iterable[str], text: str) -> Object:
    found = re.findall(r"\{(\w+)\}", address)
    return {
        "address": address,
        "description": text,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "parameters": {name: {"description": _PARAMETERS[name]} for name in found},
    }


def _id(address: str) -> str:
    """A channel's key: the address without braces, which a reference could not hold."""
    return re.sub(r"[{}]", "", address)


def _documentation(kind: type) -> str:
    return " ".join((kind.__doc__ or "").split())


def asyncapi() -> Object:
    """The AsyncAPI 3.0 document of the whole mesh: a channel a subject, an operation a service and channel."""
    schemas, components = _components("#/components/schemas/{name}")
    channels: dict[str, Object] = {}
    operations: dict[str, Object] = {}
    base = subjects.ROOT + ".{host}"

    said: dict[str, list[type[Event]]] = {}
    for kind, address in ADDRESSES.items():
        said.setdefault(address, []).append(kind)
    for address, kinds in said.items():
        text = " ".join(_documentation(kind) for kind in kinds)
        channels[_id(address)] = _channel(f"{base}.{address}", [_name(kind) for kind in kinds], text)
    channels["hb.service"] = _channel(f"{base}.hb.{{service}}", ["heartbeat"], _documentation(Heartbeat))

    for given in DECLARATIONS.values():
        planned = "" if given.built else " (planned)"
        mine: tuple[type[Event], ...] = (*given.events, *given.states, Started, Stopping, Source, ServiceState)
        for key in ("hb.service", *(_id(ADDRESSES[kind]) for kind in mine)):
            operations[f"{given.name}.says.{key}"] = {
                "action": "send",
                "summary": f"{given.name}{planned}: {given.purpose}",
                "channel": {"$ref": f"#/channels/{key}"},
            }
        for verb in given.answers:
            kind_of = "cmd.{user}" if verb.commands else "q"
            address = f"{kind_of}.{given.name}.{verb.name}"
            name = verb.request.__name__
            key = _id(address)
            channels[key] = _channel(f"{base}.{address}", [f"{name}.request"], _documentation(verb.request))
            channels[f"{key}.reply"] = {
                "address": None,
                "description": f"The one outcome of {address}, on the reply subject of the request.",
                "messages": {f"{name}.outcome": {"$ref": f"#/components/messages/{name}.outcome"}},
            }
            operations[f"{given.name}.answers.{verb.name}"] = {
                "action": "receive",
                "summary": f"{given.name}{planned}: {'public' if verb.public else 'operators and services only'}",
                "channel": {"$ref": f"#/channels/{key}"},
                "bindings": {"nats": {"queue": given.name, "bindingVersion": "0.1.0"}},
                "reply": {"channel": {"$ref": f"#/channels/{key}.reply"}},
            }

    messages: Object = {
        name: {"name": name, "contentType": "application/json", "payload": schema} for name, schema in sorted(schemas.items())
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "xenmesh",
            "version": "1",
            "description": "A Xen host as typed, ordered, replayable events and typed requests. Schemas only grow.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "dom0": {
                "host": "127.0.0.1:4222",
                "protocol": "nats",
                "description": "The host's own server, on loopback, with nkeys.",
            }
        },
        "channels": {key: channels[key] for key in sorted(channels)},
        "operations": {key: operations[key] for key in sorted(operations)},
        "components": {"messages": messages, "schemas": dict(sorted(components.items()))},
        "x-error-codes": [
            {
                "code": line.code,
                "number": line.number,
                "whose": line.whose.value,
                "sentence": line.sentence,
                "retry": line.retry,
            }
            for line in CODES.values()
        ],
    }


FILES = {"asyncapi.json": asyncapi, "xenmesh.schema.json": json_schema}
"""What is generated: the file's name, and what makes its content."""


def main(argv: list[str] | None = None) -> int:
    """Write the files, or say which is not current."""
    parser = argparse.ArgumentParser(prog="python -m xenmesh.schemas.asyncapi", description=__doc__)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--write", type=Path, metavar="DIR")
    how.add_argument("--check", type=Path, metavar="DIR")
    given = parser.parse_args(argv)
    stale = []
    for name, make in FILES.items():
        text = msgspec.json.format(msgspec.json.encode(make()), indent=1) + b"\n"
        path = (given.write or given.check) / name
        if given.write:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
        elif not path.exists() or path.read_bytes() != text:
            stale.append(path)
    for path in stale:
        sys.stderr.write(f"{path} is not current: python -m xenmesh.schemas.asyncapi --write {path.parent}\n")
    return 1 if stale else 0


assert set(ADDRESSES) == set(EVENTS.values())  # noqa: S101  a type without a subject cannot be documented

if __name__ == "__main__":  # pragma: no cover
    raise SystemExit(main())
