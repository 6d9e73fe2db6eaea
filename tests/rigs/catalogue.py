"""The rigs: real components that tests run against, and how a machine gets them.

A test names what it needs by ``@pytest.mark.rig("xenstored")`` or by a fixture
that says so (`FIXTURES`); `rigs.bookkeeping` sees to it that a missing rig is
named, never passed over in silence.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FIXTURES", "RIGS", "TOP", "Rig", "expand", "find_python39", "missing"]

TOP = Path(__file__).resolve().parents[2]
"""The checkout."""


@dataclass(frozen=True)
class Rig:
    """One component: ``lack()`` says what is not there, or nothing where all is well."""

    advice: str
    """What to do on a machine that lacks it: a Debian package, or a command."""
    lack: Callable[[], str | None]
    needs: tuple[str, ...] = ()
    """Other rigs that this one is made with."""


def _program(*names: str) -> Callable[[], str | None]:
    def lack() -> str | None:
        absent = [name for name in names if shutil.which(name) is None]
        return f"no {', '.join(absent)} in PATH" if absent else None

    return lack


def _header(name: str) -> str | None:
    compiler = shutil.which("gcc")
    if compiler is None:
        return "no gcc to look for headers with"
    found = subprocess.run(
        [compiler, "-E", "-x", "c", "-include", name, os.devnull],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return f"no header {name}" if found.returncode else None


def _daemon(name: str) -> Callable[[], str | None]:
    # The places where rigs/xenstored-local looks.
    def lack() -> str | None:
        places = [*Path("/usr/lib").glob(f"xen-*/bin/{name}")]
        places += [Path("/usr/local/sbin", name), Path("/usr/sbin", name)]
        if os.environ.get("XENSTORED_BIN"):
            places.append(Path(os.environ["XENSTORED_BIN"]))
        if not any(os.access(place, os.X_OK) for place in places):
            return f"no {name}"
        return _header("xenctrl.h")

    return lack


@functools.cache
def find_python39() -> str | None:
    """A Python 3.9 that runs: $XENMESH_PYTHON39, one in PATH, or Debian 11's by rigs/get-python3.9."""
    unpacked = TOP / "build" / "rigs" / "python3.9" / "bin" / "python3.9"
    for candidate in (os.environ.get("XENMESH_PYTHON39"), "python3.9", str(unpacked)):
        path = shutil.which(candidate) if candidate else None
        if path is None:
            continue
        if _python_version(path, os.environ)[:1] == ["3.9"]:
            return path
        # pyenv's shim stands in PATH but runs only a version that was chosen.
        chosen = _python_version(path, {**os.environ, "PYENV_VERSION": "3.9"})
        if chosen[:1] == ["3.9"]:
            return chosen[1]
    return None


def _python_version(path: str, env: Mapping[str, str]) -> list[str]:
    says = subprocess.run(
        [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2]); print(sys.executable)"],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return says.stdout.splitlines()


def _lack_python39() -> str | None:
    return None if find_python39() else "no python3.9 that runs"


def _lack_lab() -> str | None:
    lack = _program("qemu-system-x86_64", "qemu-img", "ssh")()
    directory = Path(os.environ.get("XENLAB_DIR") or TOP / "build" / "lab")
    if lack is None and not (directory / "image" / "stamp").exists():
        lack = _program("debootstrap")()
        if os.geteuid() != 0 and shutil.which("sudo") is None:
            lack = "neither an image of the lab nor root to make one"
    return lack


RIGS = {
    "gcc": Rig("apt install gcc libc6-dev", _program("gcc")),
    "xenstored": Rig("apt install xen-utils-4.17 libxen-dev", _daemon("xenstored"), ("gcc",)),
    "oxenstored": Rig("apt install xen-utils-4.17 libxen-dev", _daemon("oxenstored"), ("gcc",)),
    "xenstore-utils": Rig(
        "apt install xenstore-utils",
        _program("xenstore-read", "xenstore-write", "xenstore-ls", "xenstore-watch"),
    ),
    "python3.9": Rig("tests/rigs/get-python3.9 unpacks Debian 11's", _lack_python39),
    "libnats": Rig("apt install libnats-dev", lambda: _header("nats/nats.h"), ("gcc",)),
    "systemd": Rig("apt install systemd", _program("systemd-analyze")),
    "groff": Rig("apt install groff-base", _program("groff")),
    "zsh": Rig("apt install zsh", _program("zsh")),
    "fish": Rig("apt install fish", _program("fish")),
    "lab": Rig(
        "apt install qemu-system-x86 qemu-utils openssh-client debootstrap; then make lab",
        _lack_lab,
    ),
}

FIXTURES = {
    "xenstored_c": ("xenstored",),
    "xenstored_ocaml": ("oxenstored",),
    "python39": ("python3.9",),
    "lab": ("lab",),
}
"""What each fixture needs; `xenstored` says it by the marks of its parameters."""


def expand(names: list[str]) -> list[str]:
    """The rigs named and all that they need, each once, in order of need.

    Raises KeyError for a name that is not in `RIGS`.
    """
    wanted: dict[str, None] = {}
    for name in names:
        for each in (*RIGS[name].needs, name):
            wanted[each] = None
    return list(wanted)


@functools.cache
def missing(name: str) -> str | None:
    """Why the rig ``name`` cannot be used on this machine and what to do; None where it can."""
    rig = RIGS[name]
    lack = rig.lack()
    return f"{lack} ({rig.advice})" if lack else None
