import pytest
from cli.house import OTHER, UUID, Heard, born, changed

from xenmesh.cli.domains import Domains
from xenmesh.cli.lines import clock, line_of, name_of
from xenmesh.cli.output import Mode
from xenmesh.schemas import domain, service, store
from xenmesh.schemas.envelope import Event, Item, Unknown


@pytest.fixture
def domains() -> Domains:
    found = Domains()
    found.apply(store.DomainSeen(domid=5, uuid=UUID, introduced=True, generation=1))
    for item in born(5, "web-1"):
        found.apply(item)
    return found


def shown(item: Item, domains: Domains, by: str = "store") -> str:
    table = Heard(Mode.TABLE)
    table.printer.line(line_of(None, item, domains, by=by), {})
    return " ".join(table.out.split())


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (changed("/local/domain/5/data/x", "1"), 'web-1 (5) /local/domain/5/data/x = "1"'),
        (changed("/vm/x/name", "a"), 'host /vm/x/name = "a"'),
        (
            store.Changed(domid=5, uuid=UUID, path="/local/domain/5/p", value=None, size=8, redacted=True),
            "web-1 (5) /local/domain/5/p = (secret)",
        ),
        (
            store.Changed(domid=5, uuid=UUID, path="/local/domain/5/p", value=None, raw=b"\xff\x00", size=2),
            "web-1 (5) /local/domain/5/p = (2 bytes) ff 00",
        ),
        (
            store.Changed(domid=5, uuid=UUID, path="/local/domain/5/p", value="ab", size=9),
            'web-1 (5) /local/domain/5/p = (2 of 9 bytes) "ab"',
        ),
        (store.Changed(domid=5, uuid=UUID, path="/local/domain/5/p", value=None), "web-1 (5) /local/domain/5/p = (not known)"),
        (store.Removed(domid=5, uuid=UUID, path="/local/domain/5/p"), "web-1 (5) /local/domain/5/p removed"),
        (store.DomainSeen(domid=5, uuid=UUID, introduced=True, generation=1), f"web-1 (5) introduced {UUID}"),
        (
            store.DomainSeen(domid=6, uuid=None, introduced=False, generation=2),
            "domain 6 being built generation 2 uuid not known yet",
        ),
        (
            store.DomainSeen(domid=5, uuid=UUID, introduced=False, generation=1, missing=True),
            f"web-1 (5) missing: xenstored came back without it; whether it lives, only the hypervisor knows {UUID}",
        ),
        (store.DomainGone(domid=5, uuid=UUID, generation=1), f"web-1 (5) gone {UUID}"),
        (
            store.Capped(domid=5, uuid=UUID, area="data", limit=store.Limit.NODES, left_out=7),
            "web-1 (5) data is over its cap of nodes; 7 nodes are not read",
        ),
        (store.Capped(domid=5, uuid=UUID, area="data", limit=None, left_out=0), "web-1 (5) data is whole again"),
        (
            store.Flooding(domid=5, uuid=UUID, active=True, dropped=0),
            "web-1 (5) floods xenstore: its events are late, nobody else's",
        ),
        (
            store.Flooding(domid=5, uuid=UUID, active=False, dropped=9),
            "web-1 (5) is quiet again; 9 watch events were folded together",
        ),
        (service.Started(version="1.0"), "store started version 1.0"),
        (service.Stopping(reason="stopped"), "store stopping stopped"),
        (
            service.Source(source="xenstored", state=service.SourceState.LOST, why="closed", lost=1),
            "store lost xenstored: closed",
        ),
        (
            service.Source(source="xenstored", state=service.SourceState.RESYNCED, why="", lost=1),
            "store xenstored is back and was read whole",
        ),
        (
            service.ServiceState(name="store", version="1", boot="b", ready=True, status="3 domains", since=0, lame_duck=False),
            "store ready 3 domains",
        ),
        (Unknown(type="new.thing", raw=b'{"type":"new.thing"}'), 'store new.thing {"type":"new.thing"}'),
        (domain.Vanished(uuid=UUID, domid=5), "web-1 (5) "),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Event | Unknown) else "",
)
def test_each_event_reads_on_one_line(item: Item, text: str, domains: Domains) -> None:
    assert shown(item, domains).startswith(text.strip())


def test_a_guest_cannot_paint_or_break_the_line(domains: Domains) -> None:
    hostile = "\x1b[2J\nfake: domain 0 gone \u202e"
    for item in born(5, hostile):
        domains.apply(item)

    text = shown(changed("/local/domain/5/data/x", hostile), domains)

    assert text.isprintable()
    assert "\\x1b[2J\\nfake" in text


def test_a_domain_not_in_the_store_is_shown_by_its_uuid(domains: Domains) -> None:
    assert shown(domain.Vanished(uuid=OTHER, domid=9), domains).startswith(OTHER[:19])


def test_names_for_xargs() -> None:
    assert name_of(changed("/vm/x", "1")) == "/vm/x"
    assert name_of(store.DomainGone(domid=5, uuid=None, generation=1)) == "5"
    assert name_of(domain.Vanished(uuid=UUID, domid=5)) == UUID
    assert name_of(service.Started(version="1")) == ""


def test_the_clock_bears_what_a_recording_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    assert clock(0.25).endswith(":00:00.250") or clock(0.25).endswith(":30:00.250")
    for impossible in (1e300, float("inf"), float("nan"), -1e300):
        assert clock(impossible) == "--:--:--.---"
