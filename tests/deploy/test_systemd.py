"""The units, as systemd itself reads them: in a root of their own, in which the programs that they name stand."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from xenmesh.cli.context import SYSTEM
from xenmesh.services.daemon.config import SERVICES
from xenmesh.services.daemon.context import DRAIN

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNITS = [
    "xenmesh-host.service",
    "xenmesh-bus.service",
    "xenmesh-all.service",
    *(f"xenmesh@{name}.service" for name in SERVICES),
]
TABLE = DEPLOY.parent / "docs/howto/systemd.md"

_PROGRAMS = (
    "usr/lib/xenmesh/bin/xenmeshd",
    "usr/lib/xenmesh/bin/python3",
    "usr/lib/xenmesh/bin/nats-server",
    "usr/lib/xenmesh/announce",
    "bin/sh",
    "bin/kill",
)
_TARGETS = ("sysinit", "basic", "network", "multi-user", "shutdown")


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("root")
    for program in _PROGRAMS:
        file = made / program
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("#!/bin/sh\n")
        file.chmod(0o755)
    units = made / "lib/systemd/system"
    shutil.copytree(DEPLOY / "systemd", units)
    for target in _TARGETS:
        (units / f"{target}.target").write_text(f"[Unit]\nDescription={target}\n")
    return made


def analyze(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", f"--root={root}", "--no-pager", *arguments], capture_output=True, text=True, timeout=50, check=False
    )


@pytest.mark.rig("systemd")
def test_systemd_has_nothing_to_object(root):
    done = analyze(root, "verify", "--man=no", "xenmesh.target", *UNITS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.rig("systemd")
def test_it_would_object_to_a_setting_it_does_not_know(root, tmp_path):
    other = tmp_path / "root"
    shutil.copytree(root, other)
    unit = other / "lib/systemd/system/xenmesh-bus.service"
    unit.write_text(unit.read_text().replace("MemoryMax", "MemoryMost"))
    assert "'MemoryMost'" in analyze(other, "verify", "--man=no", "xenmesh-bus.service").stderr


@pytest.mark.rig("systemd")
@pytest.mark.parametrize("unit", UNITS)
def test_the_sandbox_is_as_tight_as_the_documentation_says(root, unit):
    done = analyze(root, "security", "--offline=true", unit)
    score = float(done.stdout.split("Overall exposure level for")[1].split(":")[1].split()[0])
    [told] = re.findall(rf"^\| `{re.escape(unit)}` .* \| ([\d.]+) \|$", TABLE.read_text(), re.MULTILINE)
    assert score <= float(told), f"{TABLE.name} says {told}:\n{done.stdout}"


@pytest.mark.rig("systemd")
def test_users_and_directories_are_made(tmp_path):
    (tmp_path / "etc").mkdir()
    users = DEPLOY / "sysusers.d/xenmesh.conf"
    done = subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", "--dry-run", users], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in ("xenmesh", "xenmesh-bus", "xenbus", "xenmesh-view"):
        assert f"'{name}'" in done.stdout + done.stderr


class Unit(configparser.RawConfigParser):
    """A unit file; of a key that stands several times, all values in one text."""

    def __init__(self, name: str) -> None:
        super().__init__(strict=False, delimiters=("=",), comment_prefixes=("#",), interpolation=None)
        lines: dict[str, dict[str, str]] = {}
        section = ""
        for line in (DEPLOY / "systemd" / name).read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif "=" in line and not line.startswith("#"):
                key, _, value = line.partition("=")
                keys = lines.setdefault(section, {})
                keys[key] = f"{keys[key]} {value}" if key in keys else value
        self.read_dict(lines)

    def words(self, section: str, key: str) -> list[str]:
        return self.get(section, key, fallback="").split()


def test_all_in_one_and_one_each_exclude_each_other():
    assert Unit("xenmesh-all.service").words("Unit", "Conflicts") == [f"xenmesh@{name}.service" for name in SERVICES]
    assert Unit("xenmesh@.service").words("Unit", "Conflicts") == ["xenmesh-all.service"]


def test_each_service_gets_its_own_key_and_no_other():
    keys = "/var/lib/xenmesh-bus/keys"
    assert Unit("xenmesh-all.service").words("Service", "LoadCredential") == [
        f"{name}.nk:{keys}/{name}.nk" for name in SERVICES
    ]
    assert Unit("xenmesh@.service").words("Service", "LoadCredential") == [f"%i.nk:{keys}/%i.nk"]


@pytest.mark.parametrize("name", ["xenmesh-all.service", "xenmesh@.service"])
def test_services_are_notifying_guarded_and_bounded(name):
    service = Unit(name)["Service"]
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert float(service["WatchdogSec"]) == 60
    assert float(service["TimeoutStopSec"]) > DRAIN + 5 + 1, "drain, close the buses, and end"
    assert service["MemoryMax"] == "96M"
    assert service["RestartPreventExitStatus"].split() == ["2", "78"]
    assert service["User"] == "xenmesh"


@pytest.mark.parametrize("name", ["xenmesh-host.service", "xenmesh-bus.service", "xenmesh-all.service", "xenmesh@.service"])
def test_nobody_is_root_nor_reaches_beyond_loopback(name):
    service = Unit(name)["Service"]
    assert service["User"] in ("xenmesh", "xenmesh-bus")
    assert service["CapabilityBoundingSet"] == ""
    assert service["IPAddressDeny"] == "any"
    assert service.get("IPAddressAllow", "localhost") == "localhost"
    assert service["DevicePolicy"] == "closed"


def test_only_what_speaks_to_xenstored_may_open_its_device():
    allowed = {
        name: Unit(name)["Service"].get("DeviceAllow", "")
        for name in ("xenmesh-bus.service", "xenmesh@.service", "xenmesh-all.service")
    }
    assert allowed == {"xenmesh-bus.service": "", "xenmesh@.service": "", "xenmesh-all.service": "/dev/xen/xenbus rw"}
    assert Unit("xenmesh@store.service.d/xenbus.conf")["Service"]["DeviceAllow"] == "/dev/xen/xenbus rw"


def test_the_bus_hands_one_key_to_the_group_it_runs_as_and_nothing_else():
    service = Unit("xenmesh-bus.service")["Service"]
    assert (service["Group"], service["UMask"]) == ("xenmesh-view", "0077")
    assert (service["RuntimeDirectory"], service["RuntimeDirectoryMode"]) == ("xenmesh", "0755")
    assert service["StateDirectoryMode"] == "0700"
    assert f"/usr/lib/xenmesh/announce /var/lib/xenmesh-bus ${{XENMESH_MESH_HOST}} {SYSTEM[0]}" in service["ExecStartPost"]


def test_the_device_is_given_to_the_group_that_the_units_name():
    rule = next(line for line in (DEPLOY / "udev/70-xenmesh.rules").read_text().splitlines() if not line.startswith("#"))
    assert 'KERNEL=="xen/xenbus"' in rule
    assert 'GROUP="xenbus", MODE="0660"' in rule
    assert Unit("xenmesh-all.service")["Service"]["SupplementaryGroups"] == "xenbus"
    assert Unit("xenmesh@store.service.d/xenbus.conf")["Service"]["SupplementaryGroups"] == "xenbus"
    assert "g xenbus " in (DEPLOY / "sysusers.d/xenmesh.conf").read_text()
