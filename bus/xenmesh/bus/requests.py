"""Requests to one service: taken note of as they come, carried out by a bounded number of handlers, each given exactly one outcome.

Three ways lead through: queries and commands have their own handlers, so that neither holds up the other; refusals that need no handler, and
what must be answered even when all handlers are busy (health, ``$SRV``, a command that was carried out or runs already), go the quick way.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, NamedTuple, TypeVar

import anyio
import msgspec
from anyio.abc import TaskGroup
from anyio.to_thread import run_sync

from xenmesh.schemas.envelope import Envelope, encode
from xenmesh.schemas.errors import Fact, Failure, failure
from xenmesh.schemas.request import Command, Outcome, Query
from xenmesh.schemas.service import Audit
from xenmesh.schemas.subjects import Declaration, Verb, audit, below, prefix

from .abc import Bus
from .errors import BusError, NotKept, Refused
from .message import Message
from .micro import Micro
from .outcomes import Key, Outcomes, digest_of

__all__ = ["Caller", "Handle", "Limits", "Requests"]

_log = logging.getLogger(__name__)

_QUICK = 10_000
_AUDITS = 1000
_ATTACHED = 100
_ID = 128
_UNKNOWN_FIELD = re.compile(r"unknown field `([^`]*)`")
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Caller(NamedTuple):
    """Who asks: the bus user of a command (its subject says so), empty for a query, whose asker the bus does not tell."""

    user: str
    request_id: str


Handle = Callable[[Any, Caller], Awaitable[msgspec.Struct]]
"""Makes the result of a request, an instance of the verb's result type; raises `errors.Refused.of(code, **facts)` to refuse it. Any other
exception is answered ``internal`` and logged under an incident's number."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much a service takes on at once."""

    handlers: int = 16
    """Queries carried out at once."""

    commands: int = 8
    """Commands carried out at once."""

    waiting: int = 512
    """Requests that wait for a handler, of each kind; one more is refused as ``too-busy``."""

    request: int = 64 << 10
    """Bytes of one request."""

    query: float = 30.0
    """Seconds that a query may take (commands take as long as they take)."""

    page: int = 256 << 10
    """Bytes of a snapshot's page, about."""

    cuts: int = 8
    """Cuts of the state kept at once."""

    cut: float = 30.0
    """Seconds that a cut is kept after it was last asked for."""

    drain: float = 10.0
    """Seconds that running handlers get to finish when the service stops."""

    heartbeat: float = 5.0
    """Seconds from one heartbeat to the next."""


T = TypeVar("T")


class _Head(msgspec.Struct):
    """What a request of any kind may carry, read leniently."""

    request_id: str = ""


class _Op(msgspec.Struct):
    op: str = ""


class _Recorded(msgspec.Struct):
    error: Failure | None = None


class _Asked(NamedTuple):
    """A request as it came."""

    message: Message
    user: str
    verb: str
    since: float

    @property
    def command(self) -> bool:
        return bool(self.user)


_Carry = Callable[[_Asked], Awaitable[None]]


class _Answer(NamedTuple):
    """An outcome as it leaves."""

    data: bytes
    failure: Failure | None


class _Running(NamedTuple):
    """A command that is being carried out, and where its outcome is waited for."""

    digest: str
    replies: list[str]


_head = msgspec.json.Decoder(_Head)
_op = msgspec.json.Decoder(_Op)
_recorded = msgspec.json.Decoder(_Recorded)


