import subprocess
from shutil import which

import pytest

from xenmesh.cli.commands import COMMANDS
from xenmesh.cli.shape import command_line
from xenmesh.cli.shells.fish import render


def test_every_command_and_option_is_in_it() -> None:
    text = render(command_line())

    assert all(f"__fish_use_subcommand -a {name} " in text for name in COMMANDS)
    assert "-n '__xenmesh_at watch' -s o -l output -x -a 'table json name'" in text
    assert "-n '__xenmesh_at wait domain' -a '(__xenmesh_live DOMAIN)'" in text


def test_quotes_are_balanced() -> None:
    for line in render(command_line()).splitlines():
        assert line.replace("\\'", "").count("'") % 2 == 0, line


@pytest.mark.skipif(which("fish") is None, reason="fish is not installed")
def test_fish_reads_it() -> None:
    done = subprocess.run(["fish", "-n"], input=render(command_line()), capture_output=True, text=True, timeout=20, check=False)

    assert (done.returncode, done.stderr) == (0, "")
