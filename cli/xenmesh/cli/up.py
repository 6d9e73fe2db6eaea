"""`xenmesh up`: the bus, all services and, where there is no Xen, a simulated host; then the events."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import msgspec

from xenmesh.bus.errors import BusError, ServerDied
from xenmesh.schemas.subjects import DECLARATIONS

from . import numbers, times
from .context import FILE, Mesh, Running, Target, default_dir, open_bus
from .errors import CommandError, NotFound, UsageError
from .exits import Exit
from .output import Mode, Printer, Span, Style
from .output import add_options as add_output
from .place import MARK, absolute, end, ended, hold, leftovers
from .records import mark
from .selection import parse
from .sim import add_sim_options, simulated
from .wait import until_ready
from .watch import Watcher

__all__ = ["DESCRIPTION", "ENDLESS", "EXAMPLES", "options", "run", "xenstore_here"]

DESCRIPTION = """Start a whole mesh in the foreground, without root: nats-server, all services and, where there is no Xen, a simulated host; then
show its events until Ctrl-C, which ends everything it started. The first lines say where to connect, with which keys, and what to try."""

EXAMPLES = """
xenmesh up                                # here and now
xenmesh up --guests 50 --speed 10         # a busier simulated host
xenmesh up --for 20s                      # ends by itself
xenmesh up --sim --server ocaml --seed 7  # simulate, even on Xen; as oxenstored; the same run each time
xenmesh up --quiet                        # no events
"""

ENDLESS = True
_READY = 20.0
"""Seconds that the services have to become ready."""

_END = 10.0
"""Seconds that they have to drain."""


def options(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "--dir",
        metavar="DIR",
        help="where it keeps keys, history and sockets (default: $XDG_RUNTIME_DIR/xenmesh or /tmp/xenmesh-UID)",
    )
    parser.add_argument(
        "--port", type=numbers.port, default=0, metavar="PORT", help="of the bus, on loopback (default: any free one)"
    )
    parser.add_argument("--sim", action="store_true", help="simulate a host, even where there is Xen")
    add_sim_options(parser)
    parser.add_argument("--for", dest="seconds", metavar="TIME", help="end after this time: 20, 20s, 5m")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no events")
    add_output(parser)


def xenstore_here(environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> str:
    """The socket or device by which this host's real xenstored is reached; empty where there is none."""
    if named := environ.get("XENSTORED_PATH"):
        return named
    for socket in ("run/xenstored/socket", "var/run/xenstored/socket"):
        if (root / socket).is_socket():
            return str(root / socket)
    try:
        control = "control_d" in (root / "proc/xen/capabilities").read_text()
    except OSError:
        control = False
    device = root / "dev/xen/xenbus"
    return str(device) if control and device.exists() else ""


async def run(args: argparse.Namespace, out: Printer) -> int:
    """Start, show, and end all."""
    try:
        seconds = times.seconds(args.seconds) if args.seconds else None
    except ValueError as error:
        raise UsageError(str(error)) from None
    if args.guests < 0 or args.speed <= 0:
        raise UsageError("--guests must be 0 or more, --speed above 0")
    directory = absolute(args.dir or default_dir())
    with hold(directory):
        await _clear(directory, out)
        os.environ[MARK] = str(directory)
        async with _running(args, directory, out) as mesh:
            with anyio.move_on_after(seconds):
                await _show(mesh, args, out)
    return Exit.OK


async def _clear(directory: Path, out: Printer) -> None:
    (directory / FILE).unlink(missing_ok=True)
    left = leftovers(directory)
    if not left:
        return
    out.note(f"ending what an earlier run left behind: pid {', '.join(map(str, left))}", Style.WARN)
    end(left)
    if not await anyio.to_thread.run_sync(ended, left, _END):
        pids = " ".join(map(str, leftovers(directory)))
        raise CommandError(f"an earlier run's processes do not end: {pids}", f"kill -9 {pids}, and try again")


