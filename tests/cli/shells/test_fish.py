import os
import subprocess
from pathlib import Path

import pytest

from xenmesh.cli.commands import COMMANDS
from xenmesh.cli.shape import command_line
from xenmesh.cli.shells.fish import render


def test_every_command_and_option_is_in_it() -> None:
    text = render(command_line())

    assert all(f"__xenmesh_exactly_at -a {name} " in text for name in COMMANDS)
    assert "-n '__xenmesh_at watch' -s o -l output -x -a 'table json name'" in text
    assert "-n '__xenmesh_at wait domain' -a '(__xenmesh_live DOMAIN)'" in text


def test_quotes_are_balanced() -> None:
    for line in render(command_line()).splitlines():
        assert line.replace("\\'", "").count("'") % 2 == 0, line


@pytest.mark.rig("fish")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("xenmesh wa", {"watch", "wait"}),
        ("xenmesh store ", {"ls", "read", "watch"}),
        ("xenmesh watch -o ", {"table", "json", "name"}),
        ("xenmesh store ls --rec", {"--recursive"}),
        ("xenmesh wait domain we", {"web-1", "web-2"}),
        ("xenmesh help doc", {"doctor"}),
    ],
)
def test_fish_completes(typed: str, offered: set[str], tmp_path: Path) -> None:
    fake = tmp_path / "xenmesh"
    fake.write_text("#!/bin/sh\nprintf 'web-1\\nweb-2\\n'\n")
    fake.chmod(0o755)
    (tmp_path / "script").write_text(render(command_line()))
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        **{k: v for k, v in os.environ.items() if k == "LD_LIBRARY_PATH"},
    }

    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {tmp_path}/script; complete -C '{typed}'"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )

    assert done.stderr == ""
    assert {line.split("\t")[0] for line in done.stdout.splitlines()} == offered
