"""A machine without the rigs is played by an empty PATH; pytest runs anew in it."""

from pathlib import Path

import pytest
from rigs import catalogue

RIG_TEST = """
    import pytest

    @pytest.mark.rig("xenstore-utils")
    def test_with_tools():
        pass

    def test_without():
        pass
"""
LAB_TEST = """
    import pytest

    @pytest.mark.lab
    def test_in_dom0():
        pass

    def test_here():
        pass
"""


@pytest.fixture
def machine(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A pytest with the bookkeeping alone, in a fresh process; the machine has its rigs."""
    monkeypatch.setenv("PYTHONPATH", str(Path(catalogue.__file__).parents[1]))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("XENMESH_RIGS", raising=False)
    tools = pytester.mkdir("tools")
    for tool in ("read", "write", "ls", "watch"):
        (tools / f"xenstore-{tool}").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tools))
    return pytester


@pytest.fixture
def bare(machine: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PATH", str(machine.mkdir("nothing")))
    return machine


def run(machine: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return machine.runpytest_subprocess("-p", "rigs.bookkeeping", "-p", "xdist", "-rs", *arguments)


WAYS = pytest.mark.parametrize("way", [(), ("-p", "xdist", "-n", "1")], ids=["alone", "xdist"])


@WAYS
def test_a_rig_that_is_there_lets_its_tests_run(machine, way):
    machine.makepyfile(RIG_TEST)
    run(machine, *way).assert_outcomes(passed=2)


@WAYS
def test_a_missing_rig_is_named_with_the_package_and_the_tests_it_kept_back(bare, way):
    bare.makepyfile(RIG_TEST)
    result = run(bare, *way)
    result.assert_outcomes(passed=1, skipped=1)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "*rigs missing on this machine*",
            "xenstore-utils: no xenstore-read*apt install xenstore-utils*1 tests not run for it",
            "SKIPPED*rig xenstore-utils is missing*apt install xenstore-utils*",
        ]
    )


def test_missing_rigs_are_named_even_where_no_test_wanted_them(bare):
    bare.makepyfile("def test_nothing(): pass")
    result = run(bare)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["gcc: *apt install gcc*0 tests not run for it"])


@WAYS
def test_required_makes_a_missing_rig_an_error(bare, monkeypatch, way):
    monkeypatch.setenv("XENMESH_RIGS", "required")
    bare.makepyfile(RIG_TEST)
    result = run(bare, *way)
    result.assert_outcomes(passed=1, errors=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "*XENMESH_RIGS=required, so this is an error: *rig xenstore-utils is missing*",
            "xenstore-utils: *; 1 tests not run for it",
        ]
    )


def test_required_forbids_a_rig_test_to_skip_itself(machine, monkeypatch):
    monkeypatch.setenv("XENMESH_RIGS", "required")
    machine.makepyfile(
        """
        import pytest

        @pytest.mark.rig("xenstore-utils")
        def test_shy():
            pytest.skip("not today")

        @pytest.mark.rig("xenstore-utils")
        @pytest.mark.xfail(reason="known", strict=True)
        def test_known():
            assert False

        def test_of_no_rig():
            pytest.skip("a matter of taste")
        """
    )
    result = run(machine)
    result.assert_outcomes(failed=1, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines(["*so this is an error: *not today*"])


def test_a_rig_that_another_needs_is_missed_too(bare):
    bare.makepyfile(
        """
        import pytest

        @pytest.mark.rig("libnats")
        def test_client():
            pass
        """
    )
    result = run(bare)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*rig gcc is missing*rig libnats is missing*"])


def test_a_fixture_brings_its_rigs(bare):
    bare.makepyfile(
        """
        import pytest

        @pytest.fixture
        def python39():
            raise AssertionError("not asked whether it is there")

        def test_old(python39):
            pass
        """
    )
    run(bare).assert_outcomes(skipped=1)


def test_a_rig_unknown_to_the_catalogue_is_an_error(machine):
    machine.makepyfile(
        """
        import pytest

        @pytest.mark.rig("xenstord")
        def test_misspelt():
            pass
        """
    )
    result = run(machine)
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*no rig 'xenstord'; there are: gcc, *"])


@WAYS
def test_lab_tests_are_left_out_and_counted_unless_asked_for(machine, way):
    machine.makepyfile(LAB_TEST)
    result = run(machine, *way)
    assert result.parseoutcomes()["passed"] == 1
    result.stdout.fnmatch_lines(["1 lab tests left out: make test-lab runs them"])


def test_lab_tests_run_where_asked_for(machine):
    machine.makepyfile(LAB_TEST)
    result = run(machine, "-m", "lab")
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.no_fnmatch_line("*lab tests left out*")


def test_expand_names_each_rig_once_after_what_it_needs():
    assert catalogue.expand(["xenstored", "oxenstored"]) == ["gcc", "xenstored", "oxenstored"]


def test_each_need_and_each_fixture_is_of_the_catalogue():
    for rig in catalogue.RIGS.values():
        assert set(rig.needs) <= set(catalogue.RIGS)
    for needs in catalogue.FIXTURES.values():
        assert set(needs) <= set(catalogue.RIGS)
