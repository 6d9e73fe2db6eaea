"""From a write in xenstore to the consumer's callback: latency, rate, fan-out, snapshots."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import anyio

from xenmesh.bus.consumer import Snapshot, ask, follow
from xenmesh.bus.message import Message
from xenmesh.bus.nats import NatsBus
from xenmesh.schemas.request import Barrier, Position

from .mesh import HOST, Mesh, Writer, child, cpu, populate, run_mesh, store
from .report import Figure, percentile, spread

__all__ = ["measure"]

LATENCY_ROUNDS = 2000
FAN_ROUNDS = 400
DOMAINS = 1000
KEYS = 60
NODE = "/local/domain/0/bench/latency"
SUBJECT = f"xen.v1.{HOST}.store.>"


class Bell:
    """Rung by a callback at the clock; awaited by the one who measures."""

    def __init__(self) -> None:
        self._rung: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def ring(self, message: Message) -> None:
        """The subscriber's callback."""
        del message
        now = time.monotonic_ns()
        if not self._rung.done():
            self._rung.set_result(now)

    async def wait(self) -> int:
        """The clock at the next ring."""
        async with asyncio.timeout(10):
            rung = await self._rung
        self._rung = asyncio.get_running_loop().create_future()
        return rung


async def _latency(mesh: Mesh) -> list[Figure]:
    """Each round writes three times: for a bare watch and read, over a bare hop, and through the mesh; so all see the same machine."""
    from rigs.nats_server import NatsServer

    with tempfile.TemporaryDirectory(prefix="xm-bench-", dir="/tmp") as directory:
        bare = NatsServer(Path(directory, "nats"), jetstream=False)
        bare.start()
        try:
            async with AsyncExitStack() as stack:
                mesh.writer.write_all([(NODE + "/mesh", b"0"), (NODE + "/floor", b"0")])
                watcher = await stack.enter_async_context(child("watch", mesh.xenstored.socket, NODE + "/floor"))
                hopper = await stack.enter_async_context(child("hop", bare.url, "bench.hop"))
                import nats

                listener = await nats.connect(bare.url)
                stack.push_async_callback(listener.close)
                hop_bell, mesh_bell = Bell(), Bell()
                hops: list[float] = []

                async def hopped(message: object) -> None:
                    now = time.monotonic_ns()
                    hops.append((now - int(message.data)) / 1e3)  # type: ignore[attr-defined]
                    hop_bell.ring(Message("", b""))

                await listener.subscribe("bench.hop", cb=hopped)
                await listener.flush()
                bus = await stack.enter_async_context(mesh.bus())
                await ask(bus, HOST, "store", "barrier", Barrier(), Position, timeout=30)
                await bus.subscribe(SUBJECT, mesh_bell.ring)
                await bus.settle()
                assert watcher.stdout and hopper.stdout and hopper.stdin  # noqa: PT018, S101
                await watcher.stdout.readline()
                await hopper.stdout.readline()
                watches: list[float] = []
                through: list[float] = []
                for n in range(LATENCY_ROUNDS):
                    began = mesh.writer.start(NODE + "/floor", b"%d" % (n + 1))
                    watches.append((int(await watcher.stdout.readline()) - began) / 1e3)
                    mesh.writer.finish()
                    await mesh_bell.wait()  # the mesh watches all of domain 0
                    hopper.stdin.write(b"\n")
                    await hop_bell.wait()
                    began = mesh.writer.start(NODE + "/mesh", b"%d" % (n + 1))
                    through.append((await mesh_bell.wait() - began) / 1e3)
                    mesh.writer.finish()
        finally:
            bare.stop()
    figures = []
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        floor = percentile(watches, share) + percentile(hops, share)
        value = percentile(through, share)
        blocks = [percentile(through[at : at + 200], share) for at in range(0, LATENCY_ROUNDS, 200)]
        figures.append(
            Figure(
                f"store.latency.{name}",
                value,
                "us",
                f"bare watch+READ and bare hop: {floor:.0f} us",
                value / floor,
                spread(blocks),
            )
        )
    return figures


async def _rate(mesh: Mesh) -> list[Figure]:
    """20,000 nodes of 1,000 domains, written as fast as xenstored takes them: until the last is with the consumer."""
    paths = [f"/local/domain/{domid}/data/rate{n}" for n in range(20) for domid in range(1, DOMAINS + 1)]
    rates: dict[str, list[float]] = {"mesh": [], "bare": []}
    roots = [f"/local/domain/{domid}" for domid in range(1, DOMAINS + 1)]
    for turn in range(3):
        async with mesh.bus() as bus:
            missing = set(paths)
            done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

            ready = anyio.Event()

            async def consume(
                bus: NatsBus = bus,
                missing: set[str] = missing,
                done: asyncio.Future[int] = done,
                ready: anyio.Event = ready,
                turn: int = turn,
            ) -> None:
                async with follow(bus, HOST, "store") as items:
                    async for item in items:
                        if isinstance(item, Snapshot):
                            ready.set()
                            events = item.items
                        else:
                            events = [item.event] if hasattr(item, "event") else []
                        for event in events:
                            if getattr(event, "value", None) == f"v{turn}":
                                missing.discard(event.path)  # type: ignore[union-attr]
                        if not missing and not done.done():
                            done.set_result(time.monotonic_ns())

            async with anyio.create_task_group() as group:
                group.start_soon(consume)
                await ready.wait()
                began = await anyio.to_thread.run_sync(mesh.writer.write_all, [(path, b"v%d" % turn) for path in paths])
                async with asyncio.timeout(120):
                    ended = await done
                rates["mesh"].append(len(paths) / (ended - began) * 1e9)
                group.cancel_scope.cancel()
    for turn in range(3):
        async with child("client", mesh.xenstored.socket, str(len(paths)), *roots) as bare:
            assert bare.stdout  # noqa: S101
            await bare.stdout.readline()
            began = await anyio.to_thread.run_sync(mesh.writer.write_all, [(path, b"b%d" % turn) for path in paths])
            rates["bare"].append(len(paths) / (int(await bare.stdout.readline()) - began) * 1e9)
    value, floor = statistics.median(rates["mesh"]), statistics.median(rates["bare"])
    return [
        Figure(
            "store.rate",
            value,
            "changes/s",
            f"bare client, watch and read alone: {floor:.0f}/s",
            value / floor,
            spread(rates["mesh"], "{:.0f}"),
        )
    ]


