import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cli.house import HOST, House
from rigs.nobody import nobody_special

from xenmesh.cli import context
from xenmesh.cli.context import FILE, Running, default_dir, find, read_running, trusted
from xenmesh.cli.errors import CommandError, NoMesh, NotAllowed, NotFound, UsageError

Options = Callable[..., argparse.Namespace]


@pytest.fixture
def mesh(tmp_path: Path, clean: Path) -> Path:
    """A directory in which a mesh runs."""
    directory = tmp_path / "mesh"
    keys = directory / "bus/keys"
    keys.mkdir(parents=True)
    for user in ("operator", "view"):
        (keys / f"{user}.nk").write_text("SUA")
    running = Running(url="nats://127.0.0.1:1234", host=HOST, keys=str(keys))
    (directory / FILE).write_bytes(msgspec.json.encode(running))
    directory.chmod(0o700)
    return directory


def test_a_directory_that_is_named(mesh: Path, options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    target = find(options(dir=str(mesh)))
    assert (target.url, target.user, target.host, target.source) == ("nats://127.0.0.1:1234", "operator", HOST, str(mesh))

    monkeypatch.setenv("XENMESH_DIR", str(mesh))
    assert find(options()) == target
    assert find(options(user="view")).key == mesh / "bus/keys/view.nk"
    assert find(options(host="other")).host == "other"


def test_the_usual_places(mesh: Path, clean: Path, options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoMesh):
        find(options())

    (clean / "xenmesh").mkdir(mode=0o700)
    (clean / "xenmesh" / FILE).write_bytes((mesh / FILE).read_bytes())
    assert find(options()).source == str(clean / "xenmesh")

    (clean / "xenmesh").chmod(0o777)
    with pytest.raises(NoMesh):
        find(options())

    monkeypatch.setattr(context, "SYSTEM", (mesh,))
    assert find(options()).source == str(mesh)


def test_without_the_operators_key_one_is_view(mesh: Path, options: Options) -> None:
    (mesh / "bus/keys/operator.nk").unlink()
    assert find(options(dir=str(mesh))).user == "view"

    with pytest.raises(NotAllowed):
        find(options(dir=str(mesh), user="operator"))
    (mesh / "bus/keys/view.nk").unlink()
    with pytest.raises(NotAllowed, match=r"neither operator\.nk nor view\.nk"):
        find(options(dir=str(mesh)))


def test_a_url_and_a_key(mesh: Path, options: Options) -> None:
    key = mesh / "bus/keys/view.nk"
    target = find(options(url="nats://10.0.0.1:4222", creds=str(key)))

    assert (target.url, target.user, target.key, target.host) == ("nats://10.0.0.1:4222", "view", key, None)
    assert find(options(dir=str(mesh), creds=str(key))).user == "view"
    with pytest.raises(NotFound):
        find(options(url="nats://x:1", creds="/nope"))


def test_a_context_of_the_nats_cli(clean: Path, tmp_path: Path, options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ".config/nats/context"
    folder.mkdir(parents=True)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (folder / "lab.json").write_text(json.dumps({"url": "nats://lab:4222", "nkey": "~/view.nk", "description": "x"}))
    (folder / "broken.json").write_text("{")

    target = find(options(context="lab"))
    assert (target.url, target.user, target.key) == ("nats://lab:4222", "view", tmp_path / "view.nk")

    with pytest.raises(NotFound, match="there are: broken, lab"):
        find(options(context="nope"))
    with pytest.raises(CommandError):
        find(options(context="broken"))
    with pytest.raises(UsageError):
        find(options(context="../x"))


def test_the_directory_of_a_bus_alone(tmp_path: Path) -> None:
    (tmp_path / "nats.conf").write_text('# x\nserver_name: "xen-host-1"\nlisten: "127.0.0.1:4222"\n')
    running = read_running(tmp_path)
    assert (running.url, running.host, running.keys) == ("nats://127.0.0.1:4222", "host-1", str(tmp_path / "keys"))

    (tmp_path / "nats.conf").write_text('server_name: "xen-host-1"\nlisten: "127.0.0.1:-1"\n')
    (tmp_path / "nats-server_1.ports").write_text('{"nats":["nats://127.0.0.1:4333"]}')
    assert read_running(tmp_path).url == "nats://127.0.0.1:4333"

    (tmp_path / "nats.conf").write_text("port: 4222\n")
    with pytest.raises(CommandError, match="was not written by"):
        read_running(tmp_path)


def test_nothing_runs_there(tmp_path: Path, options: Options) -> None:
    with pytest.raises(NoMesh) as caught:
        find(options(dir=str(tmp_path)))

    assert caught.value.hint == f"start one: xenmesh up --dir {tmp_path}"


def test_a_broken_file(mesh: Path, options: Options) -> None:
    (mesh / FILE).write_text("{}")
    with pytest.raises(CommandError, match="cannot be read"):
        find(options(dir=str(mesh)))


def test_a_mesh_that_is_not_for_this_user(mesh: Path, options: Options) -> None:
    (mesh / FILE).chmod(0)
    with nobody_special(), pytest.raises(NotAllowed):
        find(options(dir=str(mesh)))


def test_the_default_directory(clean: Path) -> None:
    assert default_dir({"XDG_RUNTIME_DIR": str(clean)}) == clean / "xenmesh"
    assert default_dir({}) == Path(f"/tmp/xenmesh-{os.getuid()}")
    assert default_dir({"XDG_RUNTIME_DIR": "/nope"}) == Path(f"/tmp/xenmesh-{os.getuid()}")


def test_whom_to_trust(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert trusted(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    assert not trusted(tmp_path / "link")
    assert not trusted(tmp_path / "nope")
    tmp_path.chmod(0o777)
    assert not trusted(tmp_path)


async def test_the_only_host_need_not_be_named(house: House) -> None:
    async with house.serve():
        assert await context._only_host(house.mesh().bus) == HOST


async def test_no_host_must_be_named(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(bus: object) -> list[object]:
        return []

    monkeypatch.setattr(context, "discover", nobody)
    with pytest.raises(NoMesh, match="host is not known"):
        await context._only_host(house.mesh().bus)
