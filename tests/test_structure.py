"""The house rules, as tests: what a reader may rely on without looking."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import files
from pathlib import Path

import pytest

from xenmesh.schemas import EVENTS
from xenmesh.schemas.subjects import ADDRESSES, DECLARATIONS

REPOSITORY = Path(__file__).parents[1]
ROOMS = ("schemas", "bus", "xenstore", "xen", "services", "guest", "sim", "cli")
OLD_PYTHON = ("xenstore", "guest")

SOURCES = [path for room in ROOMS for path in sorted((REPOSITORY / room / "xenmesh" / room).rglob("*.py"))]
SERVICES = sorted(path.parent for path in (REPOSITORY / "services/xenmesh/services").glob("*/model.py"))

PURE = [
    *(REPOSITORY / "schemas/xenmesh/schemas").glob("*.py"),
    *(REPOSITORY / "xenstore/xenmesh/xenstore").glob("*.py"),
    *(service / "model.py" for service in SERVICES),
    REPOSITORY / "guest/xenmesh/guest/model.py",
]
"""Files that compute and nothing else."""

UNTESTED: dict[str, str] = {
    "schemas/xenmesh/schemas/domain.py": "shapes alone; test_subjects and test_envelope carry them",
    "schemas/xenmesh/schemas/guest.py": "shapes alone; test_subjects and test_envelope carry them",
    "schemas/xenmesh/schemas/metrics.py": "shapes alone; test_subjects and test_envelope carry them",
    "schemas/xenmesh/schemas/service.py": "shapes alone; test_subjects and test_envelope carry them",
    "schemas/xenmesh/schemas/store.py": "shapes alone; test_subjects and test_envelope carry them",
    "bus/xenmesh/bus/abc.py": "abstract; test_conformance holds its implementations to it",
    "bus/xenmesh/bus/message.py": "values alone",
}


def name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def mirror(path: Path) -> list[Path]:
    """Where a source file's tests may be: tests/<room>/<folders>/test_<file>.py or test_<file>_<part>.py."""
    room, _, _, *folders, file = path.relative_to(REPOSITORY).parts
    folder = REPOSITORY / "tests" / room / Path(*folders)
    stem = Path(file).stem.strip("_")
    return [*folder.glob(f"test_{stem}.py"), *folder.glob(f"test_{stem}_*.py")]


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name != "__init__.py"], ids=name)
def test_each_source_file_has_its_test_file(path: Path) -> None:
    assert bool(mirror(path)) is not (name(path) in UNTESTED), "missing, or excused without need"


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_each_service_has_its_four_files(service: Path) -> None:
    assert {"config.py", "source.py", "model.py", "service.py"} <= {path.name for path in service.glob("*.py")}
    assert DECLARATIONS[service.name].built


def test_each_built_service_is_there() -> None:
    assert {given.name for given in DECLARATIONS.values() if given.built} == {service.name for service in SERVICES}


@pytest.mark.parametrize("path", PURE, ids=name)
def test_pure_files_cannot_wait(path: Path) -> None:
    tree = ast.parse(path.read_text())
    imports = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names} | {
        (node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level
    }

    assert not imports & {"asyncio", "anyio", "socket", "time", "logging", "threading", "random", "select", "selectors"}
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_file_is_called_utils(path: Path) -> None:
    assert not {part.removesuffix(".py") for part in path.parts} & {
        "utils",
        "util",
        "helpers",
        "helper",
        "manager",
        "common",
        "misc",
    }


@pytest.mark.parametrize("path", [p for p in SOURCES if p.relative_to(REPOSITORY).parts[0] in OLD_PYTHON], ids=name)
def test_old_python_reads_the_rooms_that_run_in_guests(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 9))


@pytest.mark.parametrize("kind", EVENTS.values(), ids=EVENTS)
def test_each_event_is_documented_and_has_a_subject(kind: type) -> None:
    assert kind.__doc__
    assert kind in ADDRESSES


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_everything_public_is_documented_and_said_to_be_public(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if path.name in {"__init__.py", "__main__.py"}:
        return
    assert ast.get_docstring(tree), "a file says what it is"
    assert [node for node in tree.body if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"], (
        "__all__"
    )


def test_xenmesh_is_a_namespace_without_a_file_of_its_own() -> None:
    assert import_module("xenmesh").__file__ is None
    for room in ROOMS:
        listed = [str(path) for path in files(f"xenmesh-{room}") or []]
        assert "xenmesh/__init__.py" not in listed
        assert not (REPOSITORY / room / "xenmesh/__init__.py").exists()


@pytest.mark.skipif("XENMESH_WHEELS" not in os.environ, reason="only `make test` promises to test wheels")
@pytest.mark.parametrize("room", ROOMS)
def test_the_wheel_is_tested_and_not_the_tree(room: str) -> None:
    origin = Path(str(import_module(f"xenmesh.{room}").__file__))

    assert origin.is_relative_to(sys.prefix)
    assert (origin.parent / "py.typed").exists()


def committed() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True).stdout.decode()
    return [REPOSITORY / path for path in listed.split("\0") if path and (REPOSITORY / path).is_file()]


def test_nothing_committed_names_an_index_host_or_a_home() -> None:
    hosts = re.compile(r"https?://[a-z0-9.-]*(?:pypi|pythonhosted|npmjs|deb\.debian|proxy\.golang|crates\.io)")
    for path in committed():
        if path.suffix in {".txt", ".toml", ".lock", ".cfg", ".json", ".py", ".sh", ""} and path != Path(__file__):
            assert not hosts.search(path.read_text("utf-8", "replace")), path


def test_every_third_party_package_is_pinned_by_hash() -> None:
    for path in (REPOSITORY / "requirements").glob("*.txt"):
        for entry in re.split(r"\n(?=\S)", path.read_text().strip()):
            if entry and not entry.startswith("#"):
                assert re.match(r"[\w.-]+==[\w.]+", entry), entry
                assert "--hash=sha256:" in entry, entry


def test_what_runs_in_dom0_has_no_aiohttp() -> None:
    assert "aiohttp" not in (REPOSITORY / "requirements/run.txt").read_text()