async def _fan_out(mesh: Mesh) -> list[Figure]:
    """The last of n subscribers, each with a connection of its own up to 16, then shared."""
    figures = []
    one = 0.0
    mesh.writer.write_all([(NODE + "/mesh", b"0")])
    async with mesh.bus() as bus:
        await ask(bus, HOST, "store", "barrier", Barrier(), Position, timeout=30)
    for count in (1, 16, 64):
        async with AsyncExitStack() as stack:
            buses = [await stack.enter_async_context(mesh.bus()) for _ in range(min(count, 16))]
            heard = 0
            bell = Bell()

            def ring(message: Message, count: int = count, bell: Bell = bell) -> None:
                nonlocal heard
                heard += 1
                if heard % count == 0:
                    bell.ring(message)

            for n in range(count):
                await buses[n % len(buses)].subscribe(SUBJECT, ring)
            for bus in buses:
                await bus.settle()
            through = []
            for n in range(FAN_ROUNDS):
                began = mesh.writer.start(NODE + "/mesh", b"fan %d %d" % (count, n))
                through.append((await bell.wait() - began) / 1e3)
                mesh.writer.finish()
        value = statistics.median(through)
        one = one or value
        figures.append(
            Figure(
                f"store.fanout.{count}.p50",
                value,
                "us",
                f"one subscriber: {one:.0f} us",
                value / one,
                spread(through, "{:.0f}"),
            )
        )
    return figures


async def _snapshots(mesh: Mesh) -> list[Figure]:
    """Until each consumer holds all of 1,000 domains x 60 keys."""

    async def take(bus: NatsBus, sizes: list[int]) -> None:
        async with follow(bus, HOST, "store", timeout=60) as items:
            async for item in items:
                if isinstance(item, Snapshot):
                    sizes.append(len(item.items))
                    return

    figures = []
    one = 0.0
    for count, repetitions in ((1, 5), (200, 1)):
        seconds = []
        busy = []
        for _ in range(repetitions):
            async with AsyncExitStack() as stack:
                buses = [await stack.enter_async_context(mesh.bus()) for _ in range(min(count, 40))]
                sizes: list[int] = []
                began, used = time.monotonic(), cpu(mesh.daemon.pid)
                async with anyio.create_task_group() as group:
                    for n in range(count):
                        group.start_soon(take, buses[n % len(buses)], sizes)
                seconds.append(time.monotonic() - began)
                busy.append(cpu(mesh.daemon.pid) - used)
                if len(sizes) != count or min(sizes) < DOMAINS * KEYS or len(set(sizes)) > 1:
                    raise SystemExit(f"not every consumer got the whole snapshot: {len(sizes)} of {count}, {set(sizes)} items")
        value = statistics.median(seconds)
        one = one or value
        figures.append(
            Figure(
                f"store.snapshot.{count}",
                value,
                "s",
                f"{count} times one consumer: {one * count:.2f} s",
                value / one / count,
                spread(seconds),
            )
        )
        figures.append(Figure(f"store.snapshot.{count}.cpu", statistics.median(busy), "s", "", None, spread(busy)))
    return figures


async def _resync(mesh: Mesh) -> list[Figure]:
    """From the kill -9 of a xenstored with everything in it to the moment when the mesh has read the new one whole and said so."""
    import msgspec

    from xenmesh.schemas import EVENTS
    from xenmesh.schemas.envelope import decode
    from xenmesh.schemas.service import Source, SourceState

    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def heard(message: Message) -> None:
        try:
            event = decode(message.data, EVENTS).event
        except msgspec.DecodeError:
            return
        if isinstance(event, Source) and event.state is SourceState.RESYNCED and not done.done():
            done.set_result(time.monotonic_ns())

    async with mesh.bus() as bus:
        await bus.subscribe(f"xen.v1.{HOST}.evt.service.store.>", heard)
        await bus.settle()
        mesh.xenstored.kill()
        mesh.xenstored.start()
        began = time.monotonic_ns()
        async with asyncio.timeout(60):
            ended = await done
    return [
        Figure(
            "store.resync.empty", (ended - began) / 1e9, "s", f"xenstored restarted empty under {DOMAINS} domains x {KEYS} keys"
        )
    ]


SMALL = {"store.latency": _latency, "store.fanout": _fan_out}
"""Measured on an empty host."""

FULL = {"store.snapshot": _snapshots, "store.rate": _rate, "store.resync": _resync}
"""Measured with 1,000 domains x 60 keys."""


async def measure(wanted: str) -> list[Figure]:
    """Those whose name begins with ``wanted``, or all that are meant by it."""
    figures: list[Figure] = []
    for parts, domains in ((SMALL, 0), (FULL, DOMAINS)):
        chosen = [part for name, part in parts.items() if name.startswith(wanted) or wanted.startswith(name)]
        if chosen:
            with store() as xenstored:
                populate(Writer(xenstored.socket), domains, KEYS)
                async with run_mesh(xenstored) as mesh:
                    for part in chosen:
                        figures += await part(mesh)
    return figures
