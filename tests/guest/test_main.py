import platform

import pytest

from xenmesh.guest.main import main


def test_it_prints_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print"]) == 0
    assert f"data/os_uname = {platform.release()}" in capsys.readouterr().out