@asynccontextmanager
async def _running(args: argparse.Namespace, directory: Path, out: Printer) -> AsyncIterator[Mesh]:
    try:
        from xenmesh.bus.config import Settings
        from xenmesh.bus.server import Server, find_binary, version_of
        from xenmesh.services.daemon.errors import DaemonError
        from xenmesh.services.daemon.hostid import host_id
    except ImportError as error:
        raise NotFound(f"`xenmesh up` needs the package {error.name}", "pip install 'xenmesh-cli[host]'") from None
    state = directory / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    try:
        host = host_id(state)
    except DaemonError as error:
        raise CommandError(error.sentence) from None
    real = "" if args.sim else xenstore_here()
    async with AsyncExitStack() as stack:
        if real:
            story = f"Xen, by {real}"
        else:
            story = await stack.enter_async_context(_simulated(args, directory))
        settings = Settings(directory=str(directory / "bus"), host=host, port=args.port)
        ending = False
        log = directory / "bus/nats-server.log"

        def heard(error: BusError) -> None:
            if ending:
                return
            if isinstance(error, ServerDied):  # its last words may be long, and a client's fault
                out.note(f"nats-server ended with status {error.facts['status']}; it is started again (see {log})", Style.WARN)
            else:
                out.note(f"xenmesh: {error.sentence}", Style.WARN)

        server = await stack.enter_async_context(Server(settings, heard))
        binary = find_binary(settings.binary)
        running = Running(
            url=server.url,
            host=host,
            keys=str(settings.keys),
            xenstore=real or str(directory / "socket"),
            pid=os.getpid(),
            server=".".join(map(str, version_of(binary))),
        )
        services = await stack.enter_async_context(_services(running, directory, out))
        target = Target(server.url, "operator", settings.keys / "operator.nk", host, str(directory))
        mesh = Mesh(await stack.enter_async_context(open_bus(target)), host, target)
        await services.ready(mesh)
        _write(directory / FILE, msgspec.json.encode(running))
        _greet(running, story, directory, services.pid, out)
        try:
            yield mesh
        finally:
            ending = True
            (directory / FILE).unlink(missing_ok=True)
            if out.mode is Mode.TABLE:
                out.note("ending: services, bus, host")


@asynccontextmanager
async def _simulated(args: argparse.Namespace, directory: Path) -> AsyncIterator[str]:
    async with simulated(directory, args) as seed:
        why = "asked for by --sim" if args.sim else "there is no Xen here"
        yield f"simulated ({why}): {args.guests} guests, speed {args.speed:g}, seed {seed}, like {_SERVERS[args.server]}"


_SERVERS = {"c": "C xenstored", "ocaml": "oxenstored"}


def _write(file: Path, data: bytes) -> None:
    draft = file.with_suffix(".new")
    draft.write_bytes(data)
    draft.chmod(0o600)
    draft.replace(file)