class Requests:
    """The requests of one service and boot. `hear` takes note of them; `serve` starts the handlers in a task group; `drain` ends them."""

    def __init__(
        self,
        bus: Bus,
        declaration: Declaration,
        host: str,
        boot: str,
        *,
        seq: Callable[[], int],
        clock: Callable[[], float],
        limits: Limits,
        outcomes: Outcomes,
        micro: Micro,
        counters: Counter[str],
    ) -> None:
        self.ready = False
        self.draining = False
        self.handlers: dict[str, Handle] = {}
        self.instant: dict[str, Callable[[], msgspec.Struct]] = {}
        """Verbs that are answered at once and always, whatever is asked."""

        self._bus = bus
        self._name = declaration.name
        self._host = host
        self._prefix = prefix(host)
        self._boot = boot
        self._seq = seq
        self._clock = clock
        self._limits = limits
        self._outcomes = outcomes
        self._recording = anyio.Lock()
        self._micro = micro
        self._counters = counters
        self._verbs = {(verb.commands, verb.name): verb for verb in declaration.answers}
        self._decoders: dict[type[msgspec.Struct], msgspec.json.Decoder[Any]] = {}
        self._queries: _Lane[_Asked] = _Lane(limits.waiting)
        self._commands: _Lane[_Asked] = _Lane(limits.waiting)
        self._quick: _Lane[_Asked] = _Lane(_QUICK)
        self._audits: _Lane[tuple[str, Audit]] = _Lane(_AUDITS)
        self._audit_count = 0
        self._slots = anyio.Semaphore(limits.handlers)
        self._parked: set[int] = set()
        self._running: dict[Key, _Running] = {}
        self._workers: anyio.CancelScope | None = None

    # -- taking note ---------------------------------------------------------------------------------------------------------------

    def hear(self, message: Message) -> None:
        """A request has come: the subscription's handler. Never waits."""
        self._counters["requests"] += 1
        asked = self._asked(message)
        if not message.reply:
            self._counters["requests.unanswerable"] += 1
            if asked.command:
                _log.warning("%s", failure("no-reply", verb=f"{self._name}.{asked.verb}").sentence)
                self._audit(asked, "", "no-reply")
        elif self._at_once(asked) or not self._lane(asked).put(asked):
            self._quickly(asked)

    def discover(self, message: Message) -> None:
        """A question on ``$SRV`` has come."""
        if message.reply:
            self._quickly(_Asked(message, "", "", time.monotonic()))

    def _at_once(self, asked: _Asked) -> bool:
        return self.draining or (self._repeats(asked) if asked.command else asked.verb in self.instant)

    def _repeats(self, asked: _Asked) -> bool:
        """A command that runs, or whose outcome is recorded: it needs no handler."""
        key = Key(asked.user, _request_id(asked.message.data))
        return key in self._running or self._outcomes.find(key, self._clock()) is not None

    def _lane(self, asked: _Asked) -> _Lane[_Asked]:
        return self._commands if asked.command else self._queries

    def _quickly(self, asked: _Asked) -> None:
        if not self._quick.put(asked):
            self._counters["requests.dropped"] += 1

    def _asked(self, message: Message) -> _Asked:
        parts = below(message.subject).split(".")
        user, rest = (parts[1], parts[3:]) if parts[0] == "cmd" else ("", parts[2:])
        return _Asked(message, user, ".".join(rest), time.monotonic())

    # -- the life of the handlers ------------------------------------------------------------------------------------------------

    def serve(self, tasks: TaskGroup) -> None:
        """Start in ``tasks``; `drain` before they are cancelled."""
        tasks.start_soon(self._work)
        tasks.start_soon(self._answer_quickly)
        tasks.start_soon(self._tell_audit)

    def park(self) -> None:
        """For a query's handler that is about to wait for something: another has its slot from now on.

        Raises:
            errors.Refused: ``too-busy``: too many wait so already.
        """
        me = anyio.get_current_task().id
        if me in self._parked:
            return
        if len(self._parked) >= self._limits.waiting:
            raise Refused.of("too-busy", service=self._name, waiting=len(self._parked))
        self._parked.add(me)
        self._slots.release()

    async def _work(self) -> None:
        async with anyio.create_task_group() as workers:
            self._workers = workers.cancel_scope
            workers.start_soon(self._follow, workers, self._commands, anyio.Semaphore(self._limits.commands), self._command)
            await self._follow(workers, self._queries, self._slots, self._query)

    async def _follow(self, workers: TaskGroup, lane: _Lane[_Asked], slots: anyio.Semaphore, handle: _Carry) -> None:
        while True:
            await slots.acquire()
            workers.start_soon(self._one, lane, slots, handle, await lane.take())

    async def _one(self, lane: _Lane[_Asked], slots: anyio.Semaphore, handle: _Carry, asked: _Asked) -> None:
        try:
            await handle(asked)
        finally:
            me = anyio.get_current_task().id
            if me in self._parked:
                self._parked.remove(me)
            else:
                slots.release()
            lane.done()

    async def _answer_quickly(self) -> None:
        while True:
            asked = await self._quick.take()
            try:
                with anyio.CancelScope(shield=True):
                    await self._quick_answer(asked)
            finally:
                self._quick.done()

    async def drain(self) -> None:
        """Refuse what comes and what still waits, let what runs finish, cut short what does not within ``limits.drain`` seconds."""
        self.draining = True
        for lane in (self._queries, self._commands):
            for asked in lane.clear():
                self._quickly(asked)
        with anyio.move_on_after(self._limits.drain):
            await self._queries.idle()
            await self._commands.idle()
        if self._workers is not None:
            self._workers.cancel()
        with anyio.move_on_after(self._limits.drain):
            await self._queries.idle()
            await self._commands.idle()
            await self.finish()

    async def finish(self) -> None:
        """Wait until all that was refused, and every audit, is out."""
        await self._quick.idle()
        await self._audits.idle()

    # -- answers -------------------------------------------------------------------------------------------------------------------

    async def _quick_answer(self, asked: _Asked) -> None:
        message = asked.message
        if message.subject.startswith("$SRV."):
            await self._send(message.reply, _Answer(self._micro.answer(message.subject), None))
            return
        request_id = _request_id(message.data)
        instant = None if asked.command else self.instant.get(asked.verb)
        if instant is not None:
            answer = self._result(request_id, instant())
        elif self.draining:
            answer = self._failed(request_id, failure("draining", service=self._name))
        elif asked.command and self._repeats(asked):
            await self._command(asked, begin=False)
            return
        else:
            answer = self._failed(request_id, failure("too-busy", service=self._name, waiting=len(self._lane(asked))))
        await self._reply(asked, answer, request_id)

    async def _query(self, asked: _Asked) -> None:
        request_id = _request_id(asked.message.data)
        answer = self._failed(request_id, failure("draining", service=self._name))
        try:
            verb, request = self._read(asked)
            with anyio.move_on_after(self._limits.query) as scope:
                answer = self._result(request_id, await self._run(verb, request, Caller("", request_id)))
            if scope.cancelled_caught:
                answer = self._failed(request_id, failure("timeout", verb=self._full(asked), seconds=self._limits.query))
        except Refused as refused:
            answer = self._failed(request_id, refused.failure)
        except Exception as error:  # noqa: BLE001 - the seam: whatever a handler raises is one answer and one line in the log
            answer = self._incident(asked, request_id, error)
        finally:
            with anyio.CancelScope(shield=True):
                await self._reply(asked, answer, request_id)

    async def _command(self, asked: _Asked, *, begin: bool = True) -> None:
        request_id = _request_id(asked.message.data)
        try:
            verb, request = self._read(asked)
            key, digest = Key(asked.user, request_id), digest_of(self._full(asked), request)
            known, mine = self._enter(asked, key, digest, begin=begin)
        except Refused as refused:
            await self._reply(asked, self._failed(request_id, refused.failure), request_id)
        except Exception as error:  # noqa: BLE001 - as in _query
            await self._reply(asked, self._incident(asked, request_id, error), request_id)
        else:
            if known is not None:
                await self._reply(asked, known, request_id)
            elif mine:
                await self._carry_out(asked, verb, request, key)

    def _enter(self, asked: _Asked, key: Key, digest: str, *, begin: bool) -> tuple[_Answer | None, bool]:
        """The recorded answer of that request; or None, and whether it is the first of its id, to be carried out now if ``begin``, or was
        attached to the one that runs."""
        running, known = self._running.get(key), self._outcomes.find(key, self._clock())
        if running is None and known is not None and not known.digest:
            raise Refused.of("outcome-unknown", verb=self._full(asked))
        given = running.digest if running is not None else known.digest if known is not None else digest
        if given != digest:
            raise Refused.of("request-reused", request_id=key.request_id)
        if running is not None:
            self._counters["commands.attached"] += 1
            if len(running.replies) > _ATTACHED:
                raise Refused.of("too-busy", service=self._name, waiting=len(running.replies))
            running.replies.append(asked.message.reply)
            return None, False
        if known is None:
            if not begin:  # it was known when it was heard, and its time ran out since
                raise Refused.of("too-busy", service=self._name, waiting=len(self._commands))
            self._running[key] = _Running(digest, [asked.message.reply])
            return None, True
        if known.outcome is None:
            raise Refused.of("outcome-unknown", verb=self._full(asked))
        self._counters["commands.repeated"] += 1
        return _Answer(known.outcome, _recorded.decode(known.outcome).error), False

    async def _carry_out(self, asked: _Asked, verb: Verb, request: Command, key: Key) -> None:
        running = self._running[key]
        cut_short = failure("outcome-unknown", verb=self._full(asked))
        answer = self._failed(key.request_id, cut_short)
        try:
            await self._record(self._outcomes.begin, key, running.digest)
            try:
                answer = self._result(key.request_id, await self._run(verb, request, Caller(*key)))
            except Refused as refused:
                answer = self._failed(key.request_id, refused.failure)
            except Exception as error:  # noqa: BLE001 - as in _query
                answer = self._incident(asked, key.request_id, error)
            with anyio.CancelScope(shield=True):
                await self._record(self._outcomes.end, key, answer.data)
        finally:
            del self._running[key]
            with anyio.CancelScope(shield=True):
                for reply in running.replies[1:]:
                    await self._send(reply, answer)
                await self._reply(asked, answer, key.request_id)

    async def _record(self, step: Callable[[Key, Any, float], None], key: Key, what: str | bytes) -> None:
        async with self._recording:
            await run_sync(step, key, what, self._clock())
        self._counters["outcomes.unwritten"] = self._outcomes.unwritten

    def _read(self, asked: _Asked) -> tuple[Verb, Any]:
        """The verb and its request, ready to be carried out; else `Refused`."""
        data, name = asked.message.data, self._full(asked)
        verb = self._verbs.get((asked.command, asked.verb))
        if verb is None:
            raise Refused.of("unknown-verb", service=self._name, verb=asked.verb)
        if len(data) > self._limits.request:
            raise Refused.of("too-large", size=len(data), verb=name, limit=self._limits.request)
        try:
            op = _op.decode(data).op if asked.command else name
            request = self._decoder(verb.request).decode(data or b"{}")
        except _MALFORMED as error:
            field = _UNKNOWN_FIELD.search(str(error))
            if field is not None:
                raise Refused.of("unknown-field", verb=name, field=field[1]) from None
            raise Refused.of("bad-request", verb=name, why=_why(error)) from None
        if op != name:
            raise Refused.of("bad-request", verb=name, why=f"its op is not {name}")
        if isinstance(request, Query | Command):
            if len(request.request_id) > _ID or (asked.command and not request.request_id):
                raise Refused.of("bad-request", verb=name, why=f"request_id must have 1 to {_ID} characters")
            if request.deadline is not None and self._clock() > request.deadline:
                raise Refused.of("deadline", verb=name)
        if self.draining:
            raise Refused.of("draining", service=self._name)
        if not self.ready:
            raise Refused.of("not-ready", service=self._name)
        return verb, request

    async def _run(self, verb: Verb, request: msgspec.Struct, caller: Caller) -> msgspec.Struct | msgspec.Raw:
        handler = self.handlers.get(verb.name)
        if handler is None:
            raise Refused.of("unsupported", what=f"{self._name}.{verb.name}", why="this service does not offer it")
        result = await handler(request, caller)
        if not isinstance(result, verb.result | msgspec.Raw):
            raise TypeError(f"the handler of {verb.name} gave a {type(result).__name__}, not a {verb.result.__name__}")
        return result

    def _decoder(self, kind: type[msgspec.Struct]) -> msgspec.json.Decoder[Any]:
        if kind not in self._decoders:
            self._decoders[kind] = msgspec.json.Decoder(kind)
        return self._decoders[kind]

    def _full(self, asked: _Asked) -> str:
        return f"{self._name}.{asked.verb}"

    def _result(self, request_id: str, result: msgspec.Struct | msgspec.Raw) -> _Answer:
        return _Answer(encode(Outcome(request_id=request_id, boot=self._boot, seq=self._seq(), result=result)), None)

    def _failed(self, request_id: str, why: Failure) -> _Answer:
        data = encode(Outcome[None](request_id=request_id, boot=self._boot, seq=self._seq(), error=why))
        return _Answer(data, why)

    def _incident(self, asked: _Asked, request_id: str, error: Exception) -> _Answer:
        """A bug of ours: the whole of it for the log, its number alone for the asker."""
        incident = secrets.token_hex(4)
        self._counters["incidents"] += 1
        _log.error("incident %s in %s", incident, self._full(asked), exc_info=error)
        facts: dict[str, Fact] = {"service": self._name, "verb": asked.verb, "incident": incident}
        return self._failed(request_id, failure("internal", **facts))

    async def _reply(self, asked: _Asked, answer: _Answer, request_id: str) -> None:
        seconds = time.monotonic() - asked.since
        endpoint = self._micro.endpoints.get(asked.verb)
        if endpoint is not None:
            endpoint.count(seconds, "" if answer.failure is None else f"{answer.failure.number}:{answer.failure.sentence}")
        if answer.failure is not None:
            self._counters["requests.failed"] += 1
        try:
            await self._send(asked.message.reply, answer, report=True)
        except BusError as error:
            await self._send(asked.message.reply, self._incident(asked, request_id, error))
        if asked.command:
            self._audit(asked, request_id, "ok" if answer.failure is None else answer.failure.code)

    async def _send(self, reply: str, answer: _Answer, *, report: bool = False) -> None:
        try:
            await self._bus.publish(reply, answer.data, headers=_headers(answer.failure))
        except BusError as error:
            if report and error.code == "too-large":
                raise
            self._counters["answers.lost"] += 1
            _log.warning("an answer was lost: %s", error.sentence)

    # -- audit ---------------------------------------------------------------------------------------------------------------------

    def _audit(self, asked: _Asked, request_id: str, code: str) -> None:
        verb = asked.verb if (True, asked.verb) in self._verbs else "unknown"
        seconds = time.monotonic() - asked.since
        if not self._audits.put((verb, Audit(user=asked.user, verb=verb, request_id=request_id, code=code, seconds=seconds))):
            self._counters["audit.dropped"] += 1

    async def _tell_audit(self) -> None:
        while True:
            verb, event = await self._audits.take()
            try:
                with anyio.CancelScope(shield=True):
                    await self._keep(verb, event)
            finally:
                self._audits.done()

    async def _keep(self, verb: str, event: Audit) -> None:
        self._audit_count += 1
        subject = f"{self._prefix}.{audit(self._name, verb)}"
        said = Envelope(
            host=self._host,
            service=self._name,
            boot=self._boot,
            seq=self._seq(),
            prev=0,
            time=self._clock(),
            event=event,
        )
        try:
            await self._bus.keep(
                subject, encode(said), identity=f"{self._host}-{self._boot}-{self._name}-audit-{self._audit_count}"
            )
        except NotKept:
            self._counters["audit.unkept"] += 1
        except BusError as error:
            self._counters["audit.lost"] += 1
            _log.error("an audit was lost: %s", error.sentence)


