from xenmesh.cli.commands import COMMANDS
from xenmesh.cli.shape import Shape, command_line


def every() -> list[Shape]:
    return [each for shape in command_line().values() for each in (shape, *shape.below.values())]


def test_all_commands_are_there() -> None:
    assert list(command_line()) == list(COMMANDS)
    assert set(command_line()["store"].below) == {"ls", "read", "watch"}
    assert set(command_line()["wait"].below) == {"domain", "gone", "key", "service"}


def test_all_that_one_may_say_is_explained() -> None:
    for shape in every():
        assert shape.summary
        assert all(option.help for option in shape.options), shape.name
        assert all(argument.help for argument in shape.arguments), shape.name


def test_kinds_tell_what_is_completed() -> None:
    watch = command_line()["watch"]

    assert watch.arguments[0].kind == "PATTERN"
    assert {option.kind for option in watch.options if "--dir" in option.flags} == {"DIR"}
    assert {option.choices for option in watch.options if "-o" in option.flags} == {("table", "json", "name")}


def test_what_only_scripts_call_is_not_shown() -> None:
    assert not [option for option in command_line()["completion"].options if "--candidates" in option.flags]
