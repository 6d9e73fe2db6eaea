import subprocess
from pathlib import Path

import pytest

from xenmesh.cli.commands import COMMANDS
from xenmesh.cli.man import render
from xenmesh.cli.shape import command_line

PAGE = Path(__file__).parents[2] / "deploy/man/xenmesh.1"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == render(command_line()), "run: xenmesh help --man > deploy/man/xenmesh.1"


def test_every_command_has_a_section() -> None:
    text = PAGE.read_text()

    assert all(f".SS xenmesh {name}" in text for name in COMMANDS)


@pytest.mark.rig("groff")
def test_groff_has_nothing_to_complain_of() -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", str(PAGE)], capture_output=True, text=True, timeout=30, check=True
    )

    assert done.stderr == ""