class _Lane(Generic[T]):
    """What waits, at most ``most``, and how many of those taken are not done."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: deque[T] = deque()
        self._unfinished = 0
        self._free = anyio.Semaphore(0)
        self._idle = anyio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, one: T) -> bool:
        """False: it is full."""
        if len(self._waiting) >= self._most:
            return False
        if not self._unfinished:
            self._idle = anyio.Event()
        self._unfinished += 1
        self._waiting.append(one)
        self._free.release()
        return True

    async def take(self) -> T:
        """The next one, when there is one; `done` must follow."""
        while True:
            await self._free.acquire()
            if self._waiting:
                return self._waiting.popleft()

    def clear(self) -> list[T]:
        """All that wait; they are this lane's no more."""
        taken = list(self._waiting)
        self._waiting.clear()
        for _ in taken:
            self.done()
        return taken

    def done(self) -> None:
        """One that was taken has its outcome."""
        self._unfinished -= 1
        if not self._unfinished:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until none waits and none is unfinished."""
        while self._unfinished:
            await self._idle.wait()


def _request_id(data: bytes) -> str:
    try:
        return _head.decode(data).request_id[: _ID + 1]
    except _MALFORMED:
        return ""


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error)


def _headers(why: Failure | None) -> dict[str, str] | None:
    """ADR-32's: printable ASCII, so that no word of a guest or a caller breaks a header."""
    if why is None:
        return None
    text = "".join(letter if " " <= letter <= "~" else "?" for letter in why.sentence[:256])
    return {"Nats-Service-Error": text.strip() or why.code, "Nats-Service-Error-Code": str(why.number)}
