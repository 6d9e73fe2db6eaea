import os
import subprocess
import sys
from pathlib import Path

import pytest
from rigs.waiting import wait_until

from xenmesh.cli.errors import CommandError
from xenmesh.cli.place import MARK, absolute, end, ended, hold, leftovers


def test_one_at_a_time(tmp_path: Path) -> None:
    with hold(tmp_path / "mesh"):
        assert (tmp_path / "mesh").stat().st_mode & 0o777 == 0o700
        with pytest.raises(CommandError, match=f"runs in .*mesh already \\(pid {os.getpid()}\\)"), hold(tmp_path / "mesh"):
            pass
    with hold(tmp_path / "mesh"):
        pass


def test_what_others_may_write_is_not_used(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(CommandError, match="can be written by others"), hold(tmp_path):
        pass


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="too long"), hold(tmp_path / ("x" * 108)):
        pass


def test_what_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="cannot be made"), hold(tmp_path / "file/mesh"):
        pass


def test_what_an_earlier_run_left_behind_is_found_and_ended(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, env={**os.environ, MARK: str(tmp_path)}
    )
    try:
        wait_until(lambda: leftovers(tmp_path) == [child.pid], "the child to be seen")
        assert leftovers(tmp_path / "other") == []
        end([child.pid])
        child.wait(10)
        assert ended([child.pid], 5)
        assert leftovers(tmp_path) == []
        end([child.pid])
    finally:
        child.kill()
        child.communicate()


def test_what_does_not_end(tmp_path: Path) -> None:
    assert not ended([os.getpid()], 0.01)


def test_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("x") == tmp_path / "x"
