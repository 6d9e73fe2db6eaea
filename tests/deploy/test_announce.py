"""What the bus of a host tells its people, as `xenmesh` finds it."""

import stat
import subprocess
from pathlib import Path

import msgspec
import pytest

from xenmesh.bus.config import Settings
from xenmesh.bus.server import write_config
from xenmesh.cli.context import FILE, OPERATOR, VIEW, Running, read_running

ANNOUNCE = Path(__file__).resolve().parents[2] / "deploy/nats/announce"


@pytest.fixture
def bus(tmp_path) -> Settings:
    settings = Settings(directory=str(tmp_path / "bus"), host="h1", port=4333)
    write_config(settings)
    return settings


def announce(settings: Settings, to: Path) -> subprocess.CompletedProcess[str]:
    to.mkdir(mode=0o755, exist_ok=True)
    command = [ANNOUNCE, settings.directory, settings.host, to]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, umask=0o077)


def mode(file: Path) -> int:
    return stat.S_IMODE(file.lstat().st_mode)


def test_it_says_where_the_bus_is_and_gives_the_view_key_to_the_group(bus, tmp_path):
    to = tmp_path / "run"
    for _ in range(2):  # again at each start
        assert announce(bus, to).stderr == ""
    assert read_running(to) == Running(url="nats://127.0.0.1:4333", host="h1", keys=str(to))
    assert {file.name for file in to.iterdir()} == {FILE, f"{VIEW}.nk", f"{OPERATOR}.nk"}
    assert mode(to / FILE) == 0o644
    assert mode(to / f"{VIEW}.nk") == 0o440
    assert (to / f"{VIEW}.nk").read_bytes() == (bus.keys / f"{VIEW}.nk").read_bytes()


def test_the_operators_key_stays_where_root_alone_can_go(bus, tmp_path):
    announce(bus, tmp_path / "run")
    assert (tmp_path / "run" / f"{OPERATOR}.nk").readlink() == bus.keys / f"{OPERATOR}.nk"
    assert mode(bus.keys) == 0o700


def test_a_port_that_nobody_knows_is_not_announced(bus, tmp_path):
    settings = msgspec.structs.replace(bus, port=0)
    write_config(settings)
    done = announce(settings, tmp_path / "run")
    assert done.returncode == 1
    assert "no fixed port" in done.stderr
    assert not any((tmp_path / "run").iterdir())
