import argparse

import pytest

from xenmesh.cli.main import main
from xenmesh.cli.numbers import count, port


def test_what_is_taken() -> None:
    assert (count("1"), count("1000")) == (1, 1000)
    assert (port("0"), port("4222"), port("65535")) == (0, 4222, 65535)


@pytest.mark.parametrize("text", ["0", "-3", "", "x", "1.5"])
def test_no_count(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="at least 1"):
        count(text)


@pytest.mark.parametrize("text", ["-1", "65536", "", "http"])
def test_no_port(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="0 to 65535"):
        port(text)


@pytest.mark.parametrize(
    "words", [("watch", "-n", "0"), ("store", "watch", "-n", "-3"), ("up", "--port", "99999")], ids=" ".join
)
def test_commands_refuse_them(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)

    assert ended.value.code == 2
    assert f"{words[-1]!r} is not" in capsys.readouterr().err
