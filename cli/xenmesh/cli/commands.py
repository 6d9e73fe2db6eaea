"""The commands: one line each, here, so that `xenmesh --help` loads none of them.

A command is a module of this package with

* ``DESCRIPTION``, ``EXAMPLES``: what its ``--help`` opens with;
* ``options(parser)``: its arguments;
* ``async run(args, out) -> int``: the work; what it returns is the exit code;
* ``ENDLESS = True`` where it runs until Ctrl-C by its nature, which then is no failure.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Awaitable
from typing import NamedTuple, Protocol, cast

from .exits import TABLE
from .output import Printer

__all__ = ["COMMANDS", "Command", "Help", "Listed", "below", "examples", "load", "parser_of"]


class Listed(NamedTuple):
    """A command as ``xenmesh --help`` lists it."""

    summary: str
    group: str


_HOST, _LOOK, _KEEP, _SELF = "run", "look", "record", "this command"

COMMANDS: dict[str, Listed] = {
    "up": Listed("start everything: the bus, all services and, without Xen, a simulated host", _HOST),
    "sim": Listed("a simulated host alone: its xenstored and its guests", _HOST),
    "watch": Listed("events as they happen", _LOOK),
    "store": Listed("xenstore through the mesh: ls, read, watch", _LOOK),
    "services": Listed("the services on the bus", _LOOK),
    "wait": Listed("wait until something is so: a domain, a key, a service", _LOOK),
    "doctor": Listed("what is wrong, why, and the command that mends it", _LOOK),
    "record": Listed("write the stream to a file", _KEEP),
    "replay": Listed("show or serve a recorded stream", _KEEP),
    "completion": Listed("completion for bash, zsh or fish", _SELF),
    "help": Listed("help on a command", _SELF),
}
"""Every command, in the order of ``--help``."""


class Command(Protocol):
    """The module of a command."""

    DESCRIPTION: str
    EXAMPLES: str

    def options(self, parser: argparse.ArgumentParser) -> None:
        """Add its arguments."""

    def run(self, args: argparse.Namespace, out: Printer) -> Awaitable[int]:
        """Do it; the result is the exit code."""


def load(name: str) -> Command:
    """The command ``name``, a key of `COMMANDS`."""
    return cast("Command", importlib.import_module(f"{__package__}.{name}"))


class Help(argparse.RawDescriptionHelpFormatter):
    """How every --help is laid out."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=100)


def examples(text: str) -> str:
    """The examples, as --help shows them: each line indented once."""
    return "\n".join(f"  {line}".rstrip() for line in text.strip().splitlines())


def below(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, given: str = ""
) -> argparse.ArgumentParser:
    """The parser of a command below a command; ``given``: examples of its own."""
    description = f"{text[0].upper()}{text[1:]}." + (f"\n\nexamples:\n{examples(given)}" if given else "")
    return verbs.add_parser(name, help=text, description=description, formatter_class=Help, allow_abbrev=False)


def parser_of(name: str, command: Command) -> argparse.ArgumentParser:
    """The parser of one command: what it is for, examples, options, exit codes, in this order."""
    codes = "\n".join(f"  {code.value:<4} {meaning}" for code, meaning in TABLE.items())
    parser = argparse.ArgumentParser(
        prog=f"xenmesh {name}",
        description=f"{command.DESCRIPTION.strip()}\n\nexamples:\n{examples(command.EXAMPLES)}",
        epilog=f"exit codes:\n{codes}",
        formatter_class=Help,
        allow_abbrev=False,
    )
    command.options(parser)
    return parser
