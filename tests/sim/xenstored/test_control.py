import pytest

from xenmesh.sim.errors import FaultError
from xenmesh.sim.xenstored.control import Control
from xenmesh.sim.xenstored.dialect import DIALECTS
from xenmesh.sim.xenstored.errors import Refused
from xenmesh.sim.xenstored.faults import Faults
from xenmesh.sim.xenstored.session import Session
from xenmesh.sim.xenstored.store import Client, Store


class Rig:
    def __init__(self, kind: str = "c") -> None:
        self.store = Store(DIALECTS[kind])
        self.faults = Faults()
        self.cuts: list[int | None] = []
        self.control = Control(self.store, self.faults, self.cuts.append)
        self.dom0: Client = self.store.connect()
        self.guest: Client = self.store.connect(7)

    def ask(self, *words: str, guest: bool = False) -> str:
        return self.control.answer(self.guest if guest else self.dom0, tuple(word.encode() for word in words))


def test_each_fault_can_be_set() -> None:
    rig = Rig()
    for words in ("stall on", "refuse on", "delay 0.5", "split on", "reorder on", "oversize 3", "cut-after 9", "eagain 4"):
        assert rig.ask("sim", *words.split()) == "OK"
    assert rig.faults == Faults(stall=True, refuse=True, delay=0.5, split=True, reorder=True, oversize=3, cut_after=9)
    assert rig.store.eagain_every == 4
    rig.ask("sim", "stall", "off")
    assert not rig.faults.stall
    shown = rig.ask("sim")
    assert "delay=0.5" in shown
    assert "eagain 4" in shown


def test_stall_is_told_so_that_what_waited_goes_out() -> None:
    rig, told = Rig(), []
    rig.store.on_busy = lambda: told.append(1)
    rig.control.sim("stall", "off")
    assert told


def test_connections_and_domains_end() -> None:
    rig = Rig()
    rig.ask("sim", "cut")
    rig.ask("sim", "cut", "7")
    assert rig.cuts == [None, 7]
    watcher = Session(rig.store)
    watcher.watch("@releaseDomain", "r")
    rig.ask("sim", "introduce", "7")
    assert 7 in rig.store.domains
    watcher.events()
    rig.ask("sim", "shutdown", "7")
    rig.ask("sim", "destroy", "7")
    assert len(watcher.events()) == 1  # C drops an event that equals one that waits
    assert 7 not in rig.store.domains


def test_restart_and_live_update() -> None:
    rig = Rig()
    Session(rig.store).write("/a", "v")
    rig.ask("sim", "live-update")
    assert rig.store.tree.get("/a") is not None
    rig.ask("sim", "restart")
    assert rig.store.tree.get("/a") is None
    assert not rig.store.clients


@pytest.mark.parametrize("words", ["nope", "delay", "delay x", "quota nope 3", "quota nodes x", "cut x", "stall maybe"])
def test_what_is_no_command_is_refused(words: str) -> None:
    rig = Rig()
    with pytest.raises(FaultError):
        rig.control.sim(*words.split())
    with pytest.raises(Refused, match="EINVAL"):
        rig.ask("sim", *words.split())


def test_quota_none_is_no_limit() -> None:
    rig = Rig()
    rig.ask("sim", "quota", "nodes", "0")
    assert rig.store.quotas.nodes is None


def test_a_guest_makes_no_faults() -> None:
    with pytest.raises(Refused):
        Rig().ask("sim", "split", "on", guest=True)
    rig = Rig("ocaml")
    assert rig.ask("sim", "split", "on", guest=True) == "OK"  # what oxenstored says to anything
    assert not rig.faults.split


def test_quotas_as_c_shows_and_sets_them() -> None:
    rig = Rig()
    assert rig.ask("quota", "set", "node-size", "500") == "OK"
    assert rig.store.quotas.node_size == 500
    shown = dict(line.split(":") for line in rig.ask("quota").splitlines())
    assert {name.strip(): value.strip() for name, value in shown.items()}["node-size"] == "500"
    assert rig.ask("quota", "0").splitlines() == [
        "Domain 0:",
        "nodes           :        3",
        "watches         :        0",
        "transactions    :        0",
        "outstanding     :        0",
    ]


@pytest.mark.parametrize("words", ["", "nope", "log", "quota set nope 5", "quota set nodes x", "quota 7 nodes 5", "logfile"])
def test_what_c_refuses(words: str) -> None:
    with pytest.raises(Refused, match="EINVAL"):
        Rig().ask(*words.split())


@pytest.mark.parametrize("words", ["check", "print hi", "log on", "memreport"])
def test_what_c_takes(words: str) -> None:
    assert Rig().ask(*words.split()) == "OK"
    with pytest.raises(Refused, match="ENOENT"):
        Rig().ask("quota", "7")
    assert "quota\t" in Rig().ask("help")


def test_oxenstored_takes_anything() -> None:
    rig = Rig("ocaml")
    assert rig.ask("nope") == rig.ask("quota") == "OK"
    assert rig.ask("quota", "0") == "dom0 quota: 5/1000"
    assert rig.ask("quota", "7") == "dom7 quota: not set"
