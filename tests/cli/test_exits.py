from xenmesh.cli.exits import TABLE, Exit


def test_codes_never_change() -> None:
    assert {code.name: code.value for code in Exit} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "NOT_FOUND": 3,
        "CUT": 4,
        "NO_BUS": 5,
        "TIMEOUT": 6,
        "NOT_ALLOWED": 7,
        "INTERRUPTED": 130,
        "PIPE": 141,
    }


def test_each_code_is_documented() -> None:
    assert list(TABLE) == list(Exit)
