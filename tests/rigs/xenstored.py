"""The real xenstored, C's and OCaml's, without any Xen: killable and restartable."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import pytest
from rigs.waiting import wait_until

__all__ = ["Kind", "Xenstored", "run_xenstored", "xenstored", "xenstored_c", "xenstored_ocaml"]

Kind = Literal["c", "ocaml"]
_SCRIPT = Path(__file__).with_name("xenstored-local")


class Xenstored:
    """One daemon in one folder. It starts empty each time, as after a crash in Dom0."""

    def __init__(self, kind: Kind, directory: Path) -> None:
        self.kind: Kind = kind
        self.directory = directory
        self.socket = directory / "socket"
        """A client's XENSTORED_PATH; on it one is domain 0."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running daemon. Raises RuntimeError where none runs."""
        return self._running().pid

    @property
    def env(self) -> dict[str, str]:
        """The environment in which xenstore programs find this daemon."""
        return {**os.environ, "XENSTORED_PATH": str(self.socket)}

    def start(self) -> None:
        """Run the daemon, empty, at the same path; returns when it accepts connections.

        Raises RuntimeError with the daemon's last words where it does not come up.
        """
        if self._process is not None:
            raise RuntimeError("it runs already: kill() or stop() it first")
        flags = ["-o", "-f"] if self.kind == "ocaml" else ["-f"]
        with (self.directory / "out.log").open("wb") as log:
            self._process = subprocess.Popen(
                [_SCRIPT, *flags, self.directory],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(self._answers, f"xenstored ({self.kind}) to accept a connection")
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL: the store's contents are gone, clients see end of file."""
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

    def event(self, line: str) -> None:
        """Tell it what the hypervisor would: ``shutdown 5``, ``destroy 5``, ``create 5``, ``kick 5``."""
        self._running()
        pipe = os.open(self.directory / "event", os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(pipe, line.encode() + b"\n")
        finally:
            os.close(pipe)

    def tool(self, name: str, *arguments: str) -> str:
        """What ``xenstore-NAME ARGUMENTS`` prints (rig xenstore-utils).

        Raises subprocess.CalledProcessError where it fails.
        """
        done = subprocess.run(
            [f"xenstore-{name}", *arguments],
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        return done.stdout

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("it does not run: start() it first")
        return self._process

    def _answers(self) -> bool:
        if self._running().poll() is not None:
            said = (self.directory / "out.log").read_text(errors="replace").strip()
            raise RuntimeError(f"xenstored ({self.kind}) did not start: {said}")
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.socket)) == 0


@contextmanager
def run_xenstored(kind: Kind) -> Iterator[Xenstored]:
    """A daemon running in a short folder of its own, ended and removed on leaving."""
    directory = Path(tempfile.mkdtemp(prefix="xm-xs-", dir="/tmp"))
    daemon = Xenstored(kind, directory)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.stop()
        shutil.rmtree(directory)


@pytest.fixture(
    params=[
        pytest.param("c", marks=pytest.mark.rig("xenstored")),
        pytest.param("ocaml", marks=pytest.mark.rig("oxenstored")),
    ]
)
def xenstored(request: pytest.FixtureRequest) -> Iterator[Xenstored]:
    """A running, empty xenstored of this test's own: once C's, once OCaml's."""
    with run_xenstored(request.param) as daemon:
        yield daemon


@pytest.fixture
def xenstored_c() -> Iterator[Xenstored]:
    """A running, empty C xenstored."""
    with run_xenstored("c") as daemon:
        yield daemon


@pytest.fixture
def xenstored_ocaml() -> Iterator[Xenstored]:
    """A running, empty oxenstored."""
    with run_xenstored("ocaml") as daemon:
        yield daemon
