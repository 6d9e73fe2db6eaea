"""Whatever is asked of the running services, over the real bus: one outcome to each request, and the services stay well."""

import itertools
from collections import Counter

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mesh.running import HOST, Mesh, X
from rigs.waiting import eventually

from xenmesh.bus.consumer import ask
from xenmesh.bus.message import Message
from xenmesh.schemas import request

VERBS = [
    f"{service}.{verb}"
    for service, verbs in {
        "store": ("read", "list", "perms", "snapshot", "barrier", "health", "nonsense", "since"),
        "events": ("since", "barrier", "health", "snapshot", "nonsense"),
    }.items()
    for verb in verbs
]
KEYS = ["path", "cut", "page", "owner", "request_id", "deadline", "time", "pattern", "cursor", "limit", "op"]
LEAF = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
    | st.sampled_from(["/", "/tool", "store.5", "evt.>", ">", "store.host", "a" * 5000])
)
ANYTHING = st.one_of(
    st.binary(max_size=60),
    st.recursive(
        LEAF, lambda inner: st.dictionaries(st.sampled_from(KEYS), inner) | st.lists(inner, max_size=3), max_leaves=8
    ).map(msgspec.json.encode),
    st.dictionaries(st.sampled_from(KEYS), LEAF, max_size=4).map(msgspec.json.encode),
    st.sampled_from(
        [b"[" * 20_000, b'{"path":' * 5_000, b'{"path":"\\ud800"}', b'{"page":1e999}', b"\xff" * 500, b'"' + b"x" * 900_000]
    ),
)

NUMBER = itertools.count()


@pytest.mark.rig("xenstored")
@pytest.mark.timeout(120)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(st.tuples(st.sampled_from(VERBS), ANYTHING), min_size=1, max_size=20))
async def test_each_request_gets_one_outcome(shared_mesh: Mesh, asked: list[tuple[str, bytes]]) -> None:
    answers: Counter[str] = Counter()
    outcomes: list[dict[str, object]] = []

    def heard(message: Message) -> None:
        answers[message.subject] += 1
        outcomes.append(msgspec.json.decode(message.data, type=dict[str, object]))

    async with shared_mesh.bus() as bus:
        await bus.subscribe("_INBOX.operator.each.*", heard)
        await bus.settle()
        for verb, data in asked:
            # Never used before, as by every client: nats-server bounds the answers to one reply subject (allow_responses).
            await bus.publish(f"{X}.q.{verb}", data, reply=f"_INBOX.operator.each.{next(NUMBER)}")
        await eventually(lambda: len(answers) == len(asked), "an answer to each")
        for name in ("store", "events"):
            health = await ask(bus, HOST, name, "health", request.Health(), request.HealthReport)
            assert health.ready
        await bus.settle()
    assert set(answers.values()) == {1}
    for outcome in outcomes:
        assert (outcome.get("result") is None) is not (outcome.get("error") is None), outcome
        if error := outcome.get("error"):
            assert isinstance(error, dict)
            assert error["code"] != "internal", error
    assert shared_mesh.alive
