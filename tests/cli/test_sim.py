import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from rigs.waiting import wait_until

from xenmesh.cli.main import main

pytestmark = pytest.mark.timeout(60)


def simulate(directory: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "xenmesh.cli.main", "sim", "--dir", str(directory), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_until((directory / "socket").exists, "the socket", within=20)
    return process


@pytest.mark.rig("xenstore-utils")
@pytest.mark.parametrize("server", ["c", "ocaml"])
def test_any_xenstore_program_may_talk_to_it(short_dir: Path, server: str) -> None:
    process = simulate(short_dir / "h", "--guests", "1", "--speed", "20", "--seed", "3", "--server", server)
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())["event"]
        assert told["seed"] == 3
        listed = subprocess.run(
            ["xenstore-ls", "-f"],
            env={"XENSTORED_PATH": told["socket"], "PATH": "/usr/bin"},
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        ).stdout
        assert "/local/domain" in listed
    finally:
        process.terminate()
        output = process.communicate(timeout=20)[0]
    assert process.returncode == 0, output


def test_it_ends_by_itself(short_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "--dir", str(short_dir / "h"), "--guests", "0", "--for", "100ms", "-o", "table"]) == 0

    text = capsys.readouterr().out
    assert f"XENSTORED_PATH={short_dir}/h/socket xenstore-ls -f" in text


def test_wrong_numbers_are_refused(short_dir: Path) -> None:
    assert main(["sim", "--dir", str(short_dir), "--guests", "-1"]) == 2
    assert main(["sim", "--dir", str(short_dir), "--for", "x"]) == 2


def test_a_socket_in_use_is_told(short_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        (short_dir / "h").mkdir(mode=0o700)
        other.bind(str(short_dir / "h/socket"))
        other.listen()

        assert main(["sim", "--dir", str(short_dir / "h")]) == 1

    assert "Traceback" not in capsys.readouterr().err
