"""What may be set, from files, the environment and systemd's credentials, in frozen Structs.

    /etc/xenmesh/*.toml, then /etc/xenmesh/conf.d/*.toml     each in order of name; or what --config names, in its order, instead
    XENMESH_<SECTION>_<KEY>                                  over the files
    $CREDENTIALS_DIRECTORY/<service>.nk                      the nkey seeds of the services (LoadCredential=)

A key stands in a section: ``[mesh]``, ``[bus]``, ``[xenstore]``, and one for each service. The last one who sets a key wins. What nobody
may set, or not to that value, is an error that names the file, the key, and what may be there; nothing starts on half of a configuration.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, cast

import msgspec

from xenmesh.schemas.subjects import DECLARATIONS

from .errors import ConfigError, CredentialError
from .hostid import host_id

__all__ = [
    "DIRECTORY",
    "SERVICES",
    "BusConfig",
    "Config",
    "MeshConfig",
    "Value",
    "XenstoreConfig",
    "credential",
    "find_files",
    "load",
    "show",
    "well",
]

DIRECTORY = Path("/etc/xenmesh")

SERVICES = tuple(name for name, declared in DECLARATIONS.items() if declared.built)
"""The services that there are."""

_Host = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{0,64}$", description="letters, digits, '-' and '_', at most 64 characters")
]


class MeshConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[mesh]``: what all services of the host share."""

    host: _Host = ""
    """The host's id. Empty: one made at the first start and kept in ``state``. Never the hostname."""

    state: str = "/var/lib/xenmesh"
    """The directory of what must outlive the process."""

    log: Literal["debug", "info", "warning", "error"] = "info"
    """The least level of message that is logged."""


class BusConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[bus]``: how the bus is reached."""

    url: Annotated[
        str,
        msgspec.Meta(pattern=r"^(nats|tls)://[^\s/@]+:\d+$", description="nats://<address>:<port>, without user or password"),
    ] = "nats://127.0.0.1:4222"

    credentials: str = ""
    """The directory of the nkey seeds, ``<service>.nk`` each. Empty: ``$CREDENTIALS_DIRECTORY``."""

    wait: Annotated[float, msgspec.Meta(gt=0, le=600)] = 60.0
    """Seconds to wait for the bus at the start; after that it may be away for as long as it likes."""


class XenstoreConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[xenstore]``: how xenstored is reached."""

    path: str = ""
    """Its socket or device. Empty: where libxenstore looks (``$XENSTORED_PATH``, the socket in ``/run/xenstored``, ``/dev/xen/xenbus``)."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, for one process."""

    mesh: MeshConfig
    bus: BusConfig
    xenstore: XenstoreConfig
    services: dict[str, msgspec.Struct]
    """By service: its own ``<Name>Config``. Only the services asked for."""

    files: tuple[Path, ...]
    """Those that were read, in their order."""

    origins: dict[str, str]
    """By ``section.key``: who set it. What is missing stands at its default."""

    def host(self) -> str:
        """The host's id, configured or kept; raises `errors.HostIdError`."""
        return self.mesh.host or host_id(Path(self.mesh.state))


class Value(NamedTuple):
    """What was set, and by whom; ``text``: it came as text from the environment and is yet to be understood."""

    value: object
    origin: str
    text: bool = False


_SECTIONS: dict[str, type[msgspec.Struct]] = {"mesh": MeshConfig, "bus": BusConfig, "xenstore": XenstoreConfig}


def find_files(directory: Path = DIRECTORY) -> list[Path]:
    """The files that count in ``directory``, in the order in which they are read."""
    return [*sorted(directory.glob("*.toml")), *sorted((directory / "conf.d").glob("*.toml"))]


def load(
    names: Iterable[str],
    files: Iterable[Path] | None = None,
    environment: Mapping[str, str] = os.environ,
    *,
    whole: bool = False,
) -> Config:
    """The configuration for the services ``names``. ``files``: read these (a directory stands for the files in it) instead of `DIRECTORY`.
    ``whole``: look at the sections of services that were not asked for as well.

    Raises:
        ConfigError: naming where, the key, and what may be there.
    """
    wanted = tuple(names)
    found: dict[str, dict[str, Value]] = {}
    read = tuple(find_files() if files is None else _expand(files))
    for file in read:
        _add(found, _read(file))
    _add(found, _from_environment(environment))
    sections = _SECTIONS | {name: _service_config(name) for name in (SERVICES if whole else wanted)}
    made = {name: _section(name, kind, found.get(name, {})) for name, kind in sections.items()}
    return Config(
        mesh=cast("MeshConfig", made["mesh"]),
        bus=cast("BusConfig", made["bus"]),
        xenstore=cast("XenstoreConfig", made["xenstore"]),
        services={name: made[name] for name in wanted},
        files=read,
        origins={f"{section}.{key}": value.origin for section, keys in found.items() for key, value in keys.items()},
    )


