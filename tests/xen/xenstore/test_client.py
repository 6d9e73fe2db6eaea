"""The store against the real servers: watches, losses, restarts."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import anyio
import pytest
from rigs.waiting import eventually
from rigs.xenstored import Xenstored

from xenmesh.xen.xenstore import Dirty, State, WatchSet, Xenstore
from xenmesh.xen.xenstore import client as client_module
from xenmesh.xenstore.errors import (
    AccessError,
    DisconnectedError,
    NotFoundError,
    OutcomeUnknown,
    ServerError,
    UnreachableError,
)
from xenmesh.xenstore.messages import OK, AnyRequest, Read, Unwatch, WatchEvent, parse
from xenmesh.xenstore.messages import Watch as WatchRequest
from xenmesh.xenstore.packets import Op, Packet, Parser, encode


async def test_no_server_is_said_at_once(short_dir: Path) -> None:
    with pytest.raises(UnreachableError):
        async with Xenstore.connect(str(short_dir / "socket")):
            pytest.fail("there is none")


async def test_an_error_of_the_block_comes_out_as_it_is(xenstored: Xenstored) -> None:
    with pytest.raises(ZeroDivisionError):
        async with Xenstore.connect(str(xenstored.socket)):
            _ = 1 / 0


async def test_domains(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store:
        assert await store.get_domain_path(5) == "/local/domain/5"
        assert not await store.is_domain_introduced(5)
        async with store.watch("@introduceDomain") as introduced, store.watch("@releaseDomain") as released:
            await introduced.changed()
            await released.changed()
            await store.introduce(5, 1, 1)
            assert (await introduced.changed()).paths == {"@introduceDomain"}
            assert await store.is_domain_introduced(5)
            await store.set_target(5, 6) if xenstored.kind == "ocaml" else await store.introduce(6, 1, 2)
            await store.resume(5)
            await store.release(5)
            assert (await released.changed()).paths == {"@releaseDomain"}
            assert not await store.is_domain_introduced(5)


async def test_control(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store:
        if xenstored.kind == "c":
            assert "print" in await store.control("help")
        else:
            await store.control("print", b"hello")


# -- watches


async def test_a_watch_fires_at_once_and_then_on_change(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store, store.watch("/a") as watch:
        assert await watch.changed() == Dirty(frozenset({"/a"}), initial=True)
        await store.write("/a/b/c", "1")
        assert await watch.changed() == Dirty(frozenset({"/a/b/c"}))
        await store.write("/ab", "1")
        await store.rm("/a")
        assert (await watch.changed()).paths == {"/a"}


async def test_writes_of_a_transaction_come_at_its_commit(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store, store.watch("/a") as watch:
        await watch.changed()
        async with store.transaction() as tx:
            await tx.write("/a/1", "")
            await tx.write("/a/2", "")
            with anyio.move_on_after(0.02) as scope:
                await watch.changed()
            assert scope.cancelled_caught
        seen: set[str] = set()
        while seen != {"/a/1", "/a/2"}:
            seen |= (await watch.changed()).paths


async def test_a_flood_is_bounded(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store, store.watch("/a", limit=10) as watch:
        await watch.changed()
        for number in range(30):
            await store.write(f"/a/{number}", "")
        await store.read("/")
        dirty = await watch.changed()

        assert dirty.overflow
        assert len(dirty.paths) <= 10


async def test_after_the_block_nothing_is_watched(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store:
        async with store.watch("/a") as watch:
            await watch.changed()
        before = store.statistics.events
        await store.write("/a", "")
        await store.write("/a", "")

        assert store.statistics.events == before
        assert not store._registrations
        with pytest.raises(DisconnectedError):
            await watch.changed()


async def test_depth(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store, store.watch("/a", depth=1) as watch:
        # 4.17 knows no depth: held on our side
        await watch.changed()
        await store.write("/a/b/c", "")
        await store.write("/a/b", "")
        assert (await watch.changed()).paths == {"/a/b"}


async def test_a_watch_cancelled_while_it_is_set_leaves_none(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store:
        with anyio.CancelScope() as scope:
            scope.cancel()
            async with store.watch("/a"):
                pytest.fail("was cancelled")
        await store.read("/")
        before = store.statistics.events
        await store.write("/a", "")
        await store.read("/a")

        assert not store._registrations
        assert store.statistics.events == before


async def test_a_thousand_watches_and_one_reader(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store:
        watches: WatchSet[int] = store.watches()
        async with watches:
            for domid in range(1000):
                await watches.add(domid, f"/local/domain/{domid}", f"/vm/{domid}")
            seen = set()
            async for domid, dirty in watches:
                assert dirty.initial
                seen.add(domid)
                if len(seen) == 1000:
                    break
            # The first event of a key's second watch may still be on its way.
            await store.sync()
            for domid in range(1000):
                watches.take(domid)
            await store.write("/vm/7/name", "x")
            assert await watches.next() == 7
            assert watches.take(7).paths == {"/vm/7/name"}
            for domid in range(1000):
                watches.remove(domid)
            await store.write("/vm/7/name", "y")
            assert not store._registrations


async def test_a_refused_watch(xenstored_c: Xenstored) -> None:
    # oxenstored takes a watch on a path that it takes for nothing else
    async with Xenstore.connect(str(xenstored_c.socket)) as store:
        with pytest.raises(ServerError) as caught:
            async with store.watch("/" + "a/" * 1500 + "a"):
                pytest.fail("too long")
        assert caught.value.code == "EINVAL"
        assert not store._registrations


# -- waiting


async def test_wait(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store, anyio.create_task_group() as group:
        found = []

        async def wait() -> None:
            found.append(await store.wait(["/a", "/b"], lambda values: values["/a"] == b"4" and values["/b"] is None))

        group.start_soon(wait)
        await eventually(lambda: store.statistics.events == 2, "the watches")
        await store.write("/b", "")
        await store.write("/a", "4")
        await store.rm("/b")
        await eventually(lambda: found, "the wait to end")

        assert found == [{"/a": b"4", "/b": None}]
        assert await store.wait("/a", lambda values: values["/a"] is not None) == {"/a": b"4"}
        assert not store._registrations


# -- losses


async def states_of(store: Xenstore, seen: list[State]) -> None:
    async for state in store.states():
        seen.append(state)  # noqa: PERF401 - to be looked at meanwhile


async def test_a_restart_of_the_server(xenstored: Xenstored) -> None:
    """Killed with watches set, it comes back empty: all that is watched is dirty, and new events come."""
    async with Xenstore.connect(str(xenstored.socket)) as store, anyio.create_task_group() as group:
        seen: list[State] = []
        group.start_soon(states_of, store, seen)
        async with store.watch("/a") as watch, store.watch("/b", depth=0) as other:
            await store.write("/a", "old")
            await watch.changed()
            await other.changed()
            xenstored.kill()
            await eventually(lambda: store.state is State.LOST, "the loss")
            with pytest.raises(DisconnectedError):
                await store.read("/a")
            xenstored.start()
            await eventually(lambda: State.RESYNCED in seen, "the resync")

            assert seen == [State.UP, State.LOST, State.UP, State.RESYNCED]
            dirty = await watch.changed()
            assert dirty.overflow
            assert dirty.initial
            assert (await other.changed()).overflow
            with pytest.raises(NotFoundError):
                await store.read("/a")
            await store.write("/a/new", "1")
            assert (await watch.changed()) == Dirty(frozenset({"/a/new"}))
        assert store.statistics[:3] == (2, 1, 0)
        group.cancel_scope.cancel()


async def test_requests_under_way_have_an_unknown_outcome(xenstored: Xenstored) -> None:
    outcomes: list[bool] = []
    async with Xenstore.connect(str(xenstored.socket)) as store:
        async with anyio.create_task_group() as group:

            async def write(number: int) -> None:
                try:
                    while True:
                        await store.write(f"/{number}", "x")
                except OutcomeUnknown as error:
                    outcomes.append(error.safe_to_repeat)
                except DisconnectedError:
                    outcomes.append(True)

            for number in range(40):
                group.start_soon(write, number)
            await eventually(lambda: store._session and store._session._connection.pending, "requests")
            xenstored.kill()
        assert outcomes == [True] * 40

        xenstored.start()
        with anyio.fail_after(10):
            await store.up()
        await store.write("/a", "x")


async def test_nothing_final_is_lost_over_restarts(xenstored: Xenstored) -> None:
    """What the reader knows at the end is what the store holds."""
    known: dict[str, bytes | None] = {}
    async with (
        Xenstore.connect(str(xenstored.socket)) as store,
        Xenstore.connect(str(xenstored.socket)) as writer,
        anyio.create_task_group() as group,
    ):
        paths = [f"/a/{number}" for number in range(20)]

        async def follow() -> None:
            async with store.watch("/a") as watch:
                async for dirty in watch:
                    wanted = paths if dirty.overflow or dirty.initial else sorted(dirty.paths & set(paths))
                    try:
                        answers = await store.read_many(wanted)
                    except (OutcomeUnknown, DisconnectedError):
                        continue
                    for path, answer in zip(wanted, answers, strict=True):
                        known[path] = answer if isinstance(answer, bytes) else None

        group.start_soon(follow)
        for turn in range(3):
            for path in paths[: 20 - turn]:
                await writer.write(path, f"{turn} {path}")
            xenstored.kill()
            xenstored.start()
            with anyio.fail_after(10):
                await eventually(lambda: writer.statistics.connects == turn + 2, "the writer's connection")  # noqa: B023
        for path in paths[:5]:
            await writer.write(path, "final")

        expected = {path: b"final" if path in paths[:5] else None for path in paths}
        await eventually(lambda: known == expected, "the final values")
        group.cancel_scope.cancel()


async def test_waiting_outlasts_a_restart(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store, anyio.create_task_group() as group:
        found = []

        async def wait() -> None:
            found.append(await store.wait("/a", lambda values: values["/a"] == b"4"))

        group.start_soon(wait)
        await eventually(lambda: store.statistics.events == 1, "the watch")
        xenstored.kill()
        xenstored.start()
        with anyio.fail_after(10):
            await eventually(lambda: store.state is State.RESYNCED, "the resync")
        await store.write("/a", "4")
        await eventually(lambda: found, "the wait to end")


async def test_without_reconnecting_a_loss_is_the_end(xenstored: Xenstored) -> None:
    async with (
        Xenstore.connect(str(xenstored.socket), reconnect=False) as store,
        store.watch("/a") as watch,
    ):
        await watch.changed()
        xenstored.kill()

        with pytest.raises(DisconnectedError):
            await watch.changed()
        with pytest.raises(DisconnectedError):
            await store.up()
        assert [state async for state in store.states()] == [State.LOST]


async def test_a_peer_out_of_step_is_counted_and_left(short_dir: Path) -> None:
    path = str(short_dir / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        async with Xenstore.connect(path) as store:
            first, _ = listener.accept()
            with first:
                first.sendall(b"\xff\xff\0\0" + bytes(12))
                await eventually(lambda: store.statistics.connects == 2, "another connection")
                assert first.recv(1) == b""
            assert store.statistics.violations == 1


async def test_a_server_that_hangs_up_at_once_is_not_asked_ever_faster(short_dir: Path) -> None:
    path = str(short_dir / "socket")
    accepted = 0
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)

        def hang_up() -> bool:
            nonlocal accepted
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                return False
            accepted += 1
            return accepted == 5

        async with Xenstore.connect(path):
            started = anyio.current_time()
            await eventually(hang_up, "five attempts")
            # 10, 20, 40 and 80 ms, each shortened by up to a half
            assert anyio.current_time() - started >= 0.075


async def test_a_watch_that_cannot_be_set_again_says_so(xenstored_c: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored_c.socket)) as store, store.watch("/a") as watch:
        await watch.changed()
        # what the server would answer to a guest that has lost its right
        next(iter(store._registrations.values())).path = "/" + "a/" * 1500 + "a"
        xenstored_c.kill()
        xenstored_c.start()

        with pytest.raises(ServerError) as caught:
            await watch.changed()
        assert caught.value.code == "EINVAL"


async def test_waiting_ends_with_the_last_connection(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket), reconnect=False) as store, anyio.create_task_group() as group:

        async def wait() -> None:
            with pytest.raises(DisconnectedError):
                await store.wait("/a", lambda _: False)

        group.start_soon(wait)
        await eventually(lambda: store.statistics.events == 1, "the watch")
        xenstored.kill()


async def test_each_long_connection_is_mended_as_fast_as_the_first(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a connection that lived longer than the longest pause clears the record
    monkeypatch.setattr(client_module, "RECONNECT_MAX", 0.0)
    delays: list[float] = []
    monkeypatch.setattr(client_module.random, "uniform", lambda *_: Factor(delays))
    async with Scripted(short_dir / "s", modern) as server, Xenstore.connect(server.path) as store:
        for turn in range(3):
            await eventually(lambda: server._clients, "the server to notice")
            server.cut()
            await eventually(lambda: store.statistics.connects == turn + 2, "the next connection")  # noqa: B023

    assert delays == [client_module.RECONNECT_FIRST] * 3


class Factor:
    """Stands in for the jitter, and notes the delay that it is to shorten."""

    def __init__(self, delays: list[float]) -> None:
        self._delays = delays

    def __rmul__(self, delay: float) -> float:
        self._delays.append(delay)
        return 0.0


# -- what neither server of Debian does


class Scripted:
    """A server on a real socket that answers each request by a function."""

    def __init__(self, path: Path, answer: Callable[[AnyRequest], list[tuple[Op, bytes]]]) -> None:
        self.path = str(path)
        self.asked: list[AnyRequest] = []
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self._clients: dict[socket.socket, Parser] = {}

    async def __aenter__(self) -> Self:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._loop.add_reader(self._listener, self._accept)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        for client in list(self._clients):
            self._drop(client)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self._clients[client] = Parser()
        self._loop.add_reader(client, self._serve, client)

    def _drop(self, client: socket.socket) -> None:
        del self._clients[client]
        self._loop.remove_reader(client)
        client.close()

    def _serve(self, client: socket.socket) -> None:
        data = client.recv(65536)
        if not data:
            self._drop(client)
        for packet in self._clients[client].feed(data) if data else []:
            request = parse(packet.op, packet.payload)
            self.asked.append(request)
            for op, payload in self._answer(request):
                with suppress(BrokenPipeError, ConnectionResetError):
                    client.sendall(encode(Packet(op, packet.req_id, 0, payload)))


def modern(request: AnyRequest) -> list[tuple[Op, bytes]]:
    """A server that knows depths."""
    if isinstance(request, WatchRequest):
        event = WatchEvent(request.path, request.token).payload()
        return [(Op.WATCH, OK), (Op.WATCH_EVENT, event)]
    return [(request.op, OK)]


async def test_a_server_that_knows_depth_is_given_it(short_dir: Path) -> None:
    async with Scripted(short_dir / "s", modern) as server, Xenstore.connect(server.path) as store:
        async with store.watch("/a", depth=1) as one, store.watch("/b", depth=0) as two:
            await one.changed()
            await two.changed()
            server.cut()
            assert (await one.changed()).overflow
            assert (await two.changed()).overflow
        watches = [w for w in server.asked if isinstance(w, WatchRequest)]

        # each connection is asked once whether it knows depth
        assert [(w.path, w.depth) for w in watches] == [
            ("/", 0),
            ("/a", 1),
            ("/b", 0),
            ("/", 0),
            ("/a", 1),
            ("/b", 0),
        ]
        assert sum(isinstance(r, Unwatch) and r.path == "/" for r in server.asked) == 2


async def test_a_right_that_was_lost_over_a_restart(short_dir: Path) -> None:
    allowed = True

    def answer(request: AnyRequest) -> list[tuple[Op, bytes]]:
        if isinstance(request, WatchRequest) and not allowed:
            return [(Op.ERROR, b"EACCES\0")]
        return modern(request)

    async with (
        Scripted(short_dir / "s", answer) as server,
        Xenstore.connect(server.path) as store,
        store.watch("/a") as watch,
    ):
        await watch.changed()
        allowed = False
        server.cut()

        with pytest.raises(AccessError):
            await watch.changed()


async def test_nonsense_while_watches_are_set_again(short_dir: Path) -> None:
    sane = True

    def answer(request: AnyRequest) -> list[tuple[Op, bytes]]:
        nonlocal sane
        if isinstance(request, WatchRequest) and not sane:
            sane = True
            return [(Op.WATCH, b"KO\0")]
        return modern(request)

    async with (
        Scripted(short_dir / "s", answer) as server,
        Xenstore.connect(server.path) as store,
        store.watch("/a") as watch,
    ):
        await watch.changed()
        sane = False
        server.cut()

        assert (await watch.changed()).overflow
        assert store.statistics.connects == 3
        assert store.statistics.violations == 1


async def test_a_value_that_may_not_be_read_ends_the_waiting(short_dir: Path) -> None:
    def answer(request: AnyRequest) -> list[tuple[Op, bytes]]:
        return [(Op.ERROR, b"EACCES\0")] if isinstance(request, Read) else modern(request)

    async with Scripted(short_dir / "s", answer) as server, Xenstore.connect(server.path) as store:
        with pytest.raises(AccessError):
            await store.wait("/a", lambda _: True)


async def test_a_keeper_that_dies_tells_everyone(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken() -> bool:
        raise ZeroDivisionError

    async with Scripted(short_dir / "s", modern) as server:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - at the store's end
            async with Xenstore.connect(server.path) as store, store.watch("/a") as watch:
                await watch.changed()
                monkeypatch.setattr(store, "_restore", broken)
                server.cut()
                with pytest.raises(DisconnectedError):
                    await watch.changed()
