import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from xenmesh.cli.commands import COMMANDS
from xenmesh.cli.main import first_error, main

HEAVY = {"nats", "anyio", "asyncio", "msgspec", "xenmesh.bus", "xenmesh.services", "xenmesh.sim", "argon", "_cffi_backend"}


def xenmesh(*words: str, **given: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "xenmesh.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, **given)  # type: ignore[call-overload, no-any-return]


def loaded_by(*words: str) -> set[str]:
    code = (
        "import sys, json, contextlib, io\n"
        "from xenmesh.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        f"    main({list(words)!r})\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    return set(json.loads(done.stdout))


def test_help_loads_no_bus(record_property: Callable[[str, object], None]) -> None:
    began = time.monotonic()
    assert xenmesh("--help").returncode == 0
    record_property("seconds of --help", round(time.monotonic() - began, 3))

    assert not loaded_by("--help") & (HEAVY - {"msgspec"})


@pytest.mark.parametrize("name", ["watch", "services", "store"])
def test_help_on_a_command_loads_no_nats(name: str) -> None:
    assert not loaded_by(name, "--help") & {"nats", "xenmesh.bus.nats", "xenmesh.services", "xenmesh.sim"}


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out

    assert all(f"  {name} " in text for name in COMMANDS)
    assert "XENMESH_DIR" in text


def test_nothing_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: xenmesh COMMAND" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("xenmesh ")


def test_a_typing_error_is_mended(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wacth"]) == 2
    assert "Did you mean `xenmesh watch`?" in capsys.readouterr().err
    assert main(["--frob"]) == 2
    assert "there is no option --frob here" in capsys.readouterr().err


def test_an_unknown_command_cannot_paint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["\x1b[2J"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_help_on_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["help", "watch"])

    assert ended.value.code == 0
    assert "examples:" in capsys.readouterr().out


def test_a_wrong_option_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["watch", "--frob"])

    assert ended.value.code == 2


def test_without_a_mesh_one_is_told_how_to_start_one(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch"]) == 5
    assert "xenmesh up" in capsys.readouterr().err


def test_a_reader_that_goes_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m xenmesh.cli.main completion bash | head -c 1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.stderr == ""
    assert done.returncode in (0, 141)  # 0: all of it went into the pipe's buffer


def test_the_first_error_of_a_group_of_groups() -> None:
    error = ValueError("x")

    assert first_error(ExceptionGroup("a", [ExceptionGroup("b", [error])])) is error
