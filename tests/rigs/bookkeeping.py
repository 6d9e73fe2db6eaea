"""A pytest plugin: what this machine lacks is named, never passed over in silence.

* A test marked ``rig("name")``, or using a fixture that needs a rig, is skipped
  where the rig is missing, with a reason that says how to get it; a section at
  the end of the run names every missing rig and how many tests it kept back.
* ``XENMESH_RIGS=required``: there, whatever skips a test of a rig is an error.
* Tests marked ``lab`` run only where ``-m`` speaks of them; a run without says
  how many it left out.
"""

import os
from collections import Counter
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest
from rigs.catalogue import FIXTURES, RIGS, expand, missing

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

__all__: list[str] = []

_LAB_TIMEOUT = 900  # seconds; the first test of a run boots Dom0
_LEFT_OUT = pytest.StashKey[int]()
_PROPERTY = "missing rig"


def _required() -> bool:
    return os.environ.get("XENMESH_RIGS") == "required"


def _rigs(item: pytest.Item) -> list[str]:
    named = [str(name) for mark in item.iter_markers("rig") for name in mark.args]
    for fixture in getattr(item, "fixturenames", ()):
        named += FIXTURES.get(fixture, ())
    for name in named:
        if name not in RIGS:
            raise pytest.UsageError(f"{item.nodeid}: no rig {name!r}; there are: {', '.join(RIGS)}")
    return expand(named)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "rig(name, ...): needs real components of this machine")
    config.addinivalue_line("markers", "lab: runs in or against the real Xen Dom0 under QEMU")
    config.stash[_LEFT_OUT] = 0


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("lab") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_LAB_TIMEOUT))
    if "lab" in (config.option.markexpr or ""):
        return
    left_out = [item for item in items if item.get_closest_marker("lab")]
    if left_out:
        items[:] = [item for item in items if not item.get_closest_marker("lab")]
        config.hook.pytest_deselected(items=left_out)
        config.stash[_LEFT_OUT] = len(left_out)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    lacking = {name: reason for name in _rigs(item) if (reason := missing(name))}
    if lacking:
        item.user_properties += [(_PROPERTY, name) for name in lacking]
        pytest.skip("; ".join(f"rig {name} is missing: {why}" for name, why in lacking.items()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and _required() and _rigs(item):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        report.outcome = "failed"
        report.longrepr = f"XENMESH_RIGS=required, so this is an error: {why}"
    return report


# Under xdist the workers collect and this process prints.


def pytest_sessionfinish(session: pytest.Session) -> None:
    output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["lab tests left out"] = session.config.stash[_LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    config: pytest.Config = node.config  # type: ignore[attr-defined]
    output: dict[str, int] = getattr(node, "workeroutput", {})
    left_out = output.get("lab tests left out", 0)
    config.stash[_LEFT_OUT] = max(config.stash[_LEFT_OUT], left_out)


def pytest_terminal_summary(terminalreporter: "TerminalReporter", config: pytest.Config) -> None:
    left_out = config.stash[_LEFT_OUT]
    if left_out:
        terminalreporter.section("lab")
        terminalreporter.line(f"{left_out} lab tests left out: make test-lab runs them")
    lacking = {name: why for name in RIGS if (why := missing(name))}
    if not lacking:
        return
    kept_back = Counter(
        str(value)
        for status in ("skipped", "error", "failed")
        for report in terminalreporter.getreports(status)
        for key, value in getattr(report, "user_properties", ())
        if key == _PROPERTY
    )
    terminalreporter.section("rigs missing on this machine")
    for name, why in lacking.items():
        terminalreporter.line(f"{name}: {why}; {kept_back[name]} tests not run for it")
