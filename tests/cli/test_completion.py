from pathlib import Path

import pytest

from xenmesh.cli.completion import SHELLS, script
from xenmesh.cli.main import main

FOLDER = Path(__file__).parents[2] / "deploy/completions"
FILES = {"bash": "xenmesh", "zsh": "_xenmesh", "fish": "xenmesh.fish"}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_current(shell: str) -> None:
    assert (FOLDER / FILES[shell]).read_text() == script(shell), (
        f"run: xenmesh completion {shell} > deploy/completions/{FILES[shell]}"
    )


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == script("bash")


def test_a_shell_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion"]) == 2


def test_without_a_mesh_there_are_no_candidates(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "--candidates", "DOMAIN"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["completion", "--candidates", "SERVICE"]) == 0
    assert capsys.readouterr().out == "store\nevents\n"
