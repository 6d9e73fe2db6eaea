"""What `xenstore-write` changes, the commands show: real tools, real daemons."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mesh.running import HOST, Mesh
from rigs.waiting import eventually
from rigs.xenstored import Xenstored

UUID = "6d1b6e7e-0000-4000-8000-00000000000a"

pytestmark = [pytest.mark.timeout(120), pytest.mark.rig("xenstore-utils")]


class Commands:
    """`xenmesh` against one mesh, found by the directory of its bus."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("XENMESH_", "XENSTORED_"))}
        self._environment = {**kept, "PYTHONUNBUFFERED": "1"}

    def _line(self, words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "xenmesh.cli.main", *words, "--dir", self._mesh.server.settings.directory]

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(self._line(words), capture_output=True, text=True, timeout=40, check=False, env=self._environment)

    @contextmanager
    def running(self, out: Path, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
        """It writes into the file ``out``."""
        with out.open("wb") as file:
            process = subprocess.Popen(self._line(words), stdout=file, stderr=subprocess.STDOUT, env=self._environment)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def build(xenstored: Xenstored) -> None:
    """Begin domain 5 as libxl does: its own folder, by which a domain that is not introduced yet is found, comes first."""
    xenstored.tool("write", "/libxl/5/type", "pv")
    xenstored.tool("write", "/local/domain/5/vm", f"/vm/{UUID}")


@pytest.fixture
def commands(mesh: Mesh) -> Commands:
    return Commands(mesh)


async def test_watch_shows_a_change(commands: Commands, xenstored: Xenstored, tmp_path: Path) -> None:
    all_of_it, a_part = tmp_path / "watch", tmp_path / "store-watch"
    with (
        commands.running(all_of_it, "watch", "--snapshot", "-o", "json") as watch,
        commands.running(a_part, "store", "watch", "/tool", "/local/domain/5", "--snapshot", "-o", "json", "-n", "3") as part,
    ):
        # Each says what there is first: from then on it misses nothing.
        await eventually(lambda: '"xenmesh.snapshot"' in all_of_it.read_text(), "the snapshot")
        await eventually(lambda: '"/tool"' in a_part.read_text(), "the part's snapshot")
        build(xenstored)
        xenstored.tool("write", "/local/domain/5/data/os", "Debian 12")
        xenstored.tool("write", "/tool/hello", "world")
        await eventually(lambda: part.poll() is not None, "three changes in the part")
        await eventually(
            lambda: {'"/tool/hello"', '"/local/domain/5/data/os"'} <= set(re.findall(r'"/[^"]*"', all_of_it.read_text())),
            "both changes",
        )
        assert watch.poll() is None
    assert part.returncode == 0

    def changes(file: Path) -> set[tuple[str, str, str | None]]:
        records = [json.loads(line) for line in file.read_text().splitlines()]
        said = [(record["subject"], record["event"]["event"]) for record in records if "store" in record["subject"].split(".")]
        return {(subject, event["path"], event["value"]) for subject, event in said if event["type"] == "store.changed"}

    assert {
        (f"xen.v1.{HOST}.store.5.data", "/local/domain/5/data/os", "Debian 12"),
        (f"xen.v1.{HOST}.store.host.tool", "/tool/hello", "world"),
    } <= changes(all_of_it)
    seen = changes(a_part)
    assert len(seen) == 3
    assert {path.rsplit("/", 1)[0] for _, path, _ in seen} <= {
        "/local/domain",
        "/local/domain/5",
        "/local/domain/5/data",
        "/tool",
    }


async def test_read_ls_and_wait_show_what_was_written(commands: Commands, xenstored: Xenstored) -> None:
    build(xenstored)
    xenstored.tool("write", "/local/domain/5/name", "web")
    xenstored.tool("write", "/local/domain/5/data/os", "Debian 12")
    xenstored.tool("write", "/local/domain/5/device/vif/0/state", "4")

    done = commands.run("wait", "key", "/local/domain/5/device/vif/0/state", "4", "--timeout", "20s")
    assert done.returncode == 0, done.stderr
    done = commands.run("store", "read", "web/data/os", "-o", "table")
    assert (done.returncode, done.stdout) == (0, "Debian 12\n"), done.stderr
    done = commands.run("store", "ls", "-r", "-f", "/local/domain/5", "-o", "name")
    assert done.returncode == 0, done.stderr
    shown = xenstored.tool("ls", "-f", "/local/domain/5")
    assert done.stdout.split() == [line.split(" = ")[0] for line in shown.splitlines()]
    done = commands.run("store", "ls", "-r", "-p", "/local/domain/5", "-o", "json")
    assert all(json.loads(line)["perms"] == ["n0"] for line in done.stdout.splitlines())

    xenstored.tool("rm", "/local/domain/5")
    done = commands.run("store", "read", "/local/domain/5/data/os")
    assert done.returncode == 3, done.stdout
