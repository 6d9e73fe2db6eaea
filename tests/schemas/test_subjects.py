import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenmesh.schemas import EVENTS, domain, guest, service, store, subjects

UUID = "0d0fa7f2-6f7b-4d7c-9df0-0d8c2a0b4c11"


def test_a_host_id_is_one_token() -> None:
    assert subjects.prefix(UUID) == f"xen.v1.{UUID}"
    assert subjects.prefix("*") == "xen.v1.*"


@pytest.mark.parametrize("bad", ["", "a.b", "a b", "*", ">", "x" * 65, "naïve", "a\n"])
def test_what_is_no_token_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="cannot be part of a subject"):
        subjects.token(bad)


def test_below_takes_the_hosts_prefix_off() -> None:
    assert subjects.below("xen.v1.h.store.5.data") == "store.5.data"
    for other in ("a.b.c.d", "xen.v1.h", ""):
        with pytest.raises(ValueError, match="not a subject of xenmesh"):
            subjects.below(other)


@pytest.mark.parametrize(
    ("pattern", "subject", "fits"),
    [
        ("store.>", "store.5.data", True),
        ("store.>", "store", False),
        ("store.*.data", "store.5.data", True),
        ("store.*", "store.5.data", False),
        ("store.5.data", "store.5", False),
        ("store.5", "store.5", True),
        ("a.>.b", "a.x.b", False),
    ],
)
def test_matches_follows_nats(pattern: str, subject: str, *, fits: bool) -> None:
    assert subjects.matches(pattern, subject) is fits


@pytest.mark.parametrize(
    ("subject", "owner"),
    [
        ("store.5.data", "store.5"),
        ("store.host.vm", "store.host"),
        (f"evt.guest.{UUID}.os", f"evt.guest.{UUID}"),
        ("evt.service.store.started", "evt.service.store"),
        ("evt.host.dmesg", "evt.host"),
    ],
)
def test_owners(subject: str, owner: str) -> None:
    assert subjects.owner_of(subject) == owner


@pytest.mark.parametrize("subject", ["hb.store", "state.host", "store.5", "evt.guest", "evt.task.1"])
def test_what_is_no_event_has_no_owner(subject: str) -> None:
    with pytest.raises(ValueError, match="not the subject of an event"):
        subjects.owner_of(subject)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/local/domain/5", (5, "self")),
        ("/local/domain/5/name", (5, "self")),
        ("/local/domain/5/data/os_name", (5, "data")),
        ("/local/domain/5/evil/x", (5, "other")),
        ("/local/domain/5/libxl/x", (5, "other")),
        ("/local/domain/0/backend/vif/5/0/state", (0, "backend")),
        ("/local/domain/x/data", (None, "other")),
        ("/local/domain/123456/data", (None, "other")),
        ("/libxl/5/device", (5, "libxl")),
        ("/libxl/x", (None, "libxl")),
        ("/libxl", (None, "libxl")),
        ("/vm/abc/name", (None, "vm")),
        ("/tool/xenstored", (None, "tool")),
        ("/local", (None, "other")),
        ("/", (None, "other")),
    ],
)
def test_areas_of_paths(path: str, place: tuple[int | None, str]) -> None:
    assert subjects.area_of(path) == place


@given(st.text())
def test_an_area_is_always_of_the_closed_list(path: str) -> None:
    domid, area = subjects.area_of(path)

    assert area in store.AREAS
    assert domid is None or 0 <= domid <= 99999


