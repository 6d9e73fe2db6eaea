"""The whole mesh as it runs in Dom0: xenstored, nats-server and xenmeshd, each a process of its own that can be killed.

Not a test: `from mesh.running import ...`; tests/ is on the path.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
from anyio import to_thread
from rigs.waiting import eventually
from rigs.xenstored import Xenstored

from xenmesh.bus.config import Settings
from xenmesh.bus.consumer import ask
from xenmesh.bus.errors import BusError
from xenmesh.bus.keys import key_file
from xenmesh.bus.nats import NatsBus, connect
from xenmesh.bus.server import Server
from xenmesh.schemas.request import Barrier, Position

__all__ = ["HOST", "Mesh", "X", "run_mesh"]

HOST = "h1"
X = f"xen.v1.{HOST}"


class Mesh:
    """A mesh over the xenstored at ``socket``. `run_mesh` makes one."""

    def __init__(self, socket_: Path, server: Server, directory: Path, settings: str) -> None:
        self.socket = socket_
        self.server = server
        self.directory = directory
        self._config = directory / "mesh.toml"
        self._config.write_text(
            f'[mesh]\nhost = "{HOST}"\nstate = "{directory}"\nlog = "warning"\n'
            f'[bus]\nurl = "{server.url}"\ncredentials = "{server.settings.keys}"\n'
            f'[xenstore]\npath = "{socket_}"\n{settings}\n'
        )
        self._log = directory / "xenmeshd.log"
        self._services: subprocess.Popen[bytes] | None = None
        self._notify: socket.socket | None = None

    @property
    def log(self) -> str:
        """What xenmeshd said, in all its lives."""
        return self._log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        """xenmeshd has not ended."""
        return self._services is not None and self._services.poll() is None

    @asynccontextmanager
    async def bus(self, user: str = "operator") -> AsyncIterator[NatsBus]:
        """A connection of that user."""
        seed = key_file(self.server.settings.keys, user)
        async with connect(self.server.url, user=user, host=HOST, seed=seed) as bus:
            yield bus

    async def barrier(self, bus: NatsBus, owner: str = "store.>") -> Position:
        """Pass the store service's barrier, tried until there is an answer: what was asked may just have been killed."""
        with anyio.fail_after(20):
            while True:
                try:
                    return await ask(bus, HOST, "store", "barrier", Barrier(owner=owner), Position, timeout=10)
                except BusError:
                    await anyio.sleep(0.02)

    # -- the services

    async def start_services(self) -> None:
        """Run ``xenmeshd all``; returns when it tells systemd that it is ready."""
        self._launch()
        await eventually(self._is_ready, "xenmeshd to be ready", within=30)

    def _launch(self) -> None:
        notify = self.directory / "notify"
        notify.unlink(missing_ok=True)
        self._forget_notify()
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._notify.bind(str(notify))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("XENMESH_", "XENSTORED_"))}
        with self._log.open("ab") as log:
            self._services = subprocess.Popen(
                [sys.executable, "-m", "xenmesh.services.daemon.main", "--config", self._config, "all"],
                env={**kept, "NOTIFY_SOCKET": str(notify)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _is_ready(self) -> bool:
        assert self.alive, self.log
        assert self._notify is not None
        with suppress(BlockingIOError):
            while True:
                if b"READY=1" in self._notify.recv(4096):
                    return True
        return False

    def _forget_notify(self) -> None:
        if self._notify is not None:
            self._notify.close()
            self._notify = None

    async def kill_services(self) -> None:
        """SIGKILL, and a new start."""
        self._end(signal.SIGKILL)
        await self.start_services()

    def end_services(self) -> int:
        """SIGTERM; the exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        if self._services is None:
            return 0
        self._services.send_signal(number)
        try:
            return self._services.wait(20)
        except subprocess.TimeoutExpired:
            self._services.kill()
            self._services.wait()
            raise
        finally:
            self._services = None
            self._forget_notify()

    # -- the bus

    async def kill_bus(self) -> None:
        """SIGKILL; `Server` starts it again, and it is provisioned before this returns."""
        assert self.server.pid is not None
        before = self.server.provisions
        os.kill(self.server.pid, signal.SIGKILL)
        await eventually(lambda: self.server.provisions > before, "nats-server to be back", within=30)


async def kill_xenstored(xenstored: Xenstored) -> None:
    """SIGKILL, and a new start, empty."""
    xenstored.kill()
    await to_thread.run_sync(xenstored.start)


@asynccontextmanager
async def run_mesh(xenstored: Path, settings: str = "") -> AsyncIterator[Mesh]:
    """The mesh over the xenstored at that socket, ready; ended in an orderly way. ``settings``: more TOML for xenmeshd."""
    with tempfile.TemporaryDirectory(prefix="xm-mesh-", dir="/tmp") as name:
        directory = Path(name)
        async with Server(Settings(directory=str(directory / "bus"), host=HOST, port=0)) as server:
            mesh = Mesh(xenstored, server, directory, settings)
            try:
                await mesh.start_services()
                yield mesh
            finally:
                status = mesh.end_services()
        assert status == 0, mesh.log
