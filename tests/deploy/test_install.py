"""The layout alone; that it runs is the lab's to show (tests/lab/test_mesh.py)."""

import re
import subprocess
import tomllib
from pathlib import Path

import msgspec

from xenmesh.bus.config import Settings
from xenmesh.services.daemon.config import BusConfig, MeshConfig, load

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def install(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DEPLOY / "install", *arguments], capture_output=True, text=True, timeout=50, check=False)


def laid_out(root: Path) -> set[str]:
    return {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file() or file.is_symlink()}


def test_everything_has_its_place(tmp_path):
    done = install("--no-environment", "--destdir", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "systemctl enable --now xenmesh.target xenmesh-all.service" in done.stdout
    units = {
        f"lib/systemd/system/{file.relative_to(DEPLOY / 'systemd')}"
        for file in (DEPLOY / "systemd").rglob("*")
        if file.is_file()
    }
    assert laid_out(tmp_path) == units | {
        "usr/lib/sysusers.d/xenmesh.conf",
        "usr/lib/tmpfiles.d/xenmesh.conf",
        "lib/udev/rules.d/70-xenmesh.rules",
        "etc/xenmesh/xenmesh.toml",
        "etc/xenmesh/nats/bus.toml",
        "usr/lib/xenmesh/announce",
        "usr/share/man/man1/xenmesh.1",
        "usr/share/bash-completion/completions/xenmesh",
        "usr/share/zsh/vendor-completions/_xenmesh",
        "usr/share/fish/vendor_completions.d/xenmesh.fish",
        "usr/bin/xenmesh",
        "usr/bin/xenmeshd",
    }
    assert (tmp_path / "usr/bin/xenmeshd").readlink() == Path("/usr/lib/xenmesh/bin/xenmeshd")
    assert (tmp_path / "etc/xenmesh/conf.d").is_dir()


def test_a_configuration_that_is_there_stays(tmp_path):
    install("--no-environment", "--destdir", tmp_path)
    (tmp_path / "etc/xenmesh/xenmesh.toml").write_text("[mesh]\nlog = 'debug'\n")
    (tmp_path / "lib/udev/rules.d/70-xenmesh.rules").write_text("old")
    assert install("--no-environment", "--destdir", tmp_path).returncode == 0
    assert "debug" in (tmp_path / "etc/xenmesh/xenmesh.toml").read_text()
    assert "xenbus" in (tmp_path / "lib/udev/rules.d/70-xenmesh.rules").read_text()


def told(file: str) -> str:
    """What a shipped file tells of in comments, as if it were set."""
    return "\n".join(re.findall(r"^# (\[\w+\]|\w+ = .*)$", (DEPLOY / file).read_text(), re.MULTILINE))


def test_the_configuration_that_is_shipped_sets_nothing_and_tells_the_truth(tmp_path):
    assert load((), [DEPLOY / "etc"], {}, whole=True).origins == {}
    file = tmp_path / "told.toml"
    file.write_text(told("etc/xenmesh.toml"))
    config = load((), [file], {})
    assert set(config.origins) == {"mesh.host", "mesh.log", "bus.url"}
    assert (config.mesh, config.bus) == (MeshConfig(), BusConfig())
    settings = msgspec.convert({"directory": "/d", "host": "h", **tomllib.loads(told("nats/bus.toml"))}, Settings)
    assert settings.port == Settings(directory="/d", host="h").port
    assert settings.operators.keys() == {"alice"}


def test_a_word_it_does_not_know_gets_its_usage():
    done = install("--frobnicate")
    assert done.returncode == 2
    assert "--wheels DIR" in done.stderr
