"""The text of the server's configuration: as it was read over by people, and as the real nats-server takes it."""

import os
import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from xenmesh.bus.config import Settings, make_plan, render
from xenmesh.bus.keys import ensure_keys
from xenmesh.bus.server import check_config, find_binary

GOLDEN = Path(__file__).parent / "golden" / "nats.conf"
SETTINGS = Settings(directory="/var/lib/xenmesh/bus", host="h1", operators={"alice": "UALICE"}, viewers={"grafana": "UGRAFANA"})


def keys_of(settings: Settings) -> dict[str, str]:
    return {user.name: f"U{user.name.upper()}" for user in make_plan(settings).users}


def test_the_text_is_the_one_that_was_read_over() -> None:
    """After a wanted change, write it anew: XENMESH_GOLDEN=write pytest tests/bus/test_config.py, and read the difference."""
    text = render(SETTINGS, keys_of(SETTINGS), feature_flags=True)
    if os.environ.get("XENMESH_GOLDEN") == "write":
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


@pytest.mark.parametrize("jetstream", [True, False])
@pytest.mark.parametrize("port", [0, 4222])
def test_nats_server_takes_it(tmp_path: Path, port: int, *, jetstream: bool) -> None:
    settings = Settings(directory=str(tmp_path / 'a "quoted" folder'), host="h1", port=port, jetstream=jetstream)
    file = tmp_path / "nats.conf"
    public = ensure_keys(tmp_path / "keys", keys_of(settings))
    file.write_text(render(settings, public, feature_flags=True))
    check_config(find_binary(), file)


def test_loopback_and_no_other_listener() -> None:
    text = render(SETTINGS, keys_of(SETTINGS), feature_flags=True)
    assert re.findall(r"^\s*(?:listen|host|port|http\S*|websocket|mqtt|leafnodes|cluster|gateway)\b.*", text, re.MULTILINE) == [
        'listen: "127.0.0.1:4222"'
    ]
    assert "no_auth_user" not in text


@pytest.mark.parametrize(
    "limit",
    [
        "max_payload: 1MB",
        "max_pending: 8MB",
        "max_connections: 64",
        "max_subscriptions: 1000",
        "max_control_line: 4KB",
        'write_deadline: "5s"',
        "max_memory_store: 16MB",
        "max_file_store: 256MB",
        "sync_interval: always",
        "js_ack_fc_v2: false",
    ],
)
def test_the_limits_of_a_dom0(limit: str) -> None:
    assert limit in render(SETTINGS, keys_of(SETTINGS), feature_flags=True)


def test_flags_only_for_a_server_that_knows_them() -> None:
    assert "feature_flags" not in render(SETTINGS, keys_of(SETTINGS), feature_flags=False)


def test_settings_that_are_none() -> None:
    with pytest.raises(msgspec.ValidationError, match="prot"):
        msgspec.convert({"directory": "d", "host": "h", "prot": 1}, Settings)


def test_two_users_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="store"):
        make_plan(msgspec.structs.replace(SETTINGS, viewers={"store": "U"}))


def test_the_binary_is_the_wheels() -> None:
    said = subprocess.run([find_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    assert said.startswith("nats-server: v2.")
