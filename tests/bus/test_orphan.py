"""A nats-server whose owner was killed is ended by the next; one that somebody answers for is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rigs.waiting import eventually, wait_until

from xenmesh.bus import orphan
from xenmesh.bus.config import Settings
from xenmesh.bus.errors import ServerError
from xenmesh.bus.keys import key_file
from xenmesh.bus.nats import connect
from xenmesh.bus.server import Server, find_binary, write_config

OWNER = """
import anyio, sys
from xenmesh.bus.config import Settings
from xenmesh.bus.server import Server
async def main():
    async with Server(Settings(directory=sys.argv[1], host="h1", port=0)) as server:
        print(server.pid, server.port, flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


def gone(pid: int) -> bool:
    return not orphan._begun(pid)


@contextmanager
def process(*arguments: str, **pipes: int) -> Iterator[subprocess.Popen[str]]:
    """A Python of its own."""
    with subprocess.Popen([sys.executable, "-c", *arguments], text=True, **pipes) as running:
        yield running


@contextmanager
def by_hand(directory: Path, environment: Callable[[int], dict[str, str]] = lambda _: {}) -> Iterator[int]:
    """A nats-server that no `Server` started."""
    settings = Settings(directory=str(directory), host="h1", port=0)
    binary = write_config(settings)
    command = [binary, "-c", settings.config_file]
    with subprocess.Popen(command, env={**os.environ, **environment(os.getpid())}, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: [each.pid for each in orphan.find(settings.config_file)] == [process.pid], "it to run")
            yield process.pid
        finally:
            process.kill()


async def test_what_a_killed_owner_left_is_ended_and_its_port_is_free_again(tmp_path: Path) -> None:
    with process(OWNER, str(tmp_path), stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid, port = map(int, owner.stdout.readline().split())
        owner.kill()
    assert not gone(pid)
    async with Server(Settings(directory=str(tmp_path), host="h1", port=port)) as server:
        assert gone(pid)
        assert server.pid != pid
        async with connect(server.url, user="view", host="h1", seed=key_file(tmp_path / "keys", "view")) as bus:
            await bus.ping()


async def test_one_whose_owner_lives_is_left_alone(tmp_path: Path) -> None:
    settings = Settings(directory=str(tmp_path), host="h1", port=0)
    async with Server(settings) as first:
        (running,) = orphan.find(settings.config_file)
        assert running == (first.pid, os.getpid(), False)
        with pytest.raises(
            ServerError, match=f"process {first.pid}, started by process {os.getpid()}.*choose another directory"
        ):
            async with Server(settings):
                pass
        async with connect(first.url, user="view", host="h1", seed=key_file(tmp_path / "keys", "view")) as bus:
            await bus.ping()


async def test_one_without_our_mark_is_left_alone(tmp_path: Path) -> None:
    with by_hand(tmp_path) as pid:
        with pytest.raises(ServerError, match=f"process {pid}, started by somebody else"):
            async with Server(Settings(directory=str(tmp_path), host="h1", port=0)):
                pass
        assert not gone(pid)


@pytest.mark.parametrize(
    ("value", "owner", "left"),
    [
        (lambda me: orphan.mark(), True, False),
        (lambda me: f"{me}/1", True, True),  # a later process with its owner's number
        (lambda me: "x", False, False),
    ],
)
def test_the_mark_tells_whose_it_is(tmp_path: Path, value: Callable[[int], str], owner: bool, left: bool) -> None:
    with by_hand(tmp_path, lambda me: {orphan.MARK: value(me)}) as pid:
        assert orphan.find(tmp_path / "nats.conf") == [(pid, os.getpid() if owner else None, left)]
        assert orphan.find(tmp_path / "other.conf") == []


async def test_one_that_does_not_heed_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphan, "_PATIENCE", 0.05)
    with by_hand(tmp_path) as pid:
        (running,) = orphan.find(tmp_path / "nats.conf")
        os.kill(pid, signal.SIGSTOP)
        await orphan.end(running, tmp_path / "nats.conf")
        await eventually(lambda: gone(pid), "its end")
        await orphan.end(running, tmp_path / "nats.conf")  # again: nothing


async def test_a_number_that_is_anothers_by_now_is_not_ended(tmp_path: Path) -> None:
    with process("input()", stdin=subprocess.PIPE) as other:
        await orphan.end(orphan.Running(other.pid, 1, orphan=True), tmp_path / "nats.conf")
        other.communicate("\n")
        assert other.returncode == 0


def test_the_binary_is_asked_nothing_that_looks_like_a_server(tmp_path: Path) -> None:
    """``nats-server -t -c FILE`` only checks the file."""
    file = tmp_path / "nats.conf"
    os.mkfifo(file)  # so that it stands still there
    with subprocess.Popen([find_binary(), "-t", "-c", file]) as checking:
        wait_until(lambda: b"-t" in orphan._read(checking.pid, "cmdline"), "it to run")
        assert orphan.find(file) == []
        checking.kill()
