"""How a command finds the mesh: where the bus is, with which key, and which host is meant.

In this order: ``--url``; ``--context`` (the NATS CLI's own); ``--dir`` or ``$XENMESH_DIR``; the directory where `xenmesh up` runs by default; then
those of the host's own units, `SYSTEM`. A directory of a running mesh holds `FILE`, which `xenmesh up` writes and removes, or is that of a bus,
with its configuration and the keys of its users.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from .discovery import discover
from .errors import CommandError, NoMesh, NotAllowed, NotFound, UsageError

if TYPE_CHECKING:
    import argparse

    from xenmesh.bus.abc import Bus

__all__ = [
    "FILE",
    "SYSTEM",
    "Mesh",
    "Running",
    "Target",
    "add_options",
    "connect",
    "default_dir",
    "find",
    "read_running",
    "trusted",
]

FILE = "mesh.json"
"""Its name in the directory of a running mesh."""

SYSTEM = (Path("/run/xenmesh"), Path("/var/lib/xenmesh-bus"))
"""Where a host's own mesh is found: a file `FILE` put there for its users, and the directory of the unit xenmesh-bus."""

_CONFIG = "nats.conf"

OPERATOR, VIEW = "operator", "view"


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What `FILE` says: all that one needs to connect."""

    url: str
    host: str
    """The host's id."""

    keys: str
    """The directory of the users' nkey seeds: ``operator.nk``, ``view.nk``."""

    xenstore: str = ""
    """Socket or device of the xenstored that is watched."""

    pid: int = 0
    """Of the ``xenmesh up`` that wrote it; 0: a service manager's."""

    server: str = ""
    """Of the nats-server: its version."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, as whom, and how that was found."""

    url: str
    user: str
    key: Path | None
    """File of the user's nkey seed."""

    host: str | None
    """None: the only host on that bus."""

    source: str
    """The directory that told, or the option."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """A connection, ready for use."""

    bus: Bus
    host: str
    target: Target


def default_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Where `xenmesh up` runs when it is not told: ``$XDG_RUNTIME_DIR/xenmesh``, else ``/tmp/xenmesh-<uid>``: short, for sockets' paths."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    return Path(runtime, "xenmesh") if runtime and Path(runtime).is_dir() else Path(f"/tmp/xenmesh-{os.getuid()}")  # noqa: S108 - 0700, and checked


def trusted(directory: Path) -> bool:
    """Whether the directory is this user's (or root's) alone to write, so that nobody else can have put a mesh there."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid in (os.getuid(), 0) and not found.st_mode & 0o022


def _holds_mesh(directory: Path) -> bool:
    try:
        return (directory / FILE).exists() or (directory / _CONFIG).exists()
    except PermissionError:
        return True  # there is one, and it is not for this user: which is to be said


def read_running(directory: Path) -> Running:
    """What runs in ``directory``: as `FILE` says, or, in the directory of a bus alone, its configuration.

    Raises:
        FileNotFoundError: nothing does.
        NotAllowed: this user may not look.
        CommandError: what is there cannot be read.
    """
    file = directory / FILE
    try:
        try:
            return msgspec.json.decode(file.read_bytes(), type=Running)
        except FileNotFoundError:
            file = directory / _CONFIG
            return _from_config(directory, file.read_text())
    except FileNotFoundError:
        raise
    except PermissionError:
        raise NotAllowed(
            f"a mesh runs in {directory}, and is not for this user",
            "sudo xenmesh ..., or a key of your own: --url URL --creds FILE",
        ) from None
    except (OSError, ValueError) as error:
        raise CommandError(f"{file} cannot be read: {error}", "xenmesh doctor") from None


