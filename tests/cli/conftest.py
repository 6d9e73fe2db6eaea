"""Fixtures of the commands' tests."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
from cli.house import Heard, House

from xenmesh.bus.memory import MemoryServer
from xenmesh.cli.output import Mode


@pytest.fixture
def table() -> Heard:
    return Heard(Mode.TABLE)


@pytest.fixture
def ndjson() -> Heard:
    return Heard(Mode.JSON)


@pytest.fixture
def names() -> Heard:
    return Heard(Mode.NAME)


@pytest.fixture
def house() -> House:
    return House(MemoryServer())


@pytest.fixture
def options() -> Callable[..., argparse.Namespace]:
    """The options of `context.add_options`, at their defaults but for those given."""

    def make(**given: object) -> argparse.Namespace:
        return argparse.Namespace(
            **{"dir": None, "url": None, "creds": None, "context": None, "user": None, "host": None, **given}
        )

    return make


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No mesh anywhere: an empty home, no variable of ours."""
    for name in ("XENMESH_DIR", "XENSTORED_PATH", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setattr("xenmesh.cli.context.SYSTEM", ())
    return runtime
