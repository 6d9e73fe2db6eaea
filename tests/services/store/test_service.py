"""The whole service between a real xenstored and a bus: in memory, and over a real nats-server."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rigs.nats_server import NatsServer
from rigs.waiting import eventually
from rigs.xenstored import Xenstored, run_xenstored

from xenmesh.bus.abc import Bus
from xenmesh.bus.consumer import Snapshot, ask, follow
from xenmesh.bus.errors import Refused
from xenmesh.bus.memory import MemoryBus, MemoryServer
from xenmesh.bus.nats import connect
from xenmesh.schemas import EVENTS, request
from xenmesh.schemas import store as says
from xenmesh.schemas.envelope import Envelope, Event, decode
from xenmesh.schemas.service import Source, SourceState
from xenmesh.schemas.store import Changed, DomainGone, DomainSeen, Flooding, Removed
from xenmesh.services.daemon.context import Alive, Context
from xenmesh.services.store.config import StoreConfig
from xenmesh.services.store.service import run
from xenmesh.xen.xenstore import Xenstore
from xenmesh.xenstore.errors import XenstoreError
from xenmesh.xenstore.messages import Write

HOST = "h1"
UUID = "6d1b6e7e-0000-4000-8000-00000000000a"
Join = Callable[[str], AbstractAsyncContextManager[Bus]]


class Mesh:
    """One service at work."""

    def __init__(self, join: Join, bus: Bus, stop: anyio.Event) -> None:
        self.join = join
        self.bus = bus
        self.stop = stop
        self.statuses: list[str] = []
        self.proofs: list[Alive] = []

    async def read(self, path: str) -> says.Node:
        return await ask(self.bus, HOST, "store", "read", says.Read(path=path), says.Node)

    async def barrier(self) -> request.Position:
        return await ask(self.bus, HOST, "store", "barrier", request.Barrier(), request.Position)


@asynccontextmanager
async def serving(join: Join, socket: Path, **settings_: object) -> AsyncIterator[Mesh]:
    """The service until the block ends; it is then drained in an orderly way."""
    ready, stop = anyio.Event(), anyio.Event()
    async with join("store") as mine, join("operator") as theirs:
        mesh = Mesh(join, theirs, stop)
        context = Context(
            host=HOST,
            xenstore=socket,
            stopped=stop.wait,
            ready=ready.set,
            status=mesh.statuses.append,
            prove=mesh.proofs.append,
        )
        async with anyio.create_task_group() as group:
            group.start_soon(run, mine, StoreConfig(**settings_), context)  # type: ignore[arg-type]
            with anyio.fail_after(20):
                await ready.wait()
            yield mesh
            stop.set()


@pytest.fixture
def memory() -> Join:
    server = MemoryServer()

    @asynccontextmanager
    async def join(user: str) -> AsyncIterator[Bus]:
        bus = MemoryBus(server, user=user, host=HOST)
        yield bus
        await bus.close()

    return join


@pytest.fixture(params=["memory", "nats"])
def join(request: pytest.FixtureRequest, memory: Join) -> Join:
    if request.param == "memory":
        return memory
    server: NatsServer = request.getfixturevalue("nats_server")()
    return lambda user: connect(server.url, user=user, host=HOST)


class Consumer:
    """Follows the service and keeps what it makes of it."""

    def __init__(self) -> None:
        self.nodes: dict[str, Changed] = {}
        self.domains: dict[int, DomainSeen] = {}
        self.events: list[Event] = []
        self.snapshots: list[str] = []

    async def follow(self, bus: Bus) -> None:
        async with follow(bus, HOST, "store") as followed:
            async for item in followed:
                if isinstance(item, Snapshot):
                    self.snapshots.append(item.why)
                    self.nodes.clear()
                    self.domains.clear()
                    for each in item.items:
                        self.apply(each)
                elif isinstance(item, Envelope):
                    self.events.append(item.event)  # type: ignore[arg-type]
                    self.apply(item.event)

    def apply(self, item: object) -> None:
        match item:
            case Changed(path=path):
                self.nodes[path] = item
            case Removed(path=path):
                self.nodes = {
                    each: node for each, node in self.nodes.items() if each != path and not each.startswith(f"{path}/")
                }
            case DomainSeen(domid=domid):
                self.domains[domid] = item
            case DomainGone(domid=domid):
                del self.domains[domid]

    @property
    def values(self) -> dict[str, str | None]:
        return {path: node.value for path, node in self.nodes.items()}


async def test_a_change_reaches_a_consumer(xenstored: Xenstored, join: Join) -> None:
    async with serving(join, xenstored.socket) as mesh, Xenstore.connect(str(xenstored.socket)) as store:
        consumer = Consumer()
        await store.write("/local/domain/5/vm", f"/vm/{UUID}")
        await mesh.barrier()
        async with join("viewer") as bus, anyio.create_task_group() as group:
            group.start_soon(consumer.follow, bus)
            await eventually(lambda: consumer.snapshots, "the snapshot")
            assert consumer.domains[5].uuid == UUID
            for n in range(50):
                await store.write("/local/domain/5/data/x", f"{n}")
            position = await mesh.barrier()
            await eventually(lambda: consumer.values.get("/local/domain/5/data/x") == "49", "the last value")
            group.cancel_scope.cancel()

        assert consumer.snapshots == ["first"]
        assert position.seq > 0
        assert {event.uuid for event in consumer.events if isinstance(event, Changed)} == {UUID}


async def test_whoever_passes_the_barrier_reads_his_own_writes(xenstored: Xenstored, memory: Join) -> None:
    async with serving(memory, xenstored.socket) as mesh, Xenstore.connect(str(xenstored.socket)) as store:
        for n in range(20):
            await store.write(f"/local/domain/{n + 1}/name", f"guest-{n}")
            position = await mesh.barrier()
            page = await ask(
                mesh.bus, HOST, "store", "snapshot", request.Snapshot(owner=f"store.{n + 1}"), request.SnapshotPage
            )
            assert page.seq >= position.seq
            assert any(b"guest-" in bytes(item) for item in page.items)


async def test_questions_to_xenstored(xenstored: Xenstored, memory: Join) -> None:
    async with serving(memory, xenstored.socket) as mesh, Xenstore.connect(str(xenstored.socket)) as store:
        await store.write("/tool/a", "1")
        await store.write("/tool/b", b"\xff")
        await store.write("/vm/x/vncpasswd", "hunter2")

        assert await mesh.read("/tool/a") == says.Node(path="/tool/a", value="1", size=1)
        assert await mesh.read("/tool/b") == says.Node(path="/tool/b", value=None, raw=b"\xff", size=1)
        assert await mesh.read("/vm/x/vncpasswd") == says.Node(path="/vm/x/vncpasswd", value=None, redacted=True)
        listing = await ask(mesh.bus, HOST, "store", "list", says.List(path="/tool"), says.Listing)
        assert {"a", "b"} <= set(listing.names)
        perms = await ask(mesh.bus, HOST, "store", "perms", says.PermsOf(path="/tool/a"), says.Perms)
        assert perms == says.Perms(path="/tool/a", perms=["n0"])


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/nowhere", "not-found"),
        ("", "bad-path"),
        ("relative", "bad-path"),
        ("@releaseDomain", "bad-path"),
        ("/a//b", "bad-path"),
        ("/a/", "bad-path"),
        ("/a b", "bad-path"),
        ("/é", "bad-path"),
        ("/" + "x" * 3100, "bad-path"),
    ],
)
async def test_questions_that_have_no_answer(xenstored_c: Xenstored, memory: Join, path: str, code: str) -> None:
    async with serving(memory, xenstored_c.socket) as mesh:
        for verb, question, result in (
            ("read", says.Read(path=path), says.Node),
            ("list", says.List(path=path), says.Listing),
            ("perms", says.PermsOf(path=path), says.Perms),
        ):
            with pytest.raises(Refused) as refused:
                await ask(mesh.bus, HOST, "store", verb, question, result)
            assert refused.value.code == code


async def test_oxenstored_refuses_a_path_that_is_too_long_for_it(xenstored_ocaml: Xenstored, memory: Join) -> None:
    async with serving(memory, xenstored_ocaml.socket) as mesh:
        with pytest.raises(Refused) as refused:
            await mesh.read("/" + "x" * 2000)
        assert refused.value.code == "store-refused"


async def test_while_xenstored_is_away_the_answer_says_so(xenstored: Xenstored, memory: Join) -> None:
    async with serving(memory, xenstored.socket) as mesh:
        [alive] = mesh.proofs
        await alive()
        xenstored.kill()
        with pytest.raises(Refused) as refused:
            await mesh.read("/tool")
        assert refused.value.code == "store-lost"
        with pytest.raises(XenstoreError):
            await alive()
        page = await ask(mesh.bus, HOST, "store", "snapshot", request.Snapshot(), request.SnapshotPage)
        assert page.items is not None
        xenstored.start()


async def test_xenstored_is_waited_for_at_the_start(memory: Join) -> None:
    with run_xenstored("c") as xenstored:
        xenstored.kill()
        ready, stop, statuses = anyio.Event(), anyio.Event(), list[str]()
        async with memory("store") as bus, anyio.create_task_group() as group:
            context = Context(host=HOST, xenstore=xenstored.socket, stopped=stop.wait, ready=ready.set, status=statuses.append)
            group.start_soon(run, bus, StoreConfig(), context)
            await eventually(lambda: statuses, "it to say what it waits for")
            assert statuses == ["waiting for xenstored"]
            xenstored.start()
            with anyio.fail_after(10):
                await ready.wait()
            stop.set()


async def test_a_stream_of_writes_survives_the_loss_of_everything(xenstored: Xenstored, join: Join) -> None:
    socket = str(xenstored.socket)
    settings_ = {"guest_burst": 1 << 20, "reconcile": 0.1}
    consumer = Consumer()
    async with (
        join("viewer") as bus,
        Xenstore.connect(socket) as store,
        anyio.create_task_group() as group,
    ):
        stop, stopped = anyio.Event(), anyio.Event()
        written = 0

        async def write() -> None:
            nonlocal written
            while not stop.is_set():
                written += 1
                try:
                    await store.write(f"/local/domain/{written % 3 + 1}/data/k{written % 7}", f"{written}")
                except XenstoreError:
                    await anyio.sleep(0.001)
            stopped.set()

        async def some_writes() -> None:
            before = written
            await eventually(lambda: written > before + 20, "some writes")

        sources: list[Source] = []
        await bus.subscribe("xen.v1.h1.evt.service.store.source", lambda m: sources.append(decode(m.data, EVENTS).event))  # type: ignore[arg-type]
        group.start_soon(write)
        async with serving(join, xenstored.socket, **settings_):
            group.start_soon(consumer.follow, bus)
            await eventually(lambda: consumer.snapshots, "the first snapshot")
            await some_writes()
            xenstored.kill()
            xenstored.start()
            await eventually(lambda: sources[1:], "the loss and the return")
            assert [each.state for each in sources] == [SourceState.LOST, SourceState.RESYNCED]
            await some_writes()
            assert not [event for event in consumer.events if isinstance(event, DomainGone)]
        async with serving(join, xenstored.socket, **settings_) as mesh:
            await some_writes()
            await eventually(
                lambda: "boot" in consumer.snapshots or "away" in consumer.snapshots, "the new start to be heard", within=20
            )
            stop.set()
            await eventually(stopped.is_set, "the last write")
            await mesh.barrier()
            truth = {}
            for n in (1, 2, 3):
                for name in await store.directory(f"/local/domain/{n}/data"):
                    path = f"/local/domain/{n}/data/{name}"
                    truth[path] = (await store.read(path)).decode()
            assert len(truth) > 10
            await eventually(lambda: truth.items() <= consumer.values.items(), "every final value", within=20)
            group.cancel_scope.cancel()


async def test_a_flood_is_said_where_everyone_may_hear_it(xenstored: Xenstored, memory: Join) -> None:
    heard: list[Event] = []
    async with (
        serving(memory, xenstored.socket, guest_burst=50, guest_rate=1) as mesh,
        memory("viewer") as bus,
        Xenstore.connect(str(xenstored.socket)) as store,
    ):
        await bus.subscribe("xen.v1.h1.evt.service.store.flooding", lambda m: heard.append(decode(m.data, EVENTS).event))  # type: ignore[arg-type]
        await store.write("/local/domain/5/name", "x")
        await mesh.barrier()
        for n in range(200):
            await store.write(f"/local/domain/5/data/k{n % 50}", f"{n}")
            await mesh.barrier()
            if heard:
                break
        assert isinstance(heard[0], Flooding)
        assert (heard[0].domid, heard[0].active) == (5, True)


async def test_many_domains_come_in_one_snapshot_of_many_pages(xenstored: Xenstored, memory: Join) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store:
        for n in range(1, 201):
            await store.ask_all([Write(f"/local/domain/{n}/device/vif/{k % 3}/k{k}", b"%d" % k) for k in range(55)])
    async with serving(memory, xenstored.socket) as mesh:
        consumer = Consumer()
        async with anyio.create_task_group() as group:
            group.start_soon(consumer.follow, mesh.bus)
            await eventually(lambda: consumer.snapshots, "the snapshot", within=30)
            group.cancel_scope.cancel()
        assert len(consumer.domains) == 200
        assert sum(path.startswith("/local/") for path in consumer.nodes) == 200 * (6 + 55)
        assert mesh.statuses[-1] == "200 domains"


@pytest.fixture(scope="module")
def quiet_xenstored() -> AsyncIterator[Xenstored]:
    with run_xenstored("c") as daemon:
        yield daemon  # type: ignore[misc]


REQUEST = st.one_of(
    st.binary(max_size=40),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.dictionaries(st.sampled_from(["path", "cut", "page", "request_id", "owner", "deadline"]), inner),
        max_leaves=5,
    ).map(msgspec.json.encode),
    st.text(alphabet="/@ab\0é \n", max_size=8).map(lambda path: msgspec.json.encode({"path": path, "request_id": "r"})),
)


@pytest.mark.rig("xenstored")
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(
        st.tuples(st.sampled_from(["read", "list", "perms", "snapshot", "barrier", "health", "nonsense"]), REQUEST), max_size=8
    )
)
async def test_every_request_gets_one_outcome(quiet_xenstored: Xenstored, memory: Join, asked: list[tuple[str, bytes]]) -> None:
    async with serving(memory, quiet_xenstored.socket) as mesh:
        for verb, data in asked:
            answer = await mesh.bus.request(f"xen.v1.h1.q.store.{verb}", data, timeout=10)
            outcome = msgspec.json.decode(answer.data)
            assert (outcome.get("result") is None) is not (outcome.get("error") is None)
        assert (await ask(mesh.bus, HOST, "store", "health", request.Health(), request.HealthReport)).ready
