"""A mesh to measure: a real nats-server, ``xenmeshd`` in a process of its own, a real C xenstored."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from xenmesh.bus.config import Settings
from xenmesh.bus.keys import key_file
from xenmesh.bus.nats import NatsBus, connect
from xenmesh.bus.server import Server

from .floor import HEADER, exactly, frame

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from rigs.xenstored import Xenstored, run_xenstored

__all__ = ["HOST", "Mesh", "Writer", "child", "run_mesh", "store"]

HOST = "bench"
WRITE = 11


class Writer:
    """Writes to xenstored as fast as a blocking socket allows."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))

    def start(self, path: str, value: bytes) -> int:
        """Send one write; returns the clock just before. Its answer is taken by `finish`."""
        data = frame(WRITE, path.encode() + b"\0" + value)
        sent = time.monotonic_ns()
        self._socket.sendall(data)
        return sent

    def finish(self) -> None:
        """Take the answer of one write."""
        op, _, _, size = HEADER.unpack(exactly(self._socket, HEADER.size))
        payload = exactly(self._socket, size)
        if op != WRITE:
            raise SystemExit(f"xenstored refused a write: {payload!r}")

    def write_all(self, pairs: Iterable[tuple[str, bytes]], window: int = 64) -> int:
        """Write them with ``window`` under way at a time; returns the clock before the first."""
        began = time.monotonic_ns()
        under_way = 0
        for path, value in pairs:
            self.start(path, value)
            under_way += 1
            if under_way == window:
                self.finish()
                under_way -= 1
        for _ in range(under_way):
            self.finish()
        return began


class Mesh:
    """What runs."""

    def __init__(self, server: Server, daemon: asyncio.subprocess.Process, xenstored: Xenstored) -> None:
        self.server = server
        self.daemon = daemon
        self.xenstored = xenstored
        self.writer = Writer(xenstored.socket)

    @asynccontextmanager
    async def bus(self, user: str = "operator") -> AsyncIterator[NatsBus]:
        """A connection of that user."""
        async with connect(self.server.url, user=user, host=HOST, seed=key_file(self.server.settings.keys, user)) as bus:
            yield bus


def populate(writer: Writer, domains: int, keys: int) -> None:
    """Domains 1 to ``domains`` with ``keys`` nodes each, as libxl and a guest would have them: short values, three levels.

    They are not introduced: C xenstored looks at the ring of each introduced domain at every turn, which would be most of what is measured.
    """
    uuid = "00000000-0000-4000-8000-{:012d}"
    for domid in range(1, domains + 1):
        base = f"/local/domain/{domid}"
        pairs = [(f"{base}/vm", f"/vm/{uuid.format(domid)}".encode()), (f"{base}/name", b"guest-%d" % domid)]
        pairs += [(f"{base}/data/key{n}", b"value of key %d" % n) for n in range(keys - 3)]
        writer.write_all(pairs)


@contextmanager
def store() -> Iterator[Xenstored]:
    """A running C xenstored."""
    with run_xenstored("c") as daemon:
        yield daemon


async def _ready(notify: socket.socket, daemon: asyncio.subprocess.Process) -> None:
    while daemon.returncode is None:
        try:
            if b"READY=1" in await asyncio.wait_for(asyncio.get_running_loop().sock_recv(notify, 4096), 1):
                return
        except TimeoutError:
            continue
    raise SystemExit(f"xenmeshd ended with status {daemon.returncode} before it was ready")


@asynccontextmanager
async def run_mesh(xenstored: Xenstored, *, settings: str = "") -> AsyncIterator[Mesh]:
    """The whole mesh over that xenstored, ready."""
    with tempfile.TemporaryDirectory(prefix="xm-bench-", dir="/tmp") as directory:
        bus = Settings(directory=f"{directory}/bus", host=HOST, port=0)
        async with Server(bus) as server:
            config = Path(directory, "mesh.toml")
            config.write_text(
                f'[mesh]\nhost = "{HOST}"\nstate = "{directory}"\nlog = "warning"\n'
                f'[bus]\nurl = "{server.url}"\ncredentials = "{bus.keys}"\n'
                f'[xenstore]\npath = "{xenstored.socket}"\n{settings}'
            )
            notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            notify.bind(f"{directory}/notify")
            notify.setblocking(False)
            daemon = await asyncio.create_subprocess_exec(
                *(Path(sys.executable).parent / "xenmeshd", os.environ.get("BENCH_SERVICES", "all"), "--config", config),
                env={**os.environ, "NOTIFY_SOCKET": f"{directory}/notify"},
                stdin=subprocess.DEVNULL,
            )
            try:
                await asyncio.wait_for(_ready(notify, daemon), 120)
                yield Mesh(server, daemon, xenstored)
            finally:
                if daemon.returncode is None:
                    daemon.terminate()
                await daemon.wait()
                notify.close()


@asynccontextmanager
async def child(*arguments: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """One of the programs of `floor`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.floor", *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def rss(pid: int) -> float:
    """MiB resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def cpu(pid: int) -> float:
    """Seconds of CPU that it has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
