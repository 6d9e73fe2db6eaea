"""xenmeshd as its users meet it: a program, its words, its exit status, its signals."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from rigs.waiting import wait_until

from xenmesh.services.daemon.config import SERVICES
from xenmesh.services.daemon.hostid import FILE

XENMESHD = [sys.executable, "-m", "xenmesh.services.daemon.main"]


def environment(**more: str) -> dict[str, str]:
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("XENMESH_", "XENSTORED_", "NOTIFY_", "WATCHDOG_"))
    }
    return {**kept, **more}


def xenmeshd(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*XENMESHD, *arguments], capture_output=True, text=True, env=environment(**more), timeout=30, check=False
    )


@pytest.fixture
def config(tmp_path) -> Path:
    file = tmp_path / "my.toml"
    file.write_text(f"[mesh]\nstate = '{tmp_path}'\n")
    return file


def test_help_says_what_there_is_and_what_comes_back():
    done = xenmeshd("--help")
    assert done.returncode == 0
    for word in (*SERVICES, "/etc/xenmesh/conf.d", "XENMESH_<SECTION>_<KEY>", "78", "xenmeshd --check all"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a service; there are: store, events, and all"),
        (("stor",), "there is no service 'stor'; there are: store, events, and all"),
        (("--frobnicate",), "unrecognized arguments"),
    ],
)
def test_wrong_arguments(arguments, said):
    done = xenmeshd(*arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_check_says_what_would_run_and_makes_nothing(config, tmp_path):
    done = xenmeshd("--check", "--config", config, "all")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"configuration  {config}\n" in done.stdout
    assert f"host           made at the first start and kept in {tmp_path}/host-id\n" in done.stdout
    for name in SERVICES:
        assert f"service        {name}, with no key" in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["my.toml"]


def test_check_finds_what_is_wrong_in_sections_of_services_that_would_not_run(config):
    config.write_text("[events]\nfrob = 1\n")
    done = xenmeshd("--check", "--config", config, "store")
    assert done.returncode == 78
    assert done.stderr.startswith(f"xenmeshd: {config}: [events] frob: there is no such key")


def test_the_configuration_in_force_and_who_set_it(config):
    done = xenmeshd("--print-config", "--config", config, XENMESH_BUS_URL="nats://127.0.0.1:1")
    assert done.returncode == 0
    assert 'url = "nats://127.0.0.1:1"  # $XENMESH_BUS_URL' in done.stdout
    assert f"# {config}" in done.stdout
    assert "[store]" in done.stdout


def test_the_host_id_is_made_once(config, tmp_path):
    first, second = (xenmeshd("--host-id", "--config", config) for _ in range(2))
    assert first.stdout == second.stdout == (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text("not an id")
    done = xenmeshd("--host-id", "--config", config)
    assert done.returncode == 73
    assert "does not hold a host's id but 'not an id'" in done.stderr


def test_a_wrong_configuration_and_a_missing_key_stay_down(config, tmp_path):
    done = xenmeshd("store", "--config", config, XENMESH_BUS_WAIT="long")
    assert done.returncode == 78
    assert done.stderr.startswith("xenmeshd: $XENMESH_BUS_WAIT: [bus] wait: 'long' cannot be")
    done = xenmeshd("store", "--config", config, CREDENTIALS_DIRECTORY=str(tmp_path))
    assert done.returncode == 78
    assert "store.nk: is not there; $CREDENTIALS_DIRECTORY must hold the nkey seed of the service store" in done.stderr


def test_no_bus_within_the_time_given(config):
    with closing(socket.create_server(("127.0.0.1", 0))) as nobody:
        port = nobody.getsockname()[1]
    done = xenmeshd("events", "--config", config, XENMESH_BUS_WAIT="0.3", XENMESH_BUS_URL=f"nats://127.0.0.1:{port}")
    assert done.returncode == 69
    assert f"No connection to nats://127.0.0.1:{port} as events within 0.3 s" in done.stderr


def test_only_what_is_named_is_loaded(config):
    """What a service does not need costs no memory in its process."""
    program = (
        "import sys; from xenmesh.services.daemon.process import service; service('events');"
        "print(sorted(name for name in sys.modules if name.startswith(('xenmesh.xen', 'xenmesh.services.store', 'nkeys'))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[]\n"


class Daemon:
    """A running xenmeshd, and systemd's end of its notifications."""

    def __init__(self, directory: Path, arguments: list[str], more: dict[str, str]) -> None:
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.notify.bind(f"{directory}/notify")
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*XENMESHD, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(NOTIFY_SOCKET=f"{directory}/notify", **more),
            )

    def hear(self, start: str) -> str:
        """The next word that begins so."""
        try:
            return wait_until(lambda: self._next(start), f"{start}, or the end", within=20)
        except TimeoutError:
            raise AssertionError(f"never heard {start}: {self.log.read_text()}") from None

    def _next(self, start: str) -> str | None:
        ended = self.process.poll() is not None
        with suppress(BlockingIOError):
            while not (word := self.notify.recv(4096).decode()).startswith(start):
                pass
            return word
        assert not ended, f"ended without {start}: {self.log.read_text()}"
        return None

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def start(short_dir, tmp_path) -> Iterator[Callable[..., Daemon]]:
    started: list[Daemon] = []

    def run(*arguments: str, **more: str) -> Daemon:
        daemon = Daemon(short_dir, list(arguments), {"XENMESH_MESH_STATE": str(tmp_path), **more})
        started.append(daemon)
        return daemon

    yield run
    for daemon in started:
        if daemon.process.poll() is None:
            daemon.process.kill()
        daemon.process.wait()
        daemon.notify.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_starts_tells_and_drains(start, nats_server, xenstored_c, number):
    server = nats_server()
    daemon = start("all", XENMESH_BUS_URL=server.url, XENMESH_XENSTORE_PATH=str(xenstored_c.socket), WATCHDOG_USEC="2000000")
    daemon.hear("READY=1")
    daemon.hear("WATCHDOG=1")
    assert daemon.end(number) == 0, daemon.log.read_text()
    daemon.hear("STOPPING=1")
    log = daemon.log.read_text()
    assert f"{number.name}: draining, for 12 s at most" in log
    assert "store: ready" in log
    assert log.splitlines()[-1].endswith("info stopped")


