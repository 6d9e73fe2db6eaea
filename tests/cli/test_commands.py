import pytest

from xenmesh.cli.commands import COMMANDS, load, parser_of
from xenmesh.cli.exits import TABLE

NAMES = [name for name in COMMANDS if name != "help"]


@pytest.mark.parametrize("name", NAMES)
def test_help_opens_with_examples_and_ends_with_the_exit_codes(name: str) -> None:
    text = parser_of(name, load(name)).format_help()

    assert text.index("examples:") < text.index("options:") < text.index("exit codes:")
    assert f"xenmesh {name}" in text.split("examples:")[1]
    assert all(str(code.value) in text.split("exit codes:")[1] for code in TABLE)


@pytest.mark.parametrize("name", NAMES)
def test_examples_name_options_that_there_are(name: str) -> None:
    command = load(name)
    parser = parser_of(name, command)
    for line in command.EXAMPLES.strip().splitlines():
        told = line.split("#")[0].split("|")[0].split(";")[0].split(">")[0].split("&&")[0].strip().removeprefix("$")
        if told.startswith(f"xenmesh {name}"):
            words = [word.strip("'\"") for word in told.split()[2:]]
            parser.parse_args(words)


def test_no_option_may_be_abbreviated() -> None:
    with pytest.raises(SystemExit):
        parser_of("watch", load("watch")).parse_args(["--snap"])
