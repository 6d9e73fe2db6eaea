"""The shape of the command line, read from the parsers: what completion and the man page are made of.

The metavar of an argument is its kind: DOMAIN, SERVICE, PATH, PATTERN, FILE and DIR are completed as such.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

from .commands import COMMANDS, load, parser_of

__all__ = ["Argument", "Option", "Shape", "command_line"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its spellings, what it takes (empty: nothing), the values there are, and its help."""

    flags: tuple[str, ...]
    kind: str
    choices: tuple[str, ...]
    help: str


@dataclass(frozen=True, slots=True)
class Argument:
    """One positional argument."""

    kind: str
    choices: tuple[str, ...]
    help: str
    optional: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """A command or a command below one."""

    name: str
    """All its words: ``store ls``."""

    summary: str
    description: str = ""
    examples: str = ""
    options: tuple[Option, ...] = ()
    arguments: tuple[Argument, ...] = ()
    below: dict[str, Shape] = field(default_factory=dict)


def command_line() -> dict[str, Shape]:
    """Every command by its name. Loads them all."""
    shapes: dict[str, Shape] = {}
    for name, listed in COMMANDS.items():
        if name == "help":
            names = tuple(each for each in COMMANDS if each != "help")
            shapes[name] = Shape(name, listed.summary, arguments=(Argument("COMMAND", names, "the command", optional=True),))
            continue
        command = load(name)
        shapes[name] = _shape(
            name, listed.summary, parser_of(name, command), command.DESCRIPTION.strip(), command.EXAMPLES.strip()
        )
    return shapes


def _shape(name: str, summary: str, parser: argparse.ArgumentParser, description: str = "", examples: str = "") -> Shape:
    options: list[Option] = []
    arguments: list[Argument] = []
    below: dict[str, Shape] = {}
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to be read
        if action.help == argparse.SUPPRESS:
            continue
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            summaries = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001
            for word, parsed in action.choices.items():
                below[word] = _shape(f"{name} {word}", summaries.get(word, ""), parsed)
            continue
        choices = tuple(str(each) for each in action.choices or ())
        kind = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
        text = (action.help or "") % {"default": action.default, "prog": parser.prog}
        if action.option_strings:
            options.append(Option(tuple(action.option_strings), kind, choices, text))
        else:
            arguments.append(Argument(kind, choices, text, action.nargs in ("?", "*")))
    return Shape(name, summary, description, examples, tuple(options), tuple(arguments), below)
