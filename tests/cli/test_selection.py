import pytest
from cli.house import OTHER, UUID, born, changed
from hypothesis import given
from hypothesis import strategies as st

from xenmesh.cli.domains import Domains
from xenmesh.cli.selection import overlap, parse
from xenmesh.schemas import domain, service, store
from xenmesh.schemas.envelope import Unknown
from xenmesh.schemas.subjects import matches

_TOKEN = st.sampled_from(["a", "b"])
_SUBJECT = st.lists(_TOKEN, min_size=1, max_size=4).map(".".join)
_PATTERN = st.builds(
    lambda tokens, tail: ".".join([*tokens, *tail]),
    st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=3),
    st.sampled_from([[], [">"]]),
)


@given(_PATTERN, _PATTERN, _SUBJECT)
def test_patterns_that_share_a_subject_overlap(one: str, other: str, subject: str) -> None:
    if matches(one, subject) and matches(other, subject):
        assert overlap(one, other)


def test_patterns_that_share_none_do_not() -> None:
    assert not overlap("store.>", "evt.>")
    assert not overlap("evt", "evt.>")
    assert not overlap("a.b", "a.b.c")


@pytest.fixture
def domains() -> Domains:
    found = Domains()
    for domid, name, uuid in ((5, "web-1", UUID), (7, "web-2", OTHER)):
        found.apply(store.DomainSeen(domid=domid, uuid=uuid, introduced=True, generation=1))
        for item in born(domid, name, uuid):
            found.apply(item)
    return found


@pytest.mark.parametrize("word", ["web-1", "5", UUID])
def test_a_word_selects_a_domain(word: str, domains: Domains) -> None:
    selection = parse(word)

    assert selection.shows("store.5.data", changed("/local/domain/5/data/x", "1", UUID), domains)
    assert not selection.shows("store.7.data", changed("/local/domain/7/data/x", "1", OTHER), domains)
    assert not selection.shows("evt.service.store.started", service.Started(version="1"), domains)
    assert selection.shows(f"evt.domain.{UUID}.vanished", domain.Vanished(uuid=UUID, domid=5), domains)


def test_a_name_follows_its_domain_over_a_reboot(domains: Domains) -> None:
    domains.apply(store.DomainGone(domid=5, uuid=UUID, generation=1))
    domains.apply(store.DomainSeen(domid=9, uuid=UUID, introduced=True, generation=1))
    for item in born(9, "web-1"):
        domains.apply(item)

    assert parse("web-1").shows("store.9.data", changed("/local/domain/9/data/x", "1", UUID), domains)
    assert not parse("5").shows("store.9.data", changed("/local/domain/9/data/x", "1", UUID), domains)


def test_a_domid_is_no_name_where_it_is_a_domid(domains: Domains) -> None:
    for item in born(7, "5", OTHER):
        domains.apply(item)

    assert not parse("5").shows("store.7.data", changed("/local/domain/7/data/x", "1", OTHER), domains)


def test_subject_patterns(domains: Domains) -> None:
    selection = parse("store.*.device")

    assert [each.name for each in selection.services] == ["store"]
    assert selection.shows("store.5.device", changed("/local/domain/5/device/x", "1"), domains)
    assert not selection.shows("store.5.data", changed("/local/domain/5/data/x", "1"), domains)


def test_items_of_a_snapshot_go_by_the_subject_of_their_change(domains: Domains) -> None:
    selection = parse("store.*.device")

    assert selection.shows(None, changed("/local/domain/5/device/x", "1"), domains)
    assert not selection.shows(None, changed("/local/domain/5/data/x", "1"), domains)
    assert not selection.shows(None, store.DomainSeen(domid=5, uuid=UUID, introduced=True, generation=1), domains)


def test_what_has_no_subject_is_not_hidden_by_a_pattern(domains: Domains) -> None:
    selection = parse("store.*.device")

    assert selection.shows(None, Unknown(type="x", why="of a newer release", raw=b"{}"), domains)
    assert selection.shows(None, domain.Vanished(uuid="not a token!", domid=5), domains)


def test_services_and_classes() -> None:
    assert [each.name for each in parse("store").services] == ["store"]
    assert parse("evt").pattern == "evt.>"
    assert {each.name for each in parse("").services} == {"store", "events"}
    assert {each.name for each in parse("evt.service.>").services} == {"store", "events"}


def test_what_the_history_may_hold_of_it() -> None:
    assert parse("").kept == "evt.>"
    assert parse("web-1").kept == "evt.>"
    assert parse("evt.service.store.*").kept == "evt.service.store.*"
    assert parse("*.service.>").kept == "evt.>"
    assert parse("store.5.data").kept == ""


def test_where_nothing_is_said_the_error_names_what_is() -> None:
    with pytest.raises(ValueError, match=r"there are: store\.>"):
        parse("audit.x.y")