def credential(config: BusConfig, service: str, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The file of the service's nkey seed; None where none is configured (a bus without users, in a test).

    Raises:
        CredentialError: a directory is configured and holds no key for this service.
    """
    directory, where = config.credentials, "[bus] credentials"
    if not directory:
        directory, where = environment.get("CREDENTIALS_DIRECTORY", ""), "$CREDENTIALS_DIRECTORY"
    if not directory:
        return None
    file = Path(directory, f"{service}.nk")
    if not os.access(file, os.R_OK):
        lack = "may not be read" if file.exists() else "is not there"
        raise CredentialError(
            str(file), "", f"{lack}; {where} must hold the nkey seed of the service {service}, which the bus makes at its start"
        )
    return file


def show(config: Config) -> str:
    """The configuration in force as TOML, with who set each key."""
    lines = []
    sections: dict[str, msgspec.Struct] = {
        "mesh": config.mesh,
        "bus": config.bus,
        "xenstore": config.xenstore,
        **config.services,
    }
    for name, section in sections.items():
        lines.append(f"[{name}]")
        for key in section.__struct_fields__:
            origin = config.origins.get(f"{name}.{key}", "default")
            lines.append(f"{key} = {_toml(getattr(section, key))}  # {origin}")
        lines.append("")
    return "\n".join(lines)


def _toml(value: object) -> str:
    # JSON's strings, numbers, booleans and lists are TOML's as well; a key without value cannot be said in TOML.
    return '""' if value is None else msgspec.json.encode(value).decode()


def _expand(files: Iterable[Path]) -> Iterator[Path]:
    for file in files:
        yield from find_files(file) if file.is_dir() else [file]


def _read(file: Path) -> dict[str, dict[str, Value]]:
    try:
        parsed = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(str(file), "", f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(file), "", f"is not UTF-8: {error.reason} at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(file), "", f"is not TOML: {error}") from error
    found: dict[str, dict[str, Value]] = {}
    for name, keys in parsed.items():
        _check_section(str(file), name)
        if not isinstance(keys, dict):
            raise ConfigError(str(file), name, f"is a section: write [{name}] and keys under it")
        found[name] = {key: Value(value, str(file)) for key, value in keys.items()}
    return found


def _from_environment(environment: Mapping[str, str]) -> dict[str, dict[str, Value]]:
    found: dict[str, dict[str, Value]] = {}
    for variable in sorted(environment):
        start, _, rest = variable.partition("_")
        section, _, key = rest.lower().partition("_")
        # Other programs of ours have variables of their own (XENMESH_RIGS): one word is no section with a key.
        if start == "XENMESH" and key and section in (*_SECTIONS, *DECLARATIONS):
            found.setdefault(section, {})[key] = Value(environment[variable], f"${variable}", text=True)
    return found


def _add(found: dict[str, dict[str, Value]], more: dict[str, dict[str, Value]]) -> None:
    for name, keys in more.items():
        found.setdefault(name, {}).update(keys)


def _check_section(where: str, name: str) -> None:
    allowed = (*_SECTIONS, *DECLARATIONS)
    if name not in allowed:
        raise ConfigError(
            where, f"[{name}]", f"there is no such section{_meant(name, allowed)}; there are: {', '.join(allowed)}"
        )


def _service_config(name: str) -> type[msgspec.Struct]:
    module = importlib.import_module(f"xenmesh.services.{name}.config")
    return cast("type[msgspec.Struct]", getattr(module, f"{name.title()}Config"))


def _section(name: str, kind: type[msgspec.Struct], keys: dict[str, Value]) -> msgspec.Struct:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    values: dict[str, object] = {}
    for key, given in keys.items():
        if key not in fields:
            raise ConfigError(
                given.origin,
                f"[{name}] {key}",
                f"there is no such key{_meant(key, fields)}; there are: {', '.join(fields) or 'none'}",
            )
        values[key] = _value(name, key, fields[key].type, given)
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:  # a rule over several keys, in the Struct's __post_init__
        origins = ", ".join(dict.fromkeys(value.origin for value in keys.values())) or "the defaults"
        raise ConfigError(origins, f"[{name}]", str(error)) from error


def _value(section: str, key: str, kind: object, given: Value) -> object:
    candidates = [given.value]
    if given.text:  # a string, a number, or anything else as TOML has it: '["a", "b"]'
        with contextlib.suppress(tomllib.TOMLDecodeError):
            candidates.append(tomllib.loads(f"value = {given.value}")["value"])
    for candidate in candidates:
        try:
            return msgspec.convert(candidate, kind, strict=not given.text)
        except msgspec.ValidationError:
            continue
    raise ConfigError(given.origin, f"[{section}] {key}", f"{given.value!r} cannot be; it must be {well(kind)}")


def _meant(word: str, allowed: Iterable[str]) -> str:
    import difflib  # needed for an error alone

    near = difflib.get_close_matches(word, list(allowed), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def well(kind: object) -> str:
    """In words, what a value of the type ``kind`` looks like: ``a number above 0, at most 600``."""
    from msgspec import inspect  # needed for an error alone

    return _words(inspect.type_info(kind))


def _words(info: object) -> str:
    from msgspec import inspect

    match info:
        case inspect.Metadata(type=inner, extra_json_schema=schema):
            description = (schema or {}).get("description")
            return str(description) if description else _words(inner)
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(f'"{value}"' for value in values)
        case inspect.EnumType(cls=cls):
            return "one of " + ", ".join(f'"{member.value}"' for member in cls)
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "a whole number" + _bounds(info)
        case inspect.FloatType():
            return "a number" + _bounds(info)
        case inspect.StrType(pattern=pattern):
            return "a string" + (f" that matches {pattern}" if pattern else "")
        case inspect.NoneType():
            return "nothing"
        case inspect.UnionType(types=types):
            return " or ".join(_words(each) for each in types)
        case inspect.DictType(value_type=value):
            return f"a table, each value {_words(value)}"
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item) | inspect.FrozenSetType(item_type=item):
            return f"a list, each item {_words(item)}"
        case _:
            return f"a {type(info).__name__.removesuffix('Type').lower()}"


def _bounds(info: object) -> str:
    names = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    bounds = [f"{word} {value}" for name, word in names.items() if (value := getattr(info, name)) is not None]
    return f", {', '.join(bounds)}" if bounds else ""
