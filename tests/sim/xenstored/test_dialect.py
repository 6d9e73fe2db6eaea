import pytest

from xenmesh.sim.xenstored.dialect import C_4_23, DIALECTS, OCAML, OCAML_FORK, C, Dialect
from xenmesh.sim.xenstored.errors import Refused
from xenmesh.sim.xenstored.store import Store
from xenmesh.xenstore import messages as m
from xenmesh.xenstore.packets import Op, Packet, encode


def test_each_is_found_by_its_name() -> None:
    assert DIALECTS == {"c": C, "ocaml": OCAML, "c-4.23": C_4_23, "ocaml-fork": OCAML_FORK}


def test_a_dialect_is_no_ones_to_change() -> None:
    Store(C).quotas.set("nodes", 1)
    assert C.quotas.nodes == 1000
    with pytest.raises(AttributeError):
        C.depth = True  # type: ignore[misc]


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_a_store_starts_with_what_the_real_one_has(dialect: Dialect) -> None:
    nodes = {path: node.value for path, node in Store(dialect).tree.walk()}
    assert nodes.items() >= dict(dialect.first_nodes).items()


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_depth_is_known_to_the_later_ones_alone(dialect: Dialect) -> None:
    store = Store(dialect)
    client = store.connect()
    if not dialect.depth:
        with pytest.raises(Refused, match="EINVAL"):
            store.do(client, m.Watch("/a", b"t", 1))
        return
    store.do(client, m.Watch("/a", b"t", 1))
    client.wire.frames_to_send()
    for path, told in (("/a", 1), ("/a/b", 1), ("/a/b/c", 0)):
        store.do(client, m.Write(path, b""))
        assert len(client.wire.frames_to_send()) == told


@pytest.mark.parametrize(("dialect", "knows"), [(C, False), (OCAML, False), (C_4_23, True), (OCAML_FORK, False)])
def test_requests_about_features_and_quotas_are_newer_than_4_17(dialect: Dialect, knows: bool) -> None:
    store = Store(dialect)
    client = store.connect()
    (incoming,) = client.wire.receive_data(encode(Packet(Op.GET_QUOTA, 1, 0, b"nodes\0")))
    store.handle(client, incoming)
    assert client.wire.data_to_send()[16:] == (b"1000\0" if knows else b"ENOSYS\0")
