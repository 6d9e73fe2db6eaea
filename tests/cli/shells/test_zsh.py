import subprocess

import pytest

from xenmesh.cli.commands import COMMANDS
from xenmesh.cli.shape import command_line
from xenmesh.cli.shells.zsh import render


def test_every_command_and_option_is_in_it() -> None:
    text = render(command_line())

    assert text.startswith("#compdef xenmesh\n")
    assert all(f"        {name})" in text for name in COMMANDS)
    assert "(-o --output)--output[" in text
    assert ":DOMAIN:_xenmesh_live DOMAIN" in text


def test_quotes_and_brackets_are_balanced() -> None:
    for line in render(command_line()).splitlines():
        spec = line.strip().removesuffix("\\").strip()
        if spec.startswith("'(") and spec.endswith("'"):
            inside = spec[1:-1].replace("'\\''", "").replace("\\[", "").replace("\\]", "")
            assert "'" not in inside, line
            assert inside.count("[") == inside.count("]") == 1, line


@pytest.mark.rig("zsh")
def test_zsh_reads_it() -> None:
    done = subprocess.run(["zsh", "-n"], input=render(command_line()), capture_output=True, text=True, timeout=20, check=False)

    assert (done.returncode, done.stderr) == (0, "")
