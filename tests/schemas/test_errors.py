import string

import pytest

from xenmesh.schemas.errors import CODES, Whose, failure


@pytest.mark.parametrize("code", CODES)
def test_each_code_makes_its_sentence_from_its_facts(code: str) -> None:
    names = [name for _, name, _, _ in string.Formatter().parse(CODES[code].sentence) if name]

    made = failure(code, **dict.fromkeys(names, "fact"))

    assert "{" not in made.sentence
    assert made.code == code
    assert made.number == CODES[code].number


@pytest.mark.parametrize("line", CODES.values(), ids=lambda line: line.code)
def test_the_number_says_whose_it_is(line) -> None:
    if line.whose is Whose.THEIRS:
        assert 400 <= line.number < 505
    else:
        assert line.number in {429, 500, 501, 502, 503, 504, 507}


def test_a_missing_fact_is_a_bug_of_the_caller() -> None:
    with pytest.raises(KeyError):
        failure("not-found", what="domain")
    with pytest.raises(KeyError):
        failure("no-such-code")
