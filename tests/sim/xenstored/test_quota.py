import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenmesh.sim.xenstored.dialect import DIALECTS
from xenmesh.sim.xenstored.errors import Refused
from xenmesh.sim.xenstored.quota import Quotas
from xenmesh.sim.xenstored.session import Session
from xenmesh.sim.xenstored.store import Store
from xenmesh.xenstore import messages as m

NAMES = st.sampled_from(["a", "b", "a/b", "a/b/c", "d/e/f/g", "b/c"])
STEPS = st.lists(st.tuples(st.sampled_from(["write", "mkdir", "rm", "watch", "perms", "start", "end"]), NAMES), max_size=60)


def test_a_copy_is_set_by_itself() -> None:
    given_, copy = Quotas(), Quotas().copy()
    copy.set("nodes", 3)
    assert given_.nodes == 1000
    assert copy.nodes == 3
    with pytest.raises(KeyError, match="nope"):
        copy.set("nope", 1)


@pytest.mark.parametrize("kind", ["c", "ocaml"])
@given(steps=STEPS)
def test_a_guest_never_has_more_than_its_quotas(kind: str, steps: list[tuple[str, str]]) -> None:
    store = Store(DIALECTS[kind])
    for name, value in (("nodes", 5), ("watches", 2), ("transactions", 1), ("node_size", 64), ("perms", 2)):
        store.quotas.set(name, value)
    dom0 = Session(store)
    dom0.introduce(7)
    dom0.write("/local/domain/7/data")
    dom0.set_perms("/local/domain/7/data", "n7")
    guest = Session(store, 7)
    client = guest._client
    for at, (step, name) in enumerate(steps):
        path = f"data/{name}"
        try:
            match step:
                case "write":
                    guest.write(path, "x" * (at * 7))
                case "mkdir":
                    guest.mkdir(path)
                case "rm":
                    guest.rm(path)
                case "watch":
                    guest.watch(path, str(at))
                case "perms":
                    guest.set_perms(path, "n7", *[f"r{domid}" for domid in (0, 7, 7)[: at % 4]])
                case "start":
                    store.do(client, m.TransactionStart())
                case _ if client.transactions:
                    store.do(client, m.TransactionEnd(commit=True), next(iter(client.transactions)))
                case _:
                    pass
        except Refused:
            pass
        mine = store.tree.of(7)
        assert store.tree.owned_by(7) <= 5
        assert len(client.watches) <= 3  # both servers let one more through
        assert len(client.transactions) <= 2
        assert all(len(node.value) <= 64 for _, node in mine)
        assert all(len(node.perms.entries) <= 2 or kind == "ocaml" for _, node in mine)


def test_one_guests_quota_may_differ_and_dom0_has_none() -> None:
    store = Store()
    guest, other, dom0 = Session(store, 7), Session(store, 8), Session(store)
    store.domain_quotas[7] = {"nodes": 2}
    assert store.limit(guest._client, "nodes") == 2
    assert store.limit(other._client, "nodes") == 1000
    assert store.limit(dom0._client, "nodes") is None
