"""``xenmeshd``: the command."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from xenmesh.schemas.subjects import DECLARATIONS

from .config import DIRECTORY, SERVICES, Config, credential, load, show
from .errors import DaemonError
from .hostid import FILE, kept_id

if TYPE_CHECKING:
    from xenmesh.bus.abc import Bus

__all__ = ["main"]

_log = logging.getLogger(__name__)

_EPILOG = f"""\
configuration:
  {DIRECTORY}/*.toml, then {DIRECTORY}/conf.d/*.toml; then XENMESH_<SECTION>_<KEY> from the environment,
  such as XENMESH_BUS_URL=nats://127.0.0.1:4222. xenmeshd --print-config shows every key.
  The services' keys for the bus: <service>.nk in [bus] credentials or $CREDENTIALS_DIRECTORY.

exit status:
  0   stopped by SIGTERM or SIGINT, or all that was checked is well
  2   wrong arguments
  69  no bus within [bus] wait seconds
  70  a service failed (the log says why)
  73  the host's id can neither be read nor made
  78  the configuration is wrong

examples:
  xenmeshd all                         every service in one process
  xenmeshd store                       one service
  xenmeshd --check all                 is the configuration right, and what would run?
  xenmeshd --config my.toml events     with this file instead of those in {DIRECTORY}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.version:
        sys.stdout.write(f"xenmeshd {_version()}\n")
        return 0
    unknown = [name for name in given.services if name not in (*SERVICES, "all")]
    if unknown or not (given.services or given.check or given.print_config or given.host_id):
        problem = f"there is no service {unknown[0]!r}" if unknown else "name a service"
        parser.error(f"{problem}; there are: {', '.join(SERVICES)}, and all")
    names = tuple(dict.fromkeys(SERVICES if not given.services or "all" in given.services else given.services))
    try:
        config = load(() if given.host_id else names, given.config, whole=given.check or given.print_config)
        if given.host_id:
            sys.stdout.write(f"{config.host()}\n")
            return 0
        if given.print_config:
            sys.stdout.write(show(config))
            return 0
        if given.check:
            sys.stdout.write(_plan(config))
            return 0
        return _run(config)
    except DaemonError as error:
        sys.stderr.write(f"xenmeshd: {error.sentence}\n")
        return error.status


def _version() -> str:
    from importlib.metadata import version  # 60 ms, and twenty times that under emulation

    return version("xenmesh-services")


def _parser() -> argparse.ArgumentParser:
    services = "\n".join(f"  {name:<8} {DECLARATIONS[name].purpose}" for name in SERVICES)
    parser = argparse.ArgumentParser(
        prog="xenmeshd",
        description=f"Run services of the Xen mesh in this process, in the foreground.\n\nservices:\n{services}\n  all      all of them",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("services", nargs="*", metavar="service", help="what to run; see above")
    parser.add_argument(
        "--config",
        type=Path,
        action="append",
        metavar="FILE",
        help=f"read FILE (a directory: the files in it) instead of those in {DIRECTORY}; may be repeated",
    )
    parser.add_argument("--check", action="store_true", help="check the configuration and say what would run; run nothing")
    parser.add_argument("--print-config", action="store_true", help="print the configuration in force, and who set each key")
    parser.add_argument("--host-id", action="store_true", help="print this host's id; where there is none yet, make it")
    parser.add_argument("--version", action="store_true", help="print the version")
    return parser


def _plan(config: Config) -> str:
    """What would run, and with what."""
    state = Path(config.mesh.state)
    host = config.mesh.host or kept_id(state) or f"made at the first start and kept in {state / FILE}"
    lines = [
        f"configuration  {', '.join(map(str, config.files)) or f'defaults; nothing in {DIRECTORY}'}",
        f"host           {host}",
        f"bus            {config.bus.url}",
        f"xenstore       {config.xenstore.path or 'where libxenstore looks'}",
        f"state          {config.mesh.state}",
    ]
    for name in config.services:
        key = credential(config.bus, name)
        lines.append(f"service        {name}, with {key or 'no key'}: {DECLARATIONS[name].purpose}")
    return "\n".join(lines) + "\n"


def _run(config: Config) -> int:
    # Here, since asking for the host's id or a check of the configuration needs neither a loop nor a bus.
    import anyio

    from xenmesh.bus.nats import connect

    from . import journal
    from .process import Process, service
    from .systemd import Notifier, watchdog_interval

    root = logging.getLogger()
    root.addHandler(journal.handler())
    root.setLevel(config.mesh.log.upper())
    logging.raiseExceptions = False
    try:
        host = config.host()
        keys = {name: credential(config.bus, name) for name in config.services}

        def connected(name: str) -> AbstractAsyncContextManager[Bus]:
            return connect(config.bus.url, user=name, host=host, seed=keys[name], deadline=config.bus.wait)

        runs = {name: service(name) for name in config.services}
        process = Process(runs, config, host, connected, Notifier(), watchdog_interval())
        _log.info("xenmeshd %s: %s on host %s", _version(), ", ".join(runs), host)
        anyio.run(process.run)
    except DaemonError as error:
        _log.critical("%s", error.sentence)
        Notifier().status(error.sentence)
        return error.status
    _log.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