def _from_config(directory: Path, text: str) -> Running:
    host = re.search(r'^server_name: "xen-([A-Za-z0-9_-]+)"', text, re.MULTILINE)
    listen = re.search(r'^listen: "([^"]+):(-?\d+)"', text, re.MULTILINE)
    if host is None or listen is None:
        raise ValueError("it was not written by xenmesh.bus.server")
    address = f"{listen[1]}:{listen[2]}"
    if listen[2] == "-1":  # any free port: the server wrote down which
        ports = next(directory.glob("*.ports"))
        address = msgspec.json.decode(ports.read_bytes(), type=dict[str, list[str]])["nats"][0].removeprefix("nats://")
    return Running(url=f"nats://{address}", host=host[1], keys=str(directory / "keys"))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that connects."""
    group = parser.add_argument_group("where to connect")
    group.add_argument(
        "--dir", metavar="DIR", help="the directory of a running mesh (default: $XENMESH_DIR, `up`'s own, the host's own)"
    )
    group.add_argument("--url", metavar="URL", help="the bus itself, e.g. nats://127.0.0.1:4222")
    group.add_argument("--creds", metavar="FILE", help="file of the user's nkey seed")
    group.add_argument("--context", metavar="NAME", help="a context of the NATS CLI: its url and nkey")
    group.add_argument(
        "--user", choices=[OPERATOR, VIEW], metavar="USER", help="operator (default where its key may be read) or view"
    )
    group.add_argument("--host", metavar="ID", help="the host's id, where the bus has more than one")


def find(args: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> Target:
    """The mesh that the options and the environment name.

    Raises:
        NoMesh: none is named and none runs in the usual places.
        NotAllowed: no key of it may be read.
        UsageError, CommandError: what was named cannot be.
    """
    creds = Path(args.creds) if args.creds else None
    if creds is not None and not creds.is_file():
        raise NotFound(f"there is no file {creds} (--creds)")
    if args.url:
        return Target(
            args.url,
            args.user or (creds.stem if creds and creds.stem in (OPERATOR, VIEW) else OPERATOR),
            creds,
            args.host,
            "--url",
        )
    if args.context:
        return _from_context(args.context, creds, args.user, args.host, environ)
    named = args.dir or environ.get("XENMESH_DIR")
    if named:
        return _from_dir(Path(named).absolute(), args.user, creds, args.host)
    own = default_dir(environ)
    for directory in (own, *SYSTEM):
        if (directory != own or trusted(own)) and _holds_mesh(directory):
            return _from_dir(directory, args.user, creds, args.host)
    raise NoMesh("no mesh runs here", "start one: xenmesh up      or name one: --dir DIR, --url URL")


def _from_dir(directory: Path, user: str | None, creds: Path | None, host: str | None) -> Target:
    try:
        running = read_running(directory)
    except FileNotFoundError:
        raise NoMesh(f"no mesh runs in {directory}", f"start one: xenmesh up --dir {directory}") from None
    keys = Path(running.keys)
    if creds is not None:
        return Target(running.url, user or creds.stem, creds, host or running.host, str(directory))
    for name in (user,) if user else (OPERATOR, VIEW):
        key = keys / f"{name}.nk"
        if os.access(key, os.R_OK):
            return Target(running.url, name, key, host or running.host, str(directory))
    wanted = f"{user}.nk" if user else f"{OPERATOR}.nk nor {VIEW}.nk"
    raise NotAllowed(f"this user may read {'no' if user else 'neither'} {wanted} in {keys}", "xenmesh doctor")


class _Context(msgspec.Struct, frozen=True):
    url: str = ""
    nkey: str = ""


def _from_context(name: str, creds: Path | None, user: str | None, host: str | None, environ: Mapping[str, str]) -> Target:
    home = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "/"), ".config"))
    folder = home / "nats" / "context"
    if "/" in name:
        raise UsageError(f"{name!r} is not the name of a context")
    try:
        found = msgspec.json.decode((folder / f"{name}.json").read_bytes(), type=_Context)
    except FileNotFoundError:
        there = ", ".join(sorted(file.stem for file in folder.glob("*.json"))) or "none"
        raise NotFound(f"the NATS CLI has no context {name}; there are: {there}", f"they lie in {folder}") from None
    except (OSError, msgspec.DecodeError) as error:
        raise CommandError(f"the context {name} cannot be read: {error}") from None
    key = creds or (Path(found.nkey).expanduser() if found.nkey else None)
    return Target(
        found.url or "nats://127.0.0.1:4222",
        user or (VIEW if key and key.stem == VIEW else OPERATOR),
        key,
        host,
        f"context {name}",
    )


@asynccontextmanager
async def connect(args: argparse.Namespace) -> AsyncIterator[Mesh]:
    """A connection to the mesh that the options name.

    Raises:
        CommandError: as `find`, and where the host must be named.
        xenmesh.bus.errors.BusError: there is no connection.
    """
    target = find(args)
    async with open_bus(target) as bus:
        yield Mesh(bus, target.host or await _only_host(bus), target)


@asynccontextmanager
async def open_bus(target: Target, *, deadline: float = 5.0) -> AsyncIterator[Bus]:
    """The bus itself, closed at the end; raises `xenmesh.bus.errors.BusError`."""
    from xenmesh.bus.nats import connect as connect_nats

    async with connect_nats(target.url, user=target.user, seed=target.key, host=target.host or "*", deadline=deadline) as bus:
        yield bus


async def _only_host(bus: Bus) -> str:
    hosts = {found.host for found in await discover(bus)} - {""}
    if len(hosts) == 1:
        return hosts.pop()
    if not hosts:
        raise NoMesh("no service of the mesh answers on this bus, so its host is not known", "name it: --host ID")
    raise UsageError(f"there are {len(hosts)} hosts on this bus: {', '.join(sorted(hosts))}", "name one: --host ID")
