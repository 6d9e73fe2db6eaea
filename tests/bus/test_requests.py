"""Every request gets exactly one outcome, whatever it is and whatever its handler does."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs.waiting import eventually

from xenmesh.bus.errors import Refused
from xenmesh.bus.memory import MemoryBus, MemoryServer
from xenmesh.bus.message import Message
from xenmesh.bus.service import Caller, Limits, Service
from xenmesh.schemas import request as wire
from xenmesh.schemas.errors import CODES
from xenmesh.schemas.request import Command, Query
from xenmesh.schemas.subjects import Declaration, Verb


class Ask(Query, frozen=True, kw_only=True, omit_defaults=True):
    what: str = ""


class Write(Command, frozen=True, kw_only=True, tag="notes.write"):
    text: str = ""


class Note(msgspec.Struct, frozen=True):
    text: str


NOTES = Declaration(
    name="notes",
    purpose="For tests.",
    stream="evt.service.notes.>",
    events=(),
    verbs=(
        Verb("ask", Ask, Note),
        Verb("write", Write, Note),
        Verb("idle", Ask, Note),
        Verb("snapshot", wire.Snapshot, wire.SnapshotPage),
    ),
)
Q, C = "xen.v1.h.q.notes", "xen.v1.h.cmd.ann.notes"


class World:
    """A service with one handler that a test may hold up, and whoever asks it."""

    def __init__(self, server: MemoryServer, service: Service) -> None:
        self.server = server
        self.service = service
        self.client = MemoryBus(server, user="ann", host="h")
        self.open = anyio.Event()
        self.open.set()
        self.running = 0
        self.most = 0
        self.done: list[tuple[Any, Caller]] = []
        self.audits: list[dict[str, Any]] = []

    async def handle(self, request: Ask | Write, caller: Caller) -> Note:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.open.wait()
            text = request.what if isinstance(request, Ask) else request.text
            match text:
                case "bug":
                    raise ValueError("secret of ours")
                case "refuse":
                    raise Refused.of("not-found", what="note", name="é\n\r" + "x" * 400)
                case "bad fact":
                    raise Refused.of("not-found")
                case "wrong":
                    return {"text": text}  # type: ignore[return-value]
                case "large":
                    return Note("x" * (2 << 20))
            self.done.append((request, caller))
            return Note(f"{text} {len(self.done)}")
        finally:
            self.running -= 1

    async def ask(self, subject: str, data: bytes | dict[str, Any] = b"{}") -> tuple[dict[str, Any], Message]:
        message = await self.client.request(subject, data if isinstance(data, bytes) else json.dumps(data).encode(), timeout=20)
        return json.loads(message.data), message

    async def code(self, subject: str, data: bytes | dict[str, Any] = b"{}") -> str:
        outcome, message = await self.ask(subject, data)
        if outcome["error"] is None:
            assert outcome["result"] is not None
            assert message.headers is None
            return "ok"
        assert outcome["result"] is None
        error = outcome["error"]
        assert message.headers is not None
        assert message.headers["Nats-Service-Error-Code"] == str(error["number"]) == str(CODES[error["code"]].number)
        assert all(" " <= letter <= "~" for letter in message.headers["Nats-Service-Error"])
        return str(error["code"])


@asynccontextmanager
async def notes(
    outcomes: Path | None = None, *, ready: bool = True, clock: Callable[[], float] = lambda: 1000.0, **limits: Any
) -> AsyncIterator[World]:
    server = MemoryServer()
    service = Service(
        MemoryBus(server, user="notes", host="h"),
        NOTES,
        "h",
        version="1.0.0",
        outcomes=outcomes,
        clock=clock,
        limits=Limits(**limits),
    )
    world = World(server, service)
    await world.client.subscribe("xen.v1.h.audit.>", lambda message: world.audits.append(json.loads(message.data)))
    service.answer("ask", world.handle)
    service.answer("write", world.handle)
    async with service.serve():
        if ready:
            await service.ready()
        yield world


@pytest.mark.parametrize(
    ("verb", "data", "code"),
    [
        ("ask", {"what": "x", "request_id": "7"}, "ok"),
        ("ask", b"", "ok"),
        ("ask", {"unknown": [[{}]]}, "ok"),
        ("ask", b"\xff\xfe", "bad-request"),
        ("ask", b'{"what":"\xff"}', "bad-request"),
        ("ask", b"[]", "bad-request"),
        ("ask", b'{"y":' + b"[" * 50_000, "bad-request"),
        ("ask", {"what": 1}, "bad-request"),
        ("ask", {"request_id": "x" * 129}, "bad-request"),
        ("ask", {"deadline": 999.0}, "deadline"),
        ("ask", {"deadline": 1001.0}, "ok"),
        ("ask", b" " * (65 << 10), "too-large"),
        ("nothing", {}, "unknown-verb"),
        ("write", {}, "unknown-verb"),
        ("idle", {}, "unsupported"),
        ("ask", {"what": "bug"}, "internal"),
        ("ask", {"what": "bad fact"}, "internal"),
        ("ask", {"what": "wrong"}, "internal"),
        ("ask", {"what": "large"}, "internal"),
        ("ask", {"what": "refuse"}, "not-found"),
        ("health", b"\xff", "ok"),
        ("barrier", {}, "ok"),
        ("snapshot", {"cut": "gone"}, "unsupported"),
    ],
)
async def test_a_query_gets_its_outcome(verb: str, data: Any, code: str) -> None:
    async with notes() as world:
        assert await world.code(f"{Q}.{verb}", data) == code
        assert await world.code(f"{Q}.ask") == "ok"  # and the service lives


@pytest.mark.parametrize(
    ("verb", "data", "code"),
    [
        ("write", {"op": "notes.write", "request_id": "1", "text": "x"}, "ok"),
        ("write", {"op": "notes.write", "request_id": "1", "new": "x"}, "unknown-field"),
        ("write", {"op": "notes.other", "request_id": "1"}, "bad-request"),
        ("write", {"op": 5, "request_id": "1"}, "bad-request"),
        ("write", {"request_id": "1"}, "bad-request"),
        ("write", {"op": "notes.write"}, "bad-request"),
        ("write", {"op": "notes.write", "request_id": ""}, "bad-request"),
        ("write", {"op": "notes.write", "request_id": "1", "deadline": 1}, "deadline"),
        ("write", b"", "bad-request"),
        ("ask", {"op": "notes.ask", "request_id": "1"}, "unknown-verb"),
        ("write", {"op": "notes.write", "request_id": "1", "text": "bug"}, "internal"),
        ("write", {"op": "notes.write", "request_id": "1", "text": "refuse"}, "not-found"),
    ],
)
async def test_a_command_gets_its_outcome_and_is_audited(verb: str, data: Any, code: str) -> None:
    async with notes() as world:
        assert await world.code(f"{C}.{verb}", data) == code
        await eventually(lambda: world.audits, "the audit")
        (said,) = world.audits
        assert said["event"]["user"] == "ann"
        assert said["event"]["code"] == code
        assert said["event"]["verb"] == ("write" if verb == "write" else "unknown")


async def test_nothing_of_a_bug_but_its_number_reaches_the_asker(caplog: pytest.LogCaptureFixture) -> None:
    async with notes() as world:
        outcome, message = await world.ask(f"{Q}.ask", {"what": "bug", "request_id": "7"})
        assert outcome["request_id"] == "7"
        assert b"secret" not in message.data
        assert "secret" not in str(message.headers)
        assert outcome["error"]["facts"]["incident"] in caplog.text
        assert "secret of ours" in caplog.text


async def test_before_it_is_ready_only_health_is_answered() -> None:
    async with notes(ready=False) as world:
        assert await world.code(f"{Q}.ask") == "not-ready"
        assert await world.code(f"{C}.write", {"op": "notes.write", "request_id": "1"}) == "not-ready"
        assert await world.code(f"{Q}.health") == "ok"
        await world.service.ready()
        assert await world.code(f"{C}.write", {"op": "notes.write", "request_id": "1"}) == "ok"


async def test_handlers_are_bounded_waiting_is_bounded_and_health_overtakes() -> None:
    async with notes(handlers=2, waiting=3) as world, anyio.create_task_group() as tasks:
        world.open = anyio.Event()
        codes: Counter[str] = Counter()

        async def one() -> None:
            codes[await world.code(f"{Q}.ask")] += 1

        for _ in range(2):
            tasks.start_soon(one)
        await eventually(lambda: world.running == 2, "both handlers")
        for _ in range(7):
            tasks.start_soon(one)
        await eventually(lambda: codes["too-busy"] == 4, "the rest to be refused")
        assert await world.code(f"{Q}.health") == "ok"
        assert await world.code(f"{C}.nothing") == "unknown-verb"  # commands have handlers of their own
        world.open.set()
        await eventually(lambda: codes.total() == 9, "all")
        assert codes == {"ok": 5, "too-busy": 4}
        assert world.most == 2


async def test_a_query_that_takes_too_long_times_out() -> None:
    async with notes(query=0.05) as world:
        world.open = anyio.Event()
        assert await world.code(f"{Q}.ask") == "timeout"
        await eventually(lambda: world.running == 0, "the handler to be cancelled")


async def test_without_a_reply_subject_a_command_is_not_carried_out() -> None:
    async with notes() as world:
        await world.client.publish(f"{C}.write", b'{"op":"notes.write","request_id":"1"}')
        await world.client.publish(f"{Q}.ask", b"{}")
        await eventually(lambda: world.audits, "the audit")
        assert world.audits[0]["event"]["code"] == "no-reply"
        assert world.done == []
        assert world.service.counters["requests.unanswerable"] == 2


def write(request_id: str, text: str = "x", **more: Any) -> dict[str, Any]:
    return {"op": "notes.write", "request_id": request_id, "text": text, **more}


async def test_the_same_id_gets_the_same_outcome_and_is_done_once(tmp_path: Path) -> None:
    async with notes(tmp_path / "outcomes") as world:
        first, _ = await world.ask(f"{C}.write", write("1"))
        again, _ = await world.ask(f"{C}.write", write("1", deadline=5000))
        assert first == again
        assert len(world.done) == 1
        assert await world.code(f"{C}.write", write("1", "other")) == "request-reused"
        assert await world.code(f"{C}.write", write("2", "refuse")) == "not-found"
        assert await world.code("xen.v1.h.cmd.bob.notes.write", write("1", "bob's")) == "ok"
    async with notes(tmp_path / "outcomes") as world:
        assert (await world.ask(f"{C}.write", write("1")))[0] == first
        assert await world.code(f"{C}.write", write("2", "refuse")) == "not-found"
        assert world.done == []
        assert world.service.counters["commands.repeated"] == 2
    async with notes(tmp_path / "outcomes", clock=lambda: 1000.0 + 24 * 3600 + 1) as world:
        assert await world.code(f"{C}.write", write("1", "other")) == "ok"


async def test_the_same_id_while_it_runs_attaches_to_it() -> None:
    got: list[dict[str, Any]] = []
    async with notes(commands=4) as world, anyio.create_task_group() as tasks:
        world.open = anyio.Event()

        async def one() -> None:
            got.append((await world.ask(f"{C}.write", write("1")))[0])

        for _ in range(5):
            tasks.start_soon(one)
        await eventually(lambda: world.service.counters["commands.attached"] == 4, "four to attach")
        assert await world.code(f"{C}.write", write("1", "other")) == "request-reused"
        world.open.set()
        await eventually(lambda: len(got) == 5, "all")
        assert all(each == got[0] for each in got)
        assert len(world.done) == 1


async def test_a_repetition_does_not_wait_behind_busy_handlers() -> None:
    got: list[dict[str, Any]] = []
    async with notes(commands=2) as world, anyio.create_task_group() as tasks:

        async def one(request_id: str) -> None:
            got.append((await world.ask(f"{C}.write", write(request_id)))[0])

        await one("done")
        world.open = anyio.Event()
        for request_id in ("a", "b"):
            tasks.start_soon(one, request_id)
        await eventually(lambda: world.running == 2, "both handlers to be busy")
        tasks.start_soon(one, "waits")
        await eventually(lambda: len(world.service._requests._commands) == 1, "one to wait")
        await one("done")
        assert got[0] == got[1]
        tasks.start_soon(one, "a")
        await eventually(lambda: world.service.counters["commands.attached"] == 1, "one to attach")
        assert await world.code(f"{C}.write", write("a", "other")) == "request-reused"
        assert len(got) == 2
        world.open.set()
        await eventually(lambda: len(got) == 6, "all")
        assert len(world.done) == 4


async def test_an_outcome_that_the_disk_does_not_tell_is_unknown_and_not_made_again(tmp_path: Path) -> None:
    async with notes(tmp_path / "outcomes") as world:
        assert await world.code(f"{C}.write", write("1")) == "ok"
        (tmp_path / "outcomes").unlink()
        assert await world.code(f"{C}.write", write("1")) == "outcome-unknown"
        assert len(world.done) == 1


async def test_one_reply_subject_used_twice_does_it_once() -> None:
    async with notes() as world:
        world.open = anyio.Event()
        heard: list[Message] = []
        await world.client.subscribe("mine", heard.append)
        for _ in range(2):
            await world.client.publish(f"{C}.write", json.dumps(write("1")).encode(), reply="mine")
        await eventually(lambda: world.service.counters["commands.attached"], "the second to attach")
        world.open.set()
        await eventually(lambda: len(heard) == 2, "two outcomes for two requests")
        assert len(world.done) == 1


async def test_drain_lets_what_runs_finish_and_refuses_the_rest() -> None:
    async with notes(handlers=1) as world, anyio.create_task_group() as tasks:
        world.open = anyio.Event()
        codes: list[str] = []

        async def one(subject: str, data: dict[str, Any]) -> None:
            codes.append(await world.code(subject, data))

        tasks.start_soon(one, f"{Q}.ask", {})
        tasks.start_soon(one, f"{C}.write", write("1"))
        await eventually(lambda: world.running == 2, "both to run")
        tasks.start_soon(one, f"{Q}.ask", {})  # waits for a handler
        await eventually(lambda: len(world.service._requests._queries) == 1, "one to wait")
        tasks.start_soon(world.service.drain)
        await eventually(lambda: codes == ["draining"], "the waiting one to be refused")
        assert await world.code(f"{Q}.ask") == "draining"
        assert await world.code(f"{C}.write", write("2")) == "draining"
        assert await world.code(f"{Q}.health") == "ok"
        world.open.set()
        await eventually(lambda: sorted(codes) == ["draining", "ok", "ok"], "those that ran")


async def test_what_does_not_finish_is_cut_short_and_its_outcome_is_unknown_for_good(tmp_path: Path) -> None:
    async with notes(tmp_path / "outcomes", drain=0.05) as world, anyio.create_task_group() as tasks:
        world.open = anyio.Event()
        codes: list[str] = []

        async def one(subject: str, data: dict[str, Any]) -> None:
            codes.append(await world.code(subject, data))

        tasks.start_soon(one, f"{Q}.ask", {})
        tasks.start_soon(one, f"{C}.write", write("1"))
        await eventually(lambda: world.running == 2, "both to run")
        await world.service.drain()
        await eventually(lambda: sorted(codes) == ["draining", "outcome-unknown"], "both outcomes")
    async with notes(tmp_path / "outcomes") as world:
        assert await world.code(f"{C}.write", write("1")) == "outcome-unknown"
        assert world.done == []


async def test_a_lost_answer_is_counted_and_harms_nobody() -> None:
    async with notes() as world:
        world.service._bus.max_payload = 10  # so that not even the refusal leaves
        await world.client.publish(f"{Q}.ask", b"{}", reply="mine")
        await eventually(lambda: world.service.counters["answers.lost"], "the loss")
        world.service._bus.max_payload = 1 << 20
        assert await world.code(f"{Q}.ask") == "ok"


async def test_audits_fall_back_when_there_is_no_history() -> None:
    async with notes() as world:
        world.server.history = False
        assert await world.code(f"{C}.write", write("1")) == "ok"
        await eventually(lambda: world.audits, "the living to hear it")
        assert world.service.counters["audit.unkept"] == 1


async def test_audits_are_in_the_history() -> None:
    async with notes() as world:
        await world.code(f"{C}.write", write("1"))
        await eventually(lambda: world.server.kept("xen.v1.h.audit.notes.write"), "the audit to be kept")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "op": st.sampled_from(["notes.write", "notes.ask", "x"]) | JSON,
        "request_id": st.sampled_from(["1", "2", "", "x" * 200]) | JSON,
        "deadline": st.sampled_from([0, 1e9]) | JSON,
        "what": st.sampled_from(["bug", "refuse", "wrong", "bad fact"]) | JSON,
        "text": st.sampled_from(["bug", "refuse", "wrong"]) | JSON,
        "cut": JSON,
        "page": st.integers() | JSON,
        "owner": JSON,
        "more": JSON,
    },
)
BODIES = (
    st.binary(max_size=60)
    | FIELDS.map(lambda fields: json.dumps(fields).encode())
    | JSON.map(lambda value: json.dumps(value).encode())
)
TOKENS = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters=".*>", exclude_categories=["C", "Z"]),
    min_size=1,
    max_size=6,
)
VERBS = st.sampled_from(["ask", "write", "idle", "health", "barrier", "snapshot"]) | TOKENS
REQUESTS = st.lists(
    st.tuples(st.sampled_from(["q.notes", "cmd.ann.notes", "cmd.bob.notes"]), VERBS, BODIES), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(requests=REQUESTS, stop=st.integers(0, 12))
def test_any_request_gets_exactly_one_outcome_and_nothing_falls_over(requests: list[tuple[str, str, bytes]], stop: int) -> None:
    async def run() -> None:
        logging.disable(logging.CRITICAL)
        try:
            async with notes(handlers=2, commands=2, waiting=4) as world:
                world.service.snapshot_from(dict)
                answers: dict[str, list[bytes]] = {}
                for number, (kind, verb, body) in enumerate(requests):
                    reply = f"mine.{number}"
                    answers[reply] = []
                    await world.client.subscribe(reply, lambda message: answers[message.subject].append(message.data))
                    if number == stop:
                        await world.service.drain()
                    world.server.route(Message(f"xen.v1.h.{kind}.{verb}", body, reply))  # also what we would not send
                    await world.client.settle()
                await eventually(lambda: all(answers.values()), "all outcomes", within=30)
                assert json.loads((await world.client.request(f"{Q}.health", b"", timeout=30)).data)["result"]
            await world.client.settle()
            for got in answers.values():
                (outcome,) = got
                decoded = msgspec.json.decode(outcome, type=wire.Outcome[Any])
                assert (decoded.result is None) is not (decoded.error is None)
                assert b"secret" not in outcome
        finally:
            logging.disable(logging.NOTSET)

    anyio.run(run)
