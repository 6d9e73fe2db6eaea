"""``xenmesh COMMAND ...``: finds the command, runs it, turns what went wrong into one sentence and an exit code.

Only the command that is asked for is imported; ``xenmesh --help`` loads none.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
import os
import signal
import sys
from typing import TYPE_CHECKING

from .commands import COMMANDS, load, parser_of
from .exits import TABLE, Exit
from .output import Printer, Style, harmless

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .commands import Command

__all__ = ["first_error", "main", "overview"]


def overview() -> str:
    """What ``xenmesh --help`` prints."""
    lines = ["usage: xenmesh COMMAND [OPTIONS]", "", "Events and state of a Xen host, typed, ordered and replayable.", ""]
    lines += ["  try it, without Xen and without root:   xenmesh up", ""]
    group = ""
    for name, listed in COMMANDS.items():
        if listed.group != group:
            group = listed.group
            lines.append(f"{group}:")
        lines.append(f"  {name:<12}{listed.summary}")
    lines += [
        "",
        "`xenmesh help COMMAND` shows examples first. Domains go by name, domid or uuid.",
        "",
        "exit codes:",
        *(f"  {code.value:<4} {meaning}" for code, meaning in TABLE.items()),
        "",
        "environment:",
        "  XENMESH_DIR      where a mesh runs (as --dir)",
        "  NO_COLOR         no colours",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; the result is the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        return _main(given)
    except BrokenPipeError:
        _give_up_stdout()
        return Exit.PIPE
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


def _main(given: list[str]) -> int:
    match given:
        case [] | ["-h"] | ["--help"] | ["help"]:
            print(overview())
            return Exit.OK if given else Exit.USAGE
        case ["--version" | "-V"]:
            print(f"xenmesh {importlib.metadata.version('xenmesh-cli')}")
            return Exit.OK
        case ["help", "--man"]:
            from .man import render
            from .shape import command_line

            print(render(command_line()), end="")
            return Exit.OK
        case ["help", name, *rest]:
            return _main([name, *rest, "--help"])
        case [name, *_] if name not in COMMANDS:
            return _unknown(name)
        case [name, *rest]:
            command = load(name)
            args = parser_of(name, command).parse_args(rest)
            return _run(command, args)
        case _:
            raise AssertionError


def _unknown(name: str) -> int:
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    meant = f"Did you mean `xenmesh {near[0]}`?" if near else "`xenmesh --help` lists the commands."
    kind = "command"
    if name.startswith("-"):
        kind, meant = "option", "Options come after the command: `xenmesh COMMAND [OPTIONS]`."
    print(f"xenmesh: there is no {kind} {harmless(name)} here. {meant}", file=sys.stderr)
    return Exit.USAGE


def _run(command: Command, args: argparse.Namespace) -> int:
    import logging

    import anyio

    from xenmesh.bus.errors import BusError

    from .errors import CommandError, exit_of

    # What the rooms below log, a command says itself, as errors, gaps and notes.
    logging.getLogger().addHandler(logging.NullHandler())
    out = Printer.standard(getattr(args, "output", None))
    try:
        return anyio.run(_until_signalled, command, args, out)
    except* BrokenPipeError:
        raise BrokenPipeError from None
    except* (CommandError, BusError) as group:
        error = first_error(group)
        if isinstance(error, CommandError):
            code, sentence, hint = error.exit, error.sentence, error.hint
        elif isinstance(error, BusError):
            (code, hint), sentence = exit_of(error), error.sentence
        else:
            raise
        out.note(f"xenmesh: {sentence}", Style.BAD)
        if hint:
            out.note(f"  {hint}")
    return code


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error in the group that is not a group itself."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _until_signalled(command: Command, args: argparse.Namespace, out: Printer) -> int:
    """Run it until it is done or SIGINT, SIGTERM or SIGHUP comes; it is then cancelled and cleans up after itself."""
    import anyio

    result: int | None = None

    async def listen() -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async for _ in signals:
                group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        result = await command.run(args, out)
        group.cancel_scope.cancel()
    if result is not None:
        return result
    if getattr(command, "ENDLESS", False):
        return Exit.CUT if out.cut else Exit.OK
    return Exit.INTERRUPTED


def _give_up_stdout() -> None:
    """So that the interpreter's last flush finds somebody who reads."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
