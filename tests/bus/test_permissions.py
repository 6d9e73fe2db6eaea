"""Who may say and hear what: by the plan, and by the real server as every kind of user meets it."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from rigs.waiting import eventually

from xenmesh.bus.config import Settings
from xenmesh.bus.errors import ConnectFailed, Forbidden, NoResponders, Timeout
from xenmesh.bus.keys import ensure_keys, key_file
from xenmesh.bus.message import Message
from xenmesh.bus.nats import NatsBus, connect
from xenmesh.bus.permissions import SYS, User, plan
from xenmesh.bus.server import Server
from xenmesh.schemas.subjects import DECLARATIONS, OPERATOR, VIEW, matches

HOST = "h1"
X = f"xen.v1.{HOST}"
PLAN = plan(HOST, operators=["alice"], viewers=["grafana"])
SERVICES = [user for user in PLAN.users if user.name in DECLARATIONS]


def user(name: str) -> User:
    return next(user for user in PLAN.users if user.name == name)


def may_say(name: str, subject: str) -> bool:
    return any(matches(pattern, subject) for pattern in user(name).publish)


def may_hear(name: str, subject: str) -> bool:
    return any(matches(pattern, subject) for pattern in user(name).subscribe)


# The plan.


def test_every_service_has_a_user_and_every_user_an_account() -> None:
    assert {service.name for service in SERVICES} == set(DECLARATIONS)
    assert {user.account for user in SERVICES} == {"XEN"}
    assert {user.name for user in PLAN.of("VIEW")} == {VIEW, "grafana"}
    assert {user.name for user in PLAN.of("SYS")} == {SYS}


@pytest.mark.parametrize("name", [user.name for user in PLAN.users])
def test_nobody_hears_foreign_inboxes(name: str) -> None:
    inboxes = [pattern for pattern in user(name).subscribe if pattern.startswith(("_INBOX", ">", "*"))]
    assert inboxes == [f"_INBOX.{name}.>"]


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(DECLARATIONS, 2)))
def test_no_service_speaks_for_another(one: str, other: str) -> None:
    assert not may_say(one, f"{X}.hb.{other}")
    assert not may_say(one, f"{X}.evt.service.{other}.started")
    assert not may_say(one, f"{X}.state.service.{other}")
    assert not may_say(one, f"$KV.xen_state.service.{other}")
    assert not may_say(one, f"{X}.audit.{other}.start")
    stream = DECLARATIONS[other].stream.replace("*", "x").replace(">", "x.y")
    assert not may_say(one, f"{X}.{stream}")
    assert not may_hear(one, f"{X}.q.{other}.snapshot")
    assert not may_hear(one, f"{X}.cmd.operator.{other}.start")


def test_a_service_says_and_hears_what_it_declares() -> None:
    assert may_say("store", f"{X}.store.5.data")
    assert may_say("store", f"{X}.hb.store")
    assert may_say("domains", "$KV.xen_state.domain.u")
    assert may_say("domains", f"{X}.state.domain.u")
    assert may_hear("store", f"{X}.q.store.read")
    assert may_hear("domains", f"{X}.cmd.alice.domains.start")
    assert may_hear("guests", f"{X}.store.5.data")
    assert may_hear("guests", f"{X}.hb.store")
    assert may_say("guests", f"{X}.q.store.read")
    assert not may_say("store", f"{X}.q.domains.snapshot")


def test_only_provision_makes_streams_and_nobody_makes_consumers() -> None:
    for each in PLAN.users:
        assert may_say(each.name, "$JS.API.STREAM.CREATE.XEN_EVT") == (each.name == "provision")
        for forbidden in (
            "CONSUMER.CREATE.XEN_EVT",
            "CONSUMER.CREATE.XEN_EVT.x.y",
            "STREAM.DELETE.XEN_EVT",
            "STREAM.PURGE.XEN_EVT",
        ):
            assert not may_say(each.name, f"$JS.API.{forbidden}")


@pytest.mark.parametrize("name", [OPERATOR, "alice"])
def test_operators_ask_everything_and_command_under_their_own_name(name: str) -> None:
    assert may_say(name, f"{X}.q.store.read")
    assert may_say(name, f"{X}.cmd.{name}.domains.start")
    assert not may_say(name, f"{X}.cmd.somebody.domains.start")
    for what in ("evt.domain.u.lifecycle", "store.5.data", "state.domain.u", "audit.domains.start", "hb.store"):
        assert not may_say(name, f"{X}.{what}")
        assert may_hear(name, f"{X}.{what}")
    assert not may_hear(name, f"{X}.q.store.read")  # nobody else answers for a service
    assert not may_hear(name, f"{X}.cmd.alice.domains.start")
    assert may_say(name, "$JS.API.STREAM.INFO.XEN_EVT")


@pytest.mark.parametrize("name", [VIEW, "grafana"])
def test_viewers_look(name: str) -> None:
    assert may_hear(name, f"{X}.evt.domain.u.lifecycle")
    assert may_hear(name, f"{X}.state.domain.u")
    assert may_hear(name, f"{X}.tele.host")
    assert may_say(name, f"{X}.q.domains.snapshot")
    assert may_say(name, "$SRV.INFO.store")
    for hidden in ("store.5.data", "audit.domains.start", "q.domains.snapshot", "cmd.view.domains.start"):
        assert not may_hear(name, f"{X}.{hidden}")
    for forbidden in (
        f"{X}.q.store.read",
        f"{X}.cmd.view.domains.start",
        f"{X}.evt.host.x",
        "$JS.API.INFO",
        "$KV.xen_state.domain.u",
    ):
        assert not may_say(name, forbidden)


def test_only_services_answer() -> None:
    assert {each.name for each in PLAN.users if each.answers} == set(DECLARATIONS)


def test_what_leaves_for_viewers_is_public_and_never_a_command() -> None:
    public = {f"{X}.q.{d.name}.{v.name}" for d in DECLARATIONS.values() for v in d.answers if v.public}
    asked = {export.subject for export in PLAN.exports if export.kind == "service" and export.subject.startswith("xen.")}
    assert asked == public
    heard = {export.subject for export in PLAN.exports if export.kind == "stream"}
    assert heard == {f"{X}.evt.>", f"{X}.state.>", f"{X}.tele.>", f"{X}.hb.>"}


# The real server.


class Mesh:
    """A real server with its configuration, and buses of its users."""

    def __init__(self, server: Server, directory: Path, stack: AsyncExitStack) -> None:
        self.url = server.url
        self.directory = directory
        self._stack = stack

    async def join(self, name: str, **options: Any) -> NatsBus:
        seed = key_file(self.directory / "keys", name)
        return await self._stack.enter_async_context(connect(self.url, user=name, host=HOST, seed=seed, **options))


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    extra = ensure_keys(tmp_path / "keys", ["alice", "grafana"])
    settings = Settings(
        directory=str(tmp_path), host=HOST, port=0, operators={"alice": extra["alice"]}, viewers={"grafana": extra["grafana"]}
    )
    async with Server(settings) as server, AsyncExitStack() as stack:
        yield Mesh(server, tmp_path, stack)


async def serve(bus: NatsBus, subject: str, asked: list[Message]) -> None:
    """Answer as a service does."""
    answers: set[asyncio.Task[None]] = set()

    def take(message: Message) -> None:
        asked.append(message)
        answer = asyncio.create_task(bus.publish(message.reply, b"answer"))
        answers.add(answer)
        answer.add_done_callback(answers.discard)

    await bus.subscribe(subject, take)
    await bus.settle()


async def refused_to_hear(bus: NatsBus, pattern: str) -> None:
    heard: list[Message] = []
    await bus.subscribe(pattern, heard.append)
    with pytest.raises(Forbidden):
        await bus.settle()


async def refused_to_ask(bus: NatsBus, subject: str) -> None:
    with pytest.raises(Forbidden):
        await bus.request(subject, b"{}", timeout=5)


@pytest.mark.parametrize("name", [VIEW, "grafana"])
async def test_a_viewer_sees_events_states_and_public_queries(mesh: Mesh, name: str) -> None:
    domains = await mesh.join("domains")
    view = await mesh.join(name)
    heard: list[tuple[str, bytes]] = []
    for pattern in ("evt.>", "state.>", "tele.>"):
        await view.subscribe(f"{X}.{pattern}", lambda message: heard.append((message.subject, message.data)))
    await view.settle()
    await domains.keep(f"{X}.evt.domain.u.lifecycle", b"1", identity="1")
    await domains.put("domain.u", b"2")
    await eventually(lambda: len(heard) == 2, "event and state")
    assert sorted(heard) == [(f"{X}.evt.domain.u.lifecycle", b"1"), (f"{X}.state.domain.u", b"2")]
    asked: list[Message] = []
    await serve(domains, f"{X}.q.domains.snapshot", asked)
    assert (await view.request(f"{X}.q.domains.snapshot", b"{}", timeout=5)).data == b"answer"
    with pytest.raises(NoResponders):
        await view.request(f"{X}.q.guests.snapshot", b"{}", timeout=5)


async def test_a_viewer_finds_services(mesh: Mesh) -> None:
    view = await mesh.join(VIEW)
    found: list[Message] = []
    for name in ("domains", "store"):
        await serve(await mesh.join(name), "$SRV.PING", [])
    inbox = "_INBOX.view.mine"
    await view.subscribe(inbox, found.append)
    await view.settle()
    await view.publish("$SRV.PING", b"", reply=inbox)
    await eventually(lambda: len(found) == 2, "the answers of both")


async def test_a_viewer_may_not_hear(mesh: Mesh) -> None:
    view = await mesh.join(VIEW)
    for pattern in [
        f"{X}.store.>",
        f"{X}.cmd.>",
        f"{X}.audit.>",
        f"{X}.q.>",
        f"{X}.>",
        ">",
        "_INBOX.>",
        "_INBOX.domains.>",
        "_INBOX.grafana.>",
        "$KV.>",
        "$JS.>",
        "$SYS.>",
        "$SRV.PING",
        "_R_.>",
    ]:
        await refused_to_hear(view, pattern)


async def test_a_viewer_may_not_say(mesh: Mesh) -> None:
    domains = await mesh.join("domains")
    heard: list[Message] = []
    await domains.subscribe(f"{X}.cmd.*.domains.*", heard.append)
    await domains.settle()
    view = await mesh.join(VIEW)
    for subject in [
        f"{X}.cmd.view.domains.start",
        f"{X}.cmd.operator.domains.start",
        f"{X}.q.store.read",
        f"{X}.q.store.snapshot",
        f"{X}.evt.domain.u.lifecycle",
        f"{X}.store.5.data",
        "$JS.API.INFO",
        "$JS.API.STREAM.NAMES",
        "$JS.API.DIRECT.GET.XEN_EVT",
        "$JS.API.CONSUMER.CREATE.XEN_EVT",
        "$KV.xen_state.domain.u",
        "$SYS.REQ.SERVER.PING",
        "_INBOX.domains.x.1",
    ]:
        await refused_to_ask(view, subject)
    await domains.settle()
    assert heard == []


async def test_the_confused_deputy_fails(mesh: Mesh) -> None:
    """A query whose reply is to be a command: the service answers, and the answer reaches no handler of commands."""
    domains, guests = await mesh.join("domains"), await mesh.join("guests")
    commands: list[Message] = []
    asked: list[Message] = []
    await guests.subscribe(f"{X}.cmd.*.guests.*", commands.append)
    await domains.subscribe(f"{X}.cmd.*.domains.*", commands.append)
    await guests.settle()
    await serve(domains, f"{X}.q.domains.snapshot", asked)
    view = await mesh.join(VIEW)
    for target in (f"{X}.cmd.operator.guests.reset", f"{X}.cmd.operator.domains.start", "$JS.API.STREAM.DELETE.XEN_EVT"):
        await view.publish(f"{X}.q.domains.snapshot", b"{}", reply=target)
    await view.settle()
    await eventually(lambda: len(asked) == 3, "the queries to arrive")
    for bus in (domains, guests, domains, guests):
        await bus.settle()
    assert commands == []
    assert all(message.reply.startswith("_R_.") for message in asked)


async def test_the_deputy_is_real_within_one_account(mesh: Mesh) -> None:
    """Why looking is an account: from XEN itself the same trick delivers. Only operators and services are there."""
    domains, guests = await mesh.join("domains"), await mesh.join("guests")
    commands: list[Message] = []
    await guests.subscribe(f"{X}.cmd.*.guests.*", commands.append)
    await guests.settle()
    await serve(domains, f"{X}.q.domains.snapshot", [])
    operator = await mesh.join(OPERATOR)
    await operator.publish(f"{X}.q.domains.snapshot", b"{}", reply=f"{X}.cmd.other.guests.reset")
    await eventually(lambda: commands, "the reply at the command's subject")
    assert commands[0].reply == ""  # by which a handler of commands tells it: it demands a reply subject


async def test_an_operator(mesh: Mesh) -> None:
    domains, operator, alice = await mesh.join("domains"), await mesh.join(OPERATOR), await mesh.join("alice")
    await serve(domains, f"{X}.cmd.*.domains.start", [])
    assert (await operator.request(f"{X}.cmd.operator.domains.start", b"{}", timeout=5)).data == b"answer"
    assert (await alice.request(f"{X}.cmd.alice.domains.start", b"{}", timeout=5)).data == b"answer"
    await refused_to_ask(operator, f"{X}.cmd.alice.domains.start")
    await refused_to_ask(operator, f"{X}.evt.domain.u.lifecycle")
    await refused_to_ask(operator, f"{X}.store.5.data")
    await refused_to_ask(operator, "$JS.API.STREAM.DELETE.XEN_EVT")
    await refused_to_hear(operator, "_INBOX.domains.>")
    await domains.keep(f"{X}.evt.domain.u.lifecycle", b"1", identity="1")
    assert [kept.data async for kept in operator.history(f"{X}.evt.>")] == [b"1"]
    assert b"XEN_EVT" in (await operator.request("$JS.API.STREAM.NAMES", b"", timeout=5)).data


async def test_a_service_is_held_to_its_declaration(mesh: Mesh) -> None:
    store = await mesh.join("store")
    await refused_to_ask(store, f"{X}.evt.domain.u.lifecycle")
    await refused_to_ask(store, f"{X}.cmd.store.domains.start")
    await refused_to_ask(store, "$KV.xen_state.domain.u")
    await refused_to_ask(store, "$JS.API.STREAM.CREATE.XEN_EVT")
    await refused_to_hear(store, f"{X}.q.domains.*")
    with pytest.raises(Forbidden):
        await store.put("domain.u", b"")
    await store.put("service.store", b"1")
    assert await store.keys() == ["service.store"]


async def test_a_service_answers_once_and_only_what_it_was_asked(mesh: Mesh) -> None:
    domains, operator = await mesh.join("domains"), await mesh.join(OPERATOR)
    asked: list[Message] = []
    await domains.subscribe(f"{X}.q.domains.*", asked.append)
    await domains.settle()
    with pytest.raises(Timeout):
        await operator.request(f"{X}.q.domains.snapshot", b"", timeout=0.2)
    before = domains.counters.refused
    await domains.publish("_INBOX.operator.foreign", b"")
    await domains.settle()
    assert domains.counters.refused == before + 1
    await domains.publish(asked[0].reply, b"late, and still allowed")
    await domains.settle()
    assert domains.counters.refused == before + 1


async def test_the_server_tells_sys_about_itself(mesh: Mesh) -> None:
    sys = await mesh.join(SYS)
    assert b'"mem"' in (await sys.request("$SYS.REQ.SERVER.PING.VARZ", b"", timeout=5)).data
    await refused_to_hear(sys, f"{X}.evt.>")


async def test_nobody_comes_in_without_a_key_or_with_a_foreign_one(mesh: Mesh, tmp_path: Path) -> None:
    ensure_keys(tmp_path / "foreign", ["view"])
    for seed in (None, key_file(tmp_path / "foreign", "view")):
        with pytest.raises(ConnectFailed, match="does not know"):
            async with connect(mesh.url, user="view", host=HOST, seed=seed, deadline=5):
                pass
