"""The lab itself: a real Xen, a real guest, and this checkout's wheels in Dom0."""

import subprocess

import pytest
from rigs.boot_cd import GREETING, write_boot_cd
from rigs.lab import VENV, Lab
from rigs.waiting import wait_until

pytestmark = pytest.mark.lab


def test_dom0_runs_on_xen(lab: Lab):
    info = dict(line.split(":", 1) for line in lab.ssh("xl info").stdout.splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in info.items()}
    assert facts["xen_major"] == "4"
    assert "pv" in facts["virt_caps"].split()
    assert lab.ssh("cat /proc/xen/capabilities").stdout == "control_d\n"


@pytest.mark.parametrize("kind", ["pv", "pvh"])
def test_a_guest_boots_and_is_in_xenstore(lab: Lab, kind: str):
    name = f"boots-{kind}"
    domid = lab.guest(name, type=kind, disk=16)
    home = f"/local/domain/{domid}"
    assert lab.ssh(f"xenstore-read {home}/name").stdout == f"{name}\n"
    assert lab.ssh(f"xenstore-read {home}/device/vif/0/state").stdout == "4\n"  # connected
    assert "GUEST-READY" in lab.ssh(f"cat /var/log/xen/console/guest-{name}.log").stdout
    lab.destroy(name)
    assert lab.ssh(f"xenstore-exists {home}", check=False).returncode == 1


def test_an_hvm_guest_boots_from_a_cd_and_shows_its_screen(lab: Lab, tmp_path):
    write_boot_cd(tmp_path / "boot.iso")
    lab.push(tmp_path / "boot.iso", to="/root")
    serial = "/var/log/xen/boots-cd.serial"
    domid = lab.create(
        "boots-cd",
        f"""
        type = "hvm"
        memory = 64
        boot = "d"
        disk = [ "file:/root/boot.iso,hdc:cdrom,r" ]
        vnc = 1
        vnclisten = "127.0.0.1"
        serial = "file:{serial}"
        tsc_mode = "native"
        """,
    )
    wait_until(lambda: GREETING in lab.ssh(f"cat {serial}", check=False).stdout, "the CD", within=300)
    backend = f"/local/domain/0/backend/qdisk/{domid}/5632"
    assert lab.ssh(f"xenstore-read {backend}/params").stdout == "aio:/root/boot.iso\n"
    lab.ssh("xl cd-eject boots-cd hdc")
    assert lab.ssh(f"xenstore-read {backend}/params").stdout == "\n"
    port = lab.ssh(f"xenstore-read /local/domain/{domid}/console/vnc-port").stdout.strip()
    greeting = lab.ssh(f"timeout 60 bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; head -c4 <&3'")
    assert greeting.stdout == "RFB "
    lab.destroy("boots-cd")


def test_the_mesh_is_installed_in_dom0(dom0_mesh: Lab):
    program = (
        "import importlib.metadata as m, xenmesh.xenstore as x, xenmesh.services as s;"
        "print(m.version('xenmesh-services'), *s.__path__, x.__path__[0])"
    )
    version, *places = dom0_mesh.ssh(f"{VENV}/bin/python -c {program!r}").stdout.split()
    assert version
    assert all(place.startswith(f"{VENV}/lib/python3") for place in places)
    cached = dom0_mesh.ssh(f"find {VENV}/lib/*/site-packages/xenmesh -name '*.pyc'").stdout
    assert "/xenmesh/xenstore/__pycache__/" in cached
    assert dom0_mesh.ssh(f"head -1 {VENV}/bin/xenmeshd").stdout == f"#!{VENV}/bin/python\n"


def test_a_command_that_fails_tells_what_it_said(lab: Lab):
    with pytest.raises(subprocess.CalledProcessError) as caught:
        lab.ssh("echo no such thing >&2; exit 3")
    assert caught.value.returncode == 3
    assert "no such thing" in str(caught.value.__notes__)


def test_files_go_in_and_come_out(lab: Lab, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a file").write_text("content")
    lab.push(tmp_path / "there", to="/root/in and out")
    lab.pull("/root/in\\ and\\ out/there", tmp_path / "back")
    assert (tmp_path / "back" / "a file").read_text() == "content"
