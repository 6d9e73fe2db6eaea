"""Every error makes its own sentence, and the tree of the docstring is the tree there is."""

import string

import pytest

from xenmesh.bus import errors
from xenmesh.bus.errors import BusError, Forbidden, Refused
from xenmesh.schemas.errors import Failure, Whose

KINDS = [kind for name in errors.__all__ if issubclass(kind := getattr(errors, name), BusError)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not Refused])
def test_sentence_is_made_of_the_facts(kind: type[BusError]) -> None:
    names = {field for _, field, _, _ in string.Formatter().parse(kind.form) if field}
    error = kind(**{name: f"<{name}>" for name in names})
    assert all(f"<{name}>" in error.sentence for name in names)
    assert str(error) == error.sentence
    assert set(error.facts) == names


def test_a_missing_fact_is_a_bug() -> None:
    with pytest.raises(KeyError):
        errors.TooLarge(subject="a")


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in KINDS]
    assert len(set(codes)) == len(codes)


def test_docstring_draws_every_class_below_its_base() -> None:
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if "─" in line or line.strip() == "BusError":
            name = line.split("─ ")[-1].split()[0]
            depth = line.index(name)
            above = [(d, n) for d, n in above if d < depth]
            drawn[name] = above[-1][1] if above else ""
            above.append((depth, name))
    assert drawn == {kind.__name__: (kind.__bases__[0].__name__ if kind is not BusError else "") for kind in KINDS}


def test_refused_carries_the_failure_of_the_table() -> None:
    error = Refused.of("too-busy", service="store", waiting=9)
    assert (error.code, error.whose, error.retry) == ("too-busy", Whose.OURS, True)
    assert error.failure.number == 429
    assert str(error) == "store has 9 requests waiting already."


def test_refused_by_a_newer_service_keeps_its_unknown_code() -> None:
    error = Refused(Failure(code="new-code", sentence="New.", facts={}, number=418))
    assert (error.code, error.whose, error.retry) == ("new-code", Whose.THEIRS, False)


def test_forbidden_names_the_subject() -> None:
    assert Forbidden(user="view", what="hear", subject="a.b").subject == "a.b"