class _Services:
    """xenmeshd as a process of its own, so that its memory is what it is in service; started again when it dies, as systemd would."""

    def __init__(self, command: list[str], log: Path, out: Printer) -> None:
        self._command = command
        self._log = log
        self._out = out
        self._process: anyio.abc.Process | None = None
        self._ending = False

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name == MARK or not name.startswith("XENMESH_")}
        environment.pop("NOTIFY_SOCKET", None)
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C is for us, and we end it in its turn.
            self._process = await anyio.open_process(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    async def watch_over(self) -> None:
        deaths = 0
        while True:
            if self._process is None:
                raise AssertionError
            began = anyio.current_time()
            status = await self._process.wait()
            if self._ending:
                return
            deaths = deaths + 1 if anyio.current_time() - began < _END else 1
            if deaths >= 3:
                raise CommandError(
                    f"the services ended with status {status}, {deaths} times in a row: {self._last_words()}",
                    f"see {self._log}",
                )
            self._out.note(
                f"xenmesh: the services ended with status {status} ({self._last_words()}); starting them again", Style.WARN
            )
            await anyio.sleep(0.5 * deaths)
            await self.start()

    async def ready(self, mesh: Mesh) -> None:
        """Until every service takes requests."""
        with anyio.move_on_after(_READY):
            for name, each in DECLARATIONS.items():
                if each.built:
                    await until_ready(mesh, name)
            return
        raise CommandError(f"the services were not ready within {_READY:g} s: {self._last_words()}", f"see {self._log}")

    async def end(self) -> None:
        self._ending = True
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        with anyio.move_on_after(_END):
            await self._process.wait()
            return
        self._process.kill()
        await self._process.wait()

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"


@asynccontextmanager
async def _services(running: Running, directory: Path, out: Printer) -> AsyncIterator[_Services]:
    config = directory / "xenmeshd.toml"
    lines = [
        "# Written by `xenmesh up` at each start.",
        "[mesh]",
        f"host = {_toml(running.host)}",
        f"state = {_toml(str(directory / 'state'))}",
        "[bus]",
        f"url = {_toml(running.url)}",
        f"credentials = {_toml(running.keys)}",
        "[xenstore]",
        f"path = {_toml(running.xenstore)}",
    ]
    _write(config, "\n".join([*lines, ""]).encode())
    command = [sys.executable, "-m", "xenmesh.services.daemon.main", "--config", str(config), "all"]
    services = _Services(command, directory / "xenmeshd.log", out)
    async with anyio.create_task_group() as group:
        try:
            await services.start()
            group.start_soon(services.watch_over)
            yield services
        finally:
            with anyio.CancelScope(shield=True):  # bounded
                await services.end()
            group.cancel_scope.cancel()


def _toml(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _greet(running: Running, story: str, directory: Path, pid: int | None, out: Printer) -> None:
    """What was started, where to connect, with which keys, and what to try next."""
    keys = Path(running.keys)
    operator, view = keys / "operator.nk", keys / "view.nk"
    facts_for_programs = {
        "running": running,
        "directory": str(directory),
        "host": story,
        "services_pid": pid,
        "keys": [str(operator), str(view)],
    }
    out.mark(mark("up", facts_for_programs))
    names = ", ".join(name for name, each in DECLARATIONS.items() if each.built)
    me = _me()
    example = "guest0" if story.startswith("simulated") and ": 0 guests" not in story else "NAME"
    here = "" if directory == default_dir() else f" --dir {shlex.quote(str(directory))}"
    subject = f"xen.v1.{running.host}.evt.>"
    nats = f"nats --server {running.url} --nkey {shlex.quote(str(view))} --inbox-prefix _INBOX.view sub '{subject}'"
    facts = [
        ("bus", f"nats-server {running.server} at {running.url}"),
        ("services", f"{names} (xenmeshd, pid {pid})"),
        ("host", story),
        ("host id", running.host),
        ("keys", f"{operator}   may ask and hear everything"),
        ("", f"{view}       hears evt, state and tele, asks public queries"),
        ("logs", f"{directory}/xenmeshd.log, {directory}/bus/nats-server.log"),
    ]
    tries = [
        (f"{me} watch --snapshot{here}", "what is, then what happens"),
        (f"{me} store ls -r /local/domain{here}", "the domains' trees"),
        (f"{me} services{here}", "who is on the bus"),
        (f"{me} wait domain {example}{here}", "until a domain runs"),
        (f"XENSTORED_PATH={shlex.quote(running.xenstore)} xenstore-ls -f", "any xenstore program"),
        (nats, "any NATS client, read only"),
    ]
    version = importlib.metadata.version("xenmesh-cli")
    out.text((Span(f"xenmesh {version}", Style.BOLD), f" runs in {directory}; Ctrl-C ends all of it."))
    out.text()
    for head, text in facts:
        out.text(("  ", Span(head, Style.KEY, 10), text))
    out.text()
    out.text((Span("Try, in another terminal:", Style.BOLD),))
    for command, what in tries:
        out.text((Span(f"  # {what}", Style.DIM),))
        out.text((f"  {command}",))
    out.text()


def _me() -> str:
    """How to call this program again."""
    called = shutil.which("xenmesh")
    given = Path(sys.argv[0]).absolute()
    return "xenmesh" if called and Path(called).resolve() == given.resolve() else shlex.quote(str(given))


async def _show(mesh: Mesh, args: argparse.Namespace, out: Printer) -> None:
    if args.quiet:
        await anyio.sleep_forever()
    out.text((Span("Events:", Style.BOLD),))
    try:
        await Watcher(mesh, parse(""), out).watch()
    finally:
        out.cut = False  # what the view missed is told there; the mesh itself ends well