def test_it_outlives_both_its_peers(start, nats_server, xenstored_c):
    server = nats_server()
    daemon = start("all", XENMESH_BUS_URL=server.url, XENMESH_XENSTORE_PATH=str(xenstored_c.socket), WATCHDOG_USEC="2000000")
    daemon.hear("READY=1")
    xenstored_c.kill()
    server.kill()
    wait_until(lambda: "bus lost" in daemon.hear("STATUS="), "the loss of the bus")
    for _ in range(3):
        daemon.hear("WATCHDOG=1")
    xenstored_c.start()
    server.start()
    wait_until(lambda: daemon.hear("STATUS=").endswith("bus up"), "the bus")
    daemon.hear("WATCHDOG=1")
    assert daemon.end(signal.SIGTERM) == 0, daemon.log.read_text()


async def test_with_the_hosts_own_bus_each_service_has_its_own_key(start, xenstored_c, tmp_path):
    import anyio

    from xenmesh.bus.config import Settings
    from xenmesh.bus.server import Server

    settings = Settings(directory=str(tmp_path / "bus"), host="h1", port=0)
    async with Server(settings) as server:
        daemon = start(
            "all",
            XENMESH_MESH_HOST="h1",
            XENMESH_BUS_URL=server.url,
            XENMESH_XENSTORE_PATH=str(xenstored_c.socket),
            CREDENTIALS_DIRECTORY=str(settings.keys),
            WATCHDOG_USEC="2000000",
        )
        await anyio.to_thread.run_sync(daemon.hear, "READY=1")
        await anyio.to_thread.run_sync(daemon.hear, "WATCHDOG=1")
        status = await anyio.to_thread.run_sync(daemon.end, signal.SIGTERM)
    log = daemon.log.read_text()
    assert status == 0, log
    assert "does not let it" not in log
