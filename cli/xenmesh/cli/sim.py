"""`xenmesh sim`: the simulated host alone, for any xenstore program."""

from __future__ import annotations

import argparse
import random
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from . import times
from .errors import CommandError, NotFound, UsageError
from .exits import Exit
from .output import Printer, Span, Style
from .output import add_options as add_output
from .place import absolute, hold
from .records import mark

__all__ = ["DESCRIPTION", "ENDLESS", "EXAMPLES", "add_sim_options", "options", "run", "simulated"]

DESCRIPTION = """Run a simulated host in the foreground until Ctrl-C: a xenstored with its socket at DIR/socket, and guests that boot, run, change
their address, shut down, reboot and crash, and write what libxl and a guest write. No Xen and no root is needed; no bus is started."""

EXAMPLES = """
xenmesh sim --dir /tmp/host
XENSTORED_PATH=/tmp/host/socket xenstore-ls -f          # in another terminal
xenmesh sim --dir /tmp/host --guests 0                  # an empty xenstored
xenmesh sim --dir /tmp/host --guests 200 --speed 20 --seed 7 --server ocaml
"""

ENDLESS = True


def options(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("--dir", required=True, metavar="DIR", help="where its socket is made: DIR/socket")
    add_sim_options(parser)
    parser.add_argument("--for", dest="seconds", metavar="TIME", help="end after this time: 20, 20s, 5m")
    add_output(parser)


def add_sim_options(parser: argparse.ArgumentParser) -> None:
    """What may be set of a simulated host."""
    parser.add_argument(
        "--guests", type=int, default=3, metavar="N", help="simulated guests (default: %(default)s; 0: an empty xenstore)"
    )
    parser.add_argument("--speed", type=float, default=1.0, metavar="X", help="how fast they live (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=None, metavar="S", help="for the same run again (default: another each time)"
    )
    parser.add_argument(
        "--server", choices=["c", "ocaml"], default="c", metavar="KIND", help="which xenstored to be like: c (default) or ocaml"
    )


@asynccontextmanager
async def simulated(directory: Path, args: argparse.Namespace) -> AsyncIterator[int]:
    """The host as the options want it, its socket at ``directory/socket``; gives the seed, for the same run again.

    Raises:
        NotFound: the simulator is not installed.
    """
    try:
        from xenmesh.sim.errors import SimError
        from xenmesh.sim.host import Host
    except ImportError as error:
        raise NotFound(f"the simulated host needs the package {error.name}", "pip install 'xenmesh-cli[host]'") from None
    seed = random.randrange(1 << 32) if args.seed is None else args.seed  # noqa: S311 - made-up lives, not a secret
    try:
        async with Host(directory, guests=args.guests, speed=args.speed, seed=seed, server=args.server):
            yield seed
    except SimError as error:
        raise CommandError(error.sentence) from None


async def run(args: argparse.Namespace, out: Printer) -> int:
    """Run it."""
    try:
        seconds = times.seconds(args.seconds) if args.seconds else None
    except ValueError as error:
        raise UsageError(str(error)) from None
    if args.guests < 0 or args.speed <= 0:
        raise UsageError("--guests must be 0 or more, --speed above 0")
    directory = absolute(args.dir)
    with hold(directory):
        async with simulated(directory, args) as seed:
            socket = directory / "socket"
            facts = {"socket": str(socket), "guests": args.guests, "speed": args.speed, "seed": seed, "server": args.server}
            out.mark(mark("sim", facts))
            what = f"{args.guests} guests at speed {args.speed:g}, seed {seed}" if args.guests else "no guests"
            out.text(
                (Span("A simulated host", Style.BOLD), f" runs in {directory} ({what}, like {args.server}); Ctrl-C ends it.")
            )
            out.text()
            out.text((Span("Try, in another terminal:", Style.BOLD),))
            for command in ("xenstore-ls -f", "xenstore-watch /local/domain", "xenmeshd store"):
                out.text((f"  XENSTORED_PATH={shlex.quote(str(socket))} {command}",))
            with anyio.move_on_after(seconds):
                await anyio.sleep_forever()
    return Exit.OK