SAID = [
    (store.Changed(domid=5, uuid=None, path="/local/domain/5/data/x", value=""), "store.5.data"),
    (store.Removed(domid=None, uuid=None, path="/vm/x"), "store.host.vm"),
    (store.DomainSeen(domid=5, uuid=UUID, introduced=True, generation=1), "store.5.domain"),
    (store.DomainGone(domid=5, uuid=UUID, generation=1), "store.5.domain"),
    (store.Capped(domid=5, uuid=None, area="data", limit=store.Limit.NODES, left_out=3), "store.5.domain"),
    (store.Capped(domid=None, uuid=None, area="vm", limit=None, left_out=0), "store.host.domain"),
    (store.Flooding(domid=5, uuid=None, active=True, dropped=0), "evt.service.store.flooding"),
    (
        domain.Lifecycle(uuid=UUID, name="x", domid=1, before=None, after=domain.Power.RUNNING),
        f"evt.domain.{UUID}.lifecycle",
    ),
    (domain.Vanished(uuid=UUID, domid=None), f"evt.domain.{UUID}.vanished"),
    (
        domain.Task(id="t1", request_id="r", verb="start", uuid=None, phase=domain.TaskPhase.STARTED),
        "evt.task.t1.started",
    ),
    (
        guest.GuestChanged(uuid=UUID, area="os", info=guest.GuestInfo(uuid=UUID, domid=1, live=guest.Live.LIVE)),
        f"evt.guest.{UUID}.os",
    ),
]


@pytest.mark.parametrize(("event", "subject"), SAID, ids=lambda value: value if isinstance(value, str) else "")
def test_where_events_are_said(event: object, subject: str) -> None:
    assert subjects.of(event) == subject  # type: ignore[arg-type]
    assert subjects.matches(subjects.pattern(type(event)), subject)  # type: ignore[arg-type]
    subjects.owner_of(subject)


def test_a_state_has_no_place_in_the_order() -> None:
    state = service.ServiceState(name="store", version="1", boot="b", ready=True, status="", since=0, lame_duck=False)

    with pytest.raises(TypeError):
        subjects.of(state)
    assert subjects.state_key(state) == "service.store"


def test_state_keys() -> None:
    info = guest.GuestInfo(uuid=UUID, domid=1, live=guest.Live.LIVE)
    of_domain = domain.Domain(uuid=UUID, name="../x", domid=1, power=domain.Power.RUNNING)

    assert subjects.state_key(info) == f"guest.{UUID}"
    assert subjects.state_key(of_domain) == f"domain.{UUID}"
    with pytest.raises(TypeError):
        subjects.state_key(SAID[0][0])


def test_what_a_service_says_of_itself() -> None:
    assert subjects.own("store", service.Started(version="1")) == "evt.service.store.started"
    assert subjects.own("store", service.Stopping(reason="asked")) == "evt.service.store.stopping"


def test_requests() -> None:
    assert subjects.query("store", "read") == "q.store.read"
    assert subjects.command("ann", "domains", "start") == "cmd.ann.domains.start"
    assert subjects.command("*", "domains", "start") == "cmd.*.domains.start"
    assert subjects.audit("domains", "start") == "audit.domains.start"
    assert subjects.heartbeat("*") == "hb.*"
    with pytest.raises(ValueError, match="subject"):
        subjects.command("a.b", "domains", "start")


def test_every_event_of_a_service_lies_where_the_service_may_speak() -> None:
    for given_ in subjects.DECLARATIONS.values():
        for kind in (*given_.events, *given_.states):
            example = subjects.ADDRESSES[kind].replace("{", "").replace("}", "")
            assert any(subjects.matches(pattern, example) for pattern in given_.says), (given_.name, example)


def test_no_two_services_speak_on_one_stream() -> None:
    streams = [given_.stream for given_ in subjects.DECLARATIONS.values()]

    assert len(streams) == len(set(streams))


def test_every_type_has_an_address() -> None:
    assert set(subjects.ADDRESSES) == set(EVENTS.values())


def test_no_command_is_public_and_the_store_is_not() -> None:
    for given_ in subjects.DECLARATIONS.values():
        assert not [verb for verb in given_.answers if verb.public and verb.commands]
    assert not [verb for verb in subjects.declaration("store").verbs if verb.public]


def test_an_unknown_service_is_named_with_those_that_there_are() -> None:
    with pytest.raises(KeyError, match="no service 'stroe'; there are: store"):
        subjects.declaration("stroe")
