from cli.house import OTHER, UUID, born, changed

from xenmesh.cli.domains import Domains, is_domid, is_uuid
from xenmesh.schemas import store


def domains(*items: store.StoreEvent) -> Domains:
    found = Domains()
    for item in items:
        found.apply(item)
    return found


def seen(domid: int, uuid: str | None = UUID, introduced: bool = True) -> store.DomainSeen:
    return store.DomainSeen(domid=domid, uuid=uuid, introduced=introduced, generation=1)


def test_a_domain_goes_by_name_domid_and_uuid() -> None:
    found = domains(seen(5), *born(5, "web-1"))

    for word in ("web-1", "5", UUID, UUID.upper()):
        assert [each.domid for each in found.called(word)] == [5]
    assert found.called("web-2") == []


def test_a_domid_wins_over_a_name_of_digits() -> None:
    found = domains(seen(5), *born(5, "7"), seen(7, OTHER), *born(7, "web", OTHER))

    assert [each.domid for each in found.called("7")] == [7]


def test_two_domids_may_have_one_uuid() -> None:
    found = domains(seen(5), seen(9))

    assert [each.domid for each in found.called(UUID)] == [5, 9]


def test_a_name_outlives_its_node_and_not_its_domain() -> None:
    found = domains(seen(5), *born(5, "web-1"), store.Removed(domid=5, uuid=UUID, path="/local/domain/5/name"))
    assert found.label(5) == "web-1 (5)"

    found.apply(store.DomainGone(domid=5, uuid=UUID, generation=1))
    assert found.called("web-1") == []
    assert found.label(5) == "domain 5"


def test_a_name_may_come_before_its_domain() -> None:
    found = domains(*born(5, "web-1"), seen(5))

    assert found.by_domid[5].untrusted_name == "web-1"
    assert found.by_domid[5].introduced


def test_other_keys_are_not_names() -> None:
    assert domains(changed("/local/domain/5/data/name", "evil")).by_domid == {}


def test_labels() -> None:
    assert domains().label(None) == "host"
    assert domains(seen(5)).label(5) == "domain 5"
    assert domains(seen(5)).by_domid[5].label == "domain 5"


def test_words() -> None:
    assert is_domid("5")
    assert not is_domid("²")
    assert not is_domid("123456")
    assert is_uuid(UUID)
    assert not is_uuid("web-1")


def test_clear_forgets() -> None:
    found = domains(seen(5))
    found.clear()
    assert found.by_domid == {}
