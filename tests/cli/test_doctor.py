import argparse
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cli.house import HOST

from xenmesh.bus.keys import ensure_keys
from xenmesh.cli.checks import Finding
from xenmesh.cli.context import FILE, Running
from xenmesh.cli.doctor import look
from xenmesh.cli.main import main

Options = Callable[..., argparse.Namespace]


async def found(args: argparse.Namespace) -> dict[str, Finding]:
    findings: dict[str, Finding] = {}
    await look(args, lambda finding: findings.setdefault(finding.what, finding) and None)
    return findings


async def test_no_mesh_at_all(clean: Path, options: Options) -> None:
    findings = await found(options())

    assert findings["mesh"].level.value == "wrong"
    assert "xenmesh up" in findings["mesh"].mend
    assert {"nats-server", "xenstore", "disk"} <= findings.keys()


@pytest.fixture
def dead(tmp_path: Path) -> Path:
    """The directory of a mesh whose `up` was killed."""
    ensure_keys(tmp_path / "bus/keys", ["operator"])
    running = Running(
        url="nats://127.0.0.1:1", host=HOST, keys=str(tmp_path / "bus/keys"), xenstore=str(tmp_path / "socket"), pid=2**22 + 1
    )
    (tmp_path / FILE).write_bytes(msgspec.json.encode(running))
    return tmp_path


async def test_a_mesh_that_died(dead: Path, options: Options) -> None:
    findings = await found(options(dir=str(dead)))

    assert findings["bus"].level.value == "wrong"
    assert findings["bus"].mend == f"xenmesh up --dir {dead}"
    assert findings["xenstore"].level.value == "wrong"


def test_each_finding_says_why_and_what_to_do(dead: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--dir", str(dead), "-o", "table"]) == 1
    text = capsys.readouterr().out
    assert f"do:  xenmesh up --dir {dead}" in text
    assert "why: " in text
    assert text.endswith("2 wrong\n")

    assert main(["doctor", "--dir", str(dead)]) == 1
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"what", "level", "saw", "why", "mend"} == set(records[0])
