"""The script is run by a real bash, with a `xenmesh` in its PATH that gives the candidates."""

import subprocess
from pathlib import Path

import pytest

from xenmesh.cli.shape import command_line
from xenmesh.cli.shells.bash import render


@pytest.fixture
def complete(tmp_path: Path) -> "Complete":
    fake = tmp_path / "bin/xenmesh"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "$@" >> ' + str(tmp_path / "asked") + "\nprintf 'web-1\\nweb-2\\n/local/domain/\\n'\n")
    fake.chmod(0o755)
    (tmp_path / "script").write_text(render(command_line()))
    (tmp_path / "case.ndjson").touch()
    (tmp_path / "folder").mkdir()
    return Complete(tmp_path)


class Complete:
    def __init__(self, place: Path) -> None:
        self._place = place

    def __call__(self, *words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        code = (
            f"source ./script; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _xenmesh; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        environment = {"PATH": f"{self._place}/bin:/usr/bin:/bin"}
        done = subprocess.run(
            ["bash", "--norc", "-c", code],
            cwd=self._place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout.split()

    @property
    def asked(self) -> str:
        return (self._place / "asked").read_text()


def test_commands(complete: Complete) -> None:
    assert complete("xenmesh", "wa") == ["watch", "wait"]
    assert complete("xenmesh", "store", "") == ["ls", "read", "watch", "-h", "--help"]


def test_options_and_their_values(complete: Complete) -> None:
    assert "--snapshot" in complete("xenmesh", "watch", "--s")
    assert complete("xenmesh", "watch", "-o", "") == ["table", "json", "name"]
    assert complete("xenmesh", "up", "--server", "o") == ["ocaml"]
    assert "--recursive" in complete("xenmesh", "store", "ls", "--")


def test_live_domains(complete: Complete) -> None:
    assert complete("xenmesh", "wait", "domain", "web") == ["web-1", "web-2"]
    assert complete.asked == "completion --candidates DOMAIN --word web\n"


def test_the_directory_given_is_the_one_asked(complete: Complete) -> None:
    complete("xenmesh", "watch", "--dir", "/d", "web")

    assert complete.asked == "completion --candidates PATTERN --word web --dir /d\n"


def test_positions_are_counted_past_options(complete: Complete) -> None:
    assert complete("xenmesh", "wait", "--timeout", "5", "domain", "x") == []
    assert complete("xenmesh", "replay", "--speed", "2", "ca") == ["case.ndjson"]
    assert complete("xenmesh", "wait", "service", "--timeout", "5", "store", "r") == ["ready"]


def test_files_and_directories(complete: Complete) -> None:
    assert complete("xenmesh", "record", "ca") == ["case.ndjson"]
    assert complete("xenmesh", "up", "--dir", "fo") == ["folder"]


def test_help_on_commands(complete: Complete) -> None:
    assert complete("xenmesh", "help", "doc") == ["doctor"]
