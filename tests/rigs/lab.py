"""The real Xen Dom0 under QEMU (tests/lab/xenlab), as tests see it."""

import compileall
import os
import shlex
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from py_compile import PycInvalidationMode

from rigs.catalogue import TOP
from rigs.waiting import wait_until

__all__ = ["VENV", "Lab", "own_wheels"]

VENV = "/usr/lib/xenmesh"
"""The environment in Dom0, with all of requirements/run.txt since the image was built."""

_SCRIPT = TOP / "tests" / "lab" / "xenlab"


class Lab:
    """Dom0 and its guests. Every method raises subprocess.CalledProcessError where the lab fails."""

    def __init__(self) -> None:
        self._guests: list[str] = []

    def start(self) -> bool:
        """Build the image where that is due, and boot; false where it ran already."""
        if self._xenlab("running", check=False, timeout=10).returncode == 0:
            return False
        self._xenlab("build", timeout=900, loud=True)
        self._xenlab("start", timeout=700, loud=True)
        return True

    def stop(self) -> None:
        """Power Dom0 off; the next start has a pristine disk."""
        self._xenlab("stop", timeout=120)

    def ssh(
        self, command: str, *, check: bool = True, timeout: float = 120, given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a line of shell in Dom0 as root, with ``given`` on its standard input."""
        return self._xenlab("ssh", command, check=check, timeout=timeout, given=given)

    def push(self, *sources: Path, to: str) -> None:
        """Copy files and folders into the folder ``to`` of Dom0's, made where it is not there."""
        self._xenlab("push", *map(str, sources), to)

    def pull(self, source: str, to: Path) -> None:
        """Copy a file or a folder out of Dom0."""
        self._xenlab("pull", source, str(to))

    @contextmanager
    def tunnel(self, port: int) -> Iterator[int]:
        """A port of loopback here that leads to ``port`` of Dom0's loopback, while the block runs."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            here = int(free.getsockname()[1])
        # A connection of its own, with nothing else on it.
        flags = ["-S", "none", "-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{here}:127.0.0.1:{port}"]
        through = subprocess.Popen([str(_SCRIPT), "ssh", *flags], stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            wait_until(lambda: through.poll() is not None or _listens(here), "the tunnel", within=120)
            if through.returncode is not None:
                raise subprocess.CalledProcessError(through.returncode, through.args)
            yield here
        finally:
            with suppress(ProcessLookupError):
                os.killpg(through.pid, signal.SIGTERM)
            through.wait(10)

    def guest(self, name: str, **settings: object) -> int:
        """Run a guest and wait until it is up; its domid.

        ``settings`` are xenlab's: memory, vcpus, maxvcpus, type ("pv", "pvh"), disk (MiB), vif, ip, paused, ...
        """
        self._guests.append(name)
        words = [f"{key}={value}" for key, value in settings.items()]
        self._xenlab("guest", name, *words, timeout=300)
        return int(self.ssh(f"xl domid {shlex.quote(name)}").stdout)

    def create(self, name: str, config: str) -> int:
        """Run a guest from the text of an xl.cfg (without its name); its domid, once it is created."""
        self._guests.append(name)
        file = shlex.quote(f"/etc/xen/{name}.cfg")
        self.ssh(f"cat > {file}; xl create -q {file}", given=f'name = "{name}"\n{config}', timeout=300)
        return int(self.ssh(f"xl domid {shlex.quote(name)}").stdout)

    def destroy(self, name: str) -> None:
        """End a guest at once; no error where it is gone."""
        quoted = shlex.quote(name)
        self.ssh(f"! xl domid {quoted} >/dev/null 2>&1 || xl destroy {quoted}")
        if name in self._guests:
            self._guests.remove(name)

    def destroy_all(self) -> None:
        """End every guest that `guest` has started."""
        for name in list(self._guests):
            self.destroy(name)

    def install(self, wheels: list[Path]) -> None:
        """Put the project's own wheels, compiled, into Dom0's `VENV` in place of what it had.

        pip installs them here and the result is copied: under emulation it would take half a minute.
        """
        version = self.ssh(f"ls {VENV}/lib").stdout.strip()
        packages = f"{VENV}/lib/{version}/site-packages"
        with tempfile.TemporaryDirectory(prefix="xm-stage-") as made:
            stage = Path(made)
            pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install"]
            flags = ["--no-index", "--no-deps", "--no-compile", "--ignore-installed"]
            _run([*pip, *flags, "--prefix", made, *map(str, wheels)])
            here = Path(sysconfig.get_path("purelib", vars={"base": made}))
            if version == f"python{sys.version_info[0]}.{sys.version_info[1]}":
                compileall.compile_dir(
                    here,
                    quiet=1,
                    stripdir=str(here),
                    prependdir=packages,
                    invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
                )
            here.rename(stage / "packages")
            for script in (stage / "bin").iterdir():
                _, _, rest = script.read_text().partition("\n")
                script.write_text(f"#!{VENV}/bin/python\n{rest}")
            archive = stage / "mesh.tar"
            _run(["tar", "-c", "-C", made, "-f", str(archive), "packages", "bin"])
            self.push(archive, to="/root")
        self.ssh(
            f"set -e; rm -rf {packages}/xenmesh {packages}/xenmesh_*.dist-info; cd {VENV};"
            f" tar -xf /root/mesh.tar bin; cd {packages};"
            " tar -xf /root/mesh.tar --strip-components=1 packages; rm /root/mesh.tar"
        )

    def _xenlab(
        self,
        *words: str,
        check: bool = True,
        timeout: float = 120,
        given: str | None = None,
        loud: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        return _run([str(_SCRIPT), *words], check=check, timeout=timeout, given=given, loud=loud)


def _listens(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


def _run(
    command: list[str],
    *,
    check: bool = True,
    timeout: float = 120,
    given: str | None = None,
    loud: bool = False,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        input=given or "",
        stdout=None if loud else subprocess.PIPE,
        stderr=None if loud else subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
        timeout=timeout,
        env=env,
    )
    if check and done.returncode:
        error = subprocess.CalledProcessError(done.returncode, command, output=done.stdout, stderr=done.stderr)
        error.add_note(f"it said: {done.stderr or ''}{done.stdout or ''}".rstrip())
        raise error
    return done


def own_wheels(to: Path) -> list[Path]:
    """The project's own wheels: those in $XENMESH_WHEELS, or else built from this checkout into ``to``."""
    if os.environ.get("XENMESH_WHEELS"):
        return sorted(Path(os.environ["XENMESH_WHEELS"]).glob("xenmesh_*.whl"))
    rooms = sorted(str(file.parent) for file in TOP.glob("*/pyproject.toml"))
    scripts = sysconfig.get_path("scripts")  # uv_build looks for its program in PATH
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "wheel"]
    _run(
        [*pip, "--no-deps", "--no-build-isolation", "-w", str(to), *rooms],
        env={**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"},
    )
    return sorted(to.glob("xenmesh_*.whl"))
