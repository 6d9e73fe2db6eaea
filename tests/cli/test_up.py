"""`xenmesh up` as an operator runs it: a process, with everything real that can be real here, and every other command against it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rigs.waiting import wait_until
from rigs.xenstored import Xenstored

from xenmesh.cli.place import leftovers
from xenmesh.cli.up import xenstore_here

pytestmark = pytest.mark.timeout(120)


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XENMESH_", "XENSTORED_"))}
    return {**kept, "PYTHONUNBUFFERED": "1", **more}


def xenmesh(*words: str, within: float = 40, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "xenmesh.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=within, check=False, env=environment(**more))


class Up:
    """A running `xenmesh up`."""

    def __init__(self, directory: Path, *words: str, **more: str) -> None:
        self.directory = directory
        self._log = directory.with_suffix(".out")
        with self._log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "xenmesh.cli.main", "up", "--dir", str(directory), *words],
                stdout=out,
                stderr=out,
                env=environment(**more),
            )
        wait_until(self._is_up, "the mesh to be up", within=40)

    def _is_up(self) -> bool:
        assert self.process.poll() is None, self.output
        return (self.directory / "mesh.json").exists()

    @property
    def output(self) -> str:
        return self._log.read_text()

    @property
    def running(self) -> dict[str, Any]:
        return json.loads((self.directory / "mesh.json").read_text())  # type: ignore[no-any-return]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return xenmesh(*words, "--dir", str(self.directory))

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="xm-", dir="/tmp"))
    yield folder / "mesh"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def up(place: Path) -> Iterator[Up]:
    up = Up(place, "--sim", "--guests", "2", "--speed", "20", "--seed", "7", "-o", "table")
    yield up
    assert up.end() == 0, up.output
    assert leftovers(place) == []
    assert not (place / "mesh.json").exists()


def test_its_first_lines_say_all_one_needs(up: Up) -> None:
    wait_until(lambda: "Events:" in up.output, "the first lines")
    text = up.output

    for said in (
        up.running["url"],
        "store, events",
        "simulated (asked for by --sim): 2 guests, speed 20, seed 7",
        "operator.nk",
        "view.nk",
    ):
        assert said in text
    for tried in ("watch --snapshot", "store ls", "services", "wait domain", "xenstore-ls", "nats --server"):
        assert tried in text


def test_events_come(up: Up) -> None:
    wait_until(lambda: re.search(r"^\d\d:\d\d:\d\d\.\d{3}  guest\d \(\d+\)", up.output, re.MULTILINE), "an event", within=40)


def test_a_second_one_in_the_same_place_is_told_so(up: Up) -> None:
    done = up.run("up")

    assert done.returncode == 1
    assert f"already (pid {up.process.pid})" in done.stderr


def test_services(up: Up) -> None:
    done = up.run("services")

    assert done.returncode == 0
    assert [(each["name"], each["ready"]) for each in map(json.loads, done.stdout.splitlines())] == [
        ("events", True),
        ("store", True),
    ]


def test_store(up: Up) -> None:
    assert up.run("wait", "domain", "guest0", "--timeout", "30s").returncode == 0
    done = up.run("store", "read", "guest0/name")
    assert (done.returncode, json.loads(done.stdout)["value"]) == (0, "guest0")
    assert "/local/domain/0" in up.run("store", "ls", "/local/domain", "-o", "name").stdout.split()
    assert up.run("store", "read", "/nope").returncode == 3
    assert up.run("store", "ls", "nobody").returncode == 3


def test_wait_gives_up(up: Up) -> None:
    assert up.run("wait", "domain", "nobody", "--timeout", "500ms").returncode == 6
    assert up.run("wait", "service", "store", "--timeout", "20s").returncode == 0


def test_watch_in_a_pipe_is_ndjson(up: Up) -> None:
    done = up.run("watch", "-n", "3")

    assert done.returncode == 0, done.stderr
    assert [set(json.loads(line)) for line in done.stdout.splitlines()] == [{"time", "subject", "event"}] * 3


def test_watch_from_the_history_on(up: Up) -> None:
    done = up.run("watch", "evt", "--since", "1h", "-n", "2", "--for", "20s")

    assert done.returncode == 0, done.stderr
    assert {json.loads(line)["event"]["event"]["type"] for line in done.stdout.splitlines()} == {"service.started"}


def test_view_sees_what_is_public_and_no_more(up: Up) -> None:
    assert up.run("watch", "evt", "--since", "1h", "-n", "2", "--for", "20s", "--user", "view").returncode == 0
    assert up.run("watch", "store.>", "--user", "view").returncode == 7
    assert up.run("store", "ls", "--user", "view").returncode == 7
    assert up.run("services", "--user", "view").returncode == 0


def test_record_and_replay(up: Up, tmp_path: Path) -> None:
    file = tmp_path / "case.ndjson"

    assert up.run("record", str(file), "--snapshot", "--for", "2s").returncode == 0
    done = xenmesh("replay", str(file), "guest0", "-o", "table")
    assert done.returncode == 0
    assert "guest0 (" in done.stdout


def test_doctor_finds_nothing_wrong(up: Up) -> None:
    done = up.run("doctor")

    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, found
    assert {
        "nats-server",
        "xenstore",
        "disk",
        "credentials",
        "bus",
        "host id",
        "store",
        "events",
        "history",
        "heartbeat",
        "clock",
    } <= {each["what"] for each in found}


def test_completion_knows_live_domains(up: Up) -> None:
    done = up.run("completion", "--candidates", "DOMAIN")

    assert {"guest0", "guest1"} & set(done.stdout.split()), done.stdout


def test_a_key_in_no_ones_hand_is_a_finding(up: Up, tmp_path: Path) -> None:
    key = tmp_path / "operator.nk"
    key.write_bytes((up.directory / "bus/keys/operator.nk").read_bytes())
    key.chmod(0o644)

    done = up.run("doctor", "--creds", str(key))

    assert done.returncode == 1
    assert f"chmod 0400 {key}" in done.stdout


def test_a_killed_bus_or_service_comes_back_and_the_gap_is_told(up: Up, tmp_path: Path) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("w") as stdout, err.open("w") as stderr:
        watch = subprocess.Popen(
            [sys.executable, "-m", "xenmesh.cli.main", "watch", "--snapshot", "-o", "table", "--dir", str(up.directory)],
            stdout=stdout,
            stderr=stderr,
            env=environment(),
        )
    try:
        wait_until(lambda: "-- store as of" in out.read_text(), "the snapshot", within=20)
        victims = leftovers(up.directory)
        assert len(victims) == 2  # nats-server and the services
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: "store: events were missed" in err.read_text(), "word of the gap", within=40)
        assert up.run("wait", "service", "store", "--timeout", "30s").returncode == 0
        watch.send_signal(signal.SIGINT)
        assert watch.wait(20) == 4
    finally:
        watch.kill()
        watch.wait()
    assert len(leftovers(up.directory)) == 2


def test_it_ends_by_itself_and_takes_all_with_it(short_dir: Path) -> None:
    done = xenmesh("up", "--sim", "--guests", "0", "--dir", str(short_dir / "m"), "--for", "1s", "--quiet")

    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout.splitlines()[0])
    assert record["subject"] == "xenmesh.up"
    assert leftovers(short_dir / "m") == []


def test_what_a_killed_one_left_behind_is_ended_by_the_next(short_dir: Path) -> None:
    up = Up(short_dir / "m", "--sim", "--guests", "0", "--quiet")
    up.end(signal.SIGKILL)
    left = leftovers(short_dir / "m")
    assert left

    done = xenmesh("up", "--sim", "--guests", "0", "--dir", str(short_dir / "m"), "--for", "1s", "--quiet")

    assert done.returncode == 0, done.stderr
    assert "left behind" in done.stderr
    assert leftovers(short_dir / "m") == []


def test_a_real_xenstored_is_watched(short_dir: Path, xenstored: Xenstored) -> None:
    up = Up(short_dir / "m", "--quiet", XENSTORED_PATH=str(xenstored.socket))
    try:
        subprocess.run(["xenstore-write", "/tool/hello", "world"], env=xenstored.env, check=True, timeout=10)
        done = up.run("wait", "key", "/tool/hello", "world", "--timeout", "20s")
        assert done.returncode == 0, done.stderr
        assert json.loads(up.run("store", "read", "/tool/hello").stdout)["value"] == "world"
    finally:
        assert up.end() == 0


def test_wrong_numbers_are_refused() -> None:
    assert xenmesh("up", "--guests", "-1").returncode == 2
    assert xenmesh("up", "--speed", "0").returncode == 2
    assert xenmesh("up", "--for", "soon").returncode == 2


def test_where_xenstored_is(tmp_path: Path, short_dir: Path) -> None:
    import socket

    assert xenstore_here({"XENSTORED_PATH": "/x"}, tmp_path) == "/x"
    assert xenstore_here({}, tmp_path) == ""
    (tmp_path / "proc/xen").mkdir(parents=True)
    (tmp_path / "proc/xen/capabilities").write_text("control_d\n")
    assert xenstore_here({}, tmp_path) == ""
    (tmp_path / "dev/xen").mkdir(parents=True)
    (tmp_path / "dev/xen/xenbus").touch()
    assert xenstore_here({}, tmp_path) == str(tmp_path / "dev/xen/xenbus")
    (short_dir / "run/xenstored").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(short_dir / "run/xenstored/socket"))
        assert xenstore_here({}, short_dir) == str(short_dir / "run/xenstored/socket")


def test_a_broken_host_id_is_told(short_dir: Path) -> None:
    (short_dir / "m/state").mkdir(parents=True, mode=0o700)
    (short_dir / "m").chmod(0o700)
    (short_dir / "m/state/host-id").write_text("two words\n")

    done = xenmesh("up", "--sim", "--dir", str(short_dir / "m"), "--for", "1s")

    assert done.returncode == 1
    assert "host-id" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_told(short_dir: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = xenmesh("up", "--sim", "--dir", str(short_dir / "m"), "--for", "1s", "--port", str(taken.getsockname()[1]))

    assert done.returncode == 1
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr
