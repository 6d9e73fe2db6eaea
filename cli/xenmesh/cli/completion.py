"""`xenmesh completion`: scripts for bash, zsh and fish, made from the parsers; names of live domains are asked of the mesh as one types."""

from __future__ import annotations

import argparse
import importlib

from .exits import Exit
from .output import Printer
from .shape import command_line
from .shells import LIVE

__all__ = ["DESCRIPTION", "EXAMPLES", "SHELLS", "options", "run", "script"]

DESCRIPTION = """Print the completion script of a shell. It completes commands, options, files, xenstore paths, and the names of the
domains that live now."""

EXAMPLES = """
source <(xenmesh completion bash)                                # this shell
xenmesh completion bash > ~/.local/share/bash-completion/completions/xenmesh
xenmesh completion zsh > "${fpath[1]}/_xenmesh"
xenmesh completion fish > ~/.config/fish/completions/xenmesh.fish
"""

SHELLS = ("bash", "zsh", "fish")


def options(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", nargs="?", help="bash, zsh or fish")
    # What the scripts call: candidates of a kind, one a line, and never an error.
    parser.add_argument("--candidates", choices=LIVE, help=argparse.SUPPRESS)
    parser.add_argument("--word", default="", help=argparse.SUPPRESS)
    parser.add_argument("--dir", help=argparse.SUPPRESS)


async def run(args: argparse.Namespace, out: Printer) -> int:
    """Print the script, or the candidates."""
    if args.candidates:
        from .candidates import candidates

        for each in await candidates(args.candidates, args.word, args.dir):
            print(each)
        return Exit.OK
    if args.shell is None:
        out.note("xenmesh completion: name a shell: bash, zsh or fish")
        return Exit.USAGE
    print(script(args.shell), end="")
    return Exit.OK


def script(name: str) -> str:
    """The completion script for the shell ``name``, one of `SHELLS`."""
    rendered: str = importlib.import_module(f"{__package__}.shells.{name}").render(command_line())
    return rendered
