"""The layout alone; that it runs is the lab's to show (tests/lab/test_mesh.py)."""

import subprocess
from pathlib import Path

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


def test_the_configuration_that_is_shipped_is_right(tmp_path):
    import tomllib

    import msgspec

    from xenmesh.bus.config import Settings
    from xenmesh.services.daemon.config import load

    config = load((), [DEPLOY / "etc"], {}, whole=True)
    assert config.origins == {}, "every key stands at its default, and is only told of"
    uncommented = [
        line.removeprefix("# ")
        for line in (DEPLOY / "etc/xenmesh.toml").read_text().splitlines()
        if line.startswith(("# [", "# ")) and ("=" in line or "[" in line)
    ]
    file = tmp_path / "told.toml"
    file.write_text("\n".join(line for line in uncommented if line.startswith("[") or " = " in line))
    assert set(load((), [file], {}).origins) == {"mesh.host", "mesh.log", "bus.url"}
    told = [
        line.removeprefix("# ")
        for line in (DEPLOY / "nats/bus.toml").read_text().splitlines()
        if " = " in line or line.startswith("# [")
    ]
    settings = msgspec.convert({"directory": "/d", "host": "h", **tomllib.loads("\n".join(told))}, Settings)
    assert settings.operators == {"alice": "U..."}


def test_a_word_it_does_not_know_gets_its_usage():
    done = install("--frobnicate")
    assert done.returncode == 2
    assert "--wheels DIR" in done.stderr
