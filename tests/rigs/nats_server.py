"""A bare nats-server for tests of components; a whole bus is `xenmesh.bus.server`'s business."""

import json
import shutil
import socket
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from rigs.waiting import wait_until

__all__ = ["NatsServer", "nats_server"]


def _binary() -> str:
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    if found is None:
        raise RuntimeError("no nats-server beside this Python: install requirements/test.txt")
    return found


class NatsServer:
    """One server on loopback with its own folder; it keeps its port and its streams over restarts.

    ``config`` is text added to its configuration file: accounts, limits, ...
    """

    def __init__(self, directory: Path, config: str = "", *, jetstream: bool = True) -> None:
        self.directory = directory
        self.port = -1
        """Chosen by the server at its first start."""
        self._config = config
        self._jetstream = jetstream
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running server. Raises RuntimeError where none runs."""
        return self._running().pid

    @property
    def log(self) -> str:
        """All that the server has said, of every start."""
        return (self.directory / "server.log").read_text(errors="replace")

    def start(self) -> None:
        """Run it; returns when it greets a client.

        Raises RuntimeError with the server's last words where it does not come up.
        """
        if self._process is not None:
            raise RuntimeError("it runs already: kill() or stop() it first")
        self.directory.mkdir(parents=True, exist_ok=True)
        for old in self.directory.glob("*.ports"):
            old.unlink()
        file = self.directory / "server.conf"
        lines = ['host: "127.0.0.1"', f"port: {self.port}", f'ports_file_dir: "{self.directory}"']
        if self._jetstream:
            lines.append(f'jetstream {{ store_dir: "{self.directory / "jetstream"}" }}')
        file.write_text("\n".join([*lines, self._config, ""]))
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen([_binary(), "-c", file], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_until(self._greets, "nats-server to greet a client")
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        process = self._running()
        process.kill()
        process.wait()
        self._process = None

    def stop(self) -> None:
        """End it in an orderly way where it runs."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self.kill()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("it does not run: start() it first")
        return self._process

    def _greets(self) -> bool:
        if self._running().poll() is not None:
            raise RuntimeError(f"nats-server did not start: {self.log.strip()}")
        if self.port < 0 and not self._learn_port():
            return False
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
                return client.recv(4) == b"INFO"
        except OSError:
            return False

    def _learn_port(self) -> bool:
        for file in self.directory.glob(f"*_{self.pid}.ports"):
            try:
                self.port = int(json.loads(file.read_text())["nats"][0].rsplit(":", 1)[1])
            except ValueError:  # half written
                return False
        return self.port > 0


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[Callable[..., NatsServer]]:
    """``nats_server(config="", jetstream=True)`` runs one more server of this test's own."""
    servers: list[NatsServer] = []

    def run(config: str = "", *, jetstream: bool = True) -> NatsServer:
        server = NatsServer(tmp_path / f"nats-{len(servers)}", config, jetstream=jetstream)
        servers.append(server)
        server.start()
        return server

    yield run
    for server in servers:
        server.stop()
