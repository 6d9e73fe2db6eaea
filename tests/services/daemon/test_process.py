"""Services here are small coroutines of the tests; the bus, the notifications and the xenstored are real."""

import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest
from rigs.waiting import eventually

from xenmesh.bus.abc import Bus
from xenmesh.bus.message import BusState
from xenmesh.bus.nats import connect
from xenmesh.services.daemon import process as module
from xenmesh.services.daemon.config import load
from xenmesh.services.daemon.context import Context
from xenmesh.services.daemon.errors import BusAway, CredentialError, ServiceFailed
from xenmesh.services.daemon.journal import SERVICE
from xenmesh.services.daemon.process import Process
from xenmesh.services.daemon.systemd import Notifier

Body = Callable[[Bus, Context], Awaitable[None]]


class Systemd:
    """Its end of $NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(str(path))
        self.notifier = Notifier({"NOTIFY_SOCKET": str(path)})
        self.words: list[str] = []

    def heard(self, start: str) -> list[str]:
        with suppress(BlockingIOError):
            while True:
                self.words.append(self.socket.recv(4096).decode())
        return [word for word in self.words if word.startswith(start)]


@pytest.fixture
def systemd(short_dir) -> Iterator[Systemd]:
    made = Systemd(short_dir / "notify")
    yield made
    made.socket.close()


@pytest.fixture
def bus(nats_server):
    return nats_server(jetstream=False)


@pytest.fixture
def make(bus, systemd, tmp_path):
    """``make(store=body, ...)``: a process of services with these bodies."""

    def made(
        *,
        interval: float | None = None,
        xenstore: str = "",
        url: str = "",
        seed: Path | None = None,
        deadline: float = 5,
        **bodies: Body,
    ) -> Process:
        environment = {
            "XENMESH_BUS_URL": url or bus.url,
            "XENMESH_XENSTORE_PATH": xenstore,
            "XENMESH_MESH_STATE": str(tmp_path),
        }
        config = load((), [], environment)
        config.services.update(dict.fromkeys(bodies, config.mesh))

        def wrapped(body: Body):
            return lambda given, _config, context: body(given, context)

        def connected(name: str) -> AbstractAsyncContextManager[Bus]:
            return connect(config.bus.url, user=name, host="h", seed=seed, deadline=deadline)

        return Process(
            {name: wrapped(body) for name, body in bodies.items()}, config, "h", connected, systemd.notifier, interval
        )

    return made


@asynccontextmanager
async def running(process: Process):
    async with anyio.create_task_group() as group:
        group.start_soon(process.run)
        yield
        process.stop()


async def plain(bus: Bus, context: Context) -> None:
    context.ready()
    await context.stopped()


async def test_ready_when_all_are_ready(make, systemd):
    gate = anyio.Event()

    async def late(bus: Bus, context: Context) -> None:
        await gate.wait()
        await plain(bus, context)

    async with running(make(store=plain, events=late)):
        await eventually(lambda: systemd.heard("STATUS=store: ready; events: starting; bus up"), "the first service")
        assert systemd.heard("READY") == []
        gate.set()
        await eventually(lambda: systemd.heard("READY=1"), "both")
    assert systemd.heard("READY") == ["READY=1"]
    assert systemd.heard("STOPPING") == ["STOPPING=1"]


async def test_each_service_has_a_bus_a_name_and_surroundings_of_its_own(make, tmp_path):
    seen: dict[str, tuple[Bus, Context, str]] = {}

    async def look(bus: Bus, context: Context) -> None:
        async def deeper() -> None:
            seen[bus.user] = (bus, context, SERVICE.get())

        async with anyio.create_task_group() as group:
            group.start_soon(deeper)
        await plain(bus, context)

    async with running(make(store=look, events=look, xenstore="/x/socket")):
        await eventually(lambda: len(seen) == 2, "both")
        assert seen["store"][0] is not seen["events"][0]
        assert [seen[name][2] for name in ("store", "events")] == ["store", "events"]
        context = seen["store"][1]
        assert (context.host, context.state, context.xenstore) == ("h", tmp_path, Path("/x/socket"))
    assert SERVICE.get() == ""
    assert seen["store"][0].state is BusState.CLOSED


async def test_the_status_line_tells_the_story_and_does_not_chatter(make, systemd, bus, monkeypatch):
    monkeypatch.setattr(module, "_STATUS_PAUSE", 0.05)
    done = anyio.Event()

    async def chatty(bus: Bus, context: Context) -> None:
        for number in range(1000):
            context.status(f"{number} domains")
        context.ready()
        done.set()
        await context.stopped()

    async with running(make(store=chatty)):
        await done.wait()
        await eventually(lambda: systemd.heard("STATUS=999 domains; bus up"), "the last line")
        assert len(systemd.heard("STATUS=")) <= 3
        bus.kill()
        await eventually(lambda: systemd.heard("STATUS=999 domains; bus lost"), "the loss")
        bus.start()
        await eventually(lambda: systemd.heard("STATUS=")[-1] == "STATUS=999 domains; bus up", "the return")


async def test_a_drain_may_take_its_time_and_has_the_bus(make):
    order: list[str] = []

    async def drains(bus: Bus, context: Context) -> None:
        context.ready()
        await context.stopped()
        await bus.settle()
        order.append(bus.state.value)

    process = make(store=drains)
    async with running(process):
        await eventually(lambda: not process._waiting, "ready")
    assert order == ["up"]


async def test_who_does_not_drain_is_cut_short(make, monkeypatch, caplog):
    monkeypatch.setattr(module, "DRAIN", 0.05)

    async def stubborn(bus: Bus, context: Context) -> None:
        context.ready()
        await anyio.sleep_forever()

    process = make(store=stubborn)
    with anyio.fail_after(10):
        async with running(process):
            await eventually(lambda: not process._waiting, "ready")
    assert "did not drain within 0.05 s: cut short" in caplog.messages


async def test_one_that_crashes_ends_all_and_the_others_drain(make, systemd, caplog):
    drained = []

    async def good(bus: Bus, context: Context) -> None:
        await plain(bus, context)
        drained.append(bus.user)

    async def bad(bus: Bus, context: Context) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(worse)

    async def worse() -> None:
        raise KeyError("oops")

    with pytest.raises(ServiceFailed, match=r"^the service events failed: KeyError: 'oops'$") as caught:
        await make(store=good, events=bad).run()
    assert caught.value.status == 70
    assert drained == ["store"]
    assert systemd.heard("STOPPING") == ["STOPPING=1"]
    [record] = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert record.getMessage() == "failed: KeyError: 'oops'"
    assert record.exc_info is not None


async def test_an_end_without_order_is_a_crash(make):
    async def lazy(bus: Bus, context: Context) -> None:
        context.ready()

    with pytest.raises(ServiceFailed, match="the service store ended without being told to"):
        await make(store=lazy).run()


async def test_a_drain_that_fails_is_a_crash(make):
    async def clumsy(bus: Bus, context: Context) -> None:
        await plain(bus, context)
        raise RuntimeError("spilt")

    process = make(store=clumsy)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with running(process):
            await eventually(lambda: not process._waiting, "ready")
    assert caught.group_contains(ServiceFailed, match="spilt")


async def test_no_bus_is_named(make, bus):
    bus.kill()
    with pytest.raises(BusAway, match=r"No connection to nats://127\.0\.0\.1:\d+ as store within 0\.2 s") as caught:
        await make(store=plain, deadline=0.2).run()
    assert caught.value.status == 69


async def test_waiting_for_the_bus_can_be_ended(make, bus):
    bus.kill()
    with anyio.fail_after(5):
        async with running(make(store=plain, deadline=60)):
            await anyio.lowlevel.checkpoint()


async def test_a_bad_key_is_a_fault_of_the_configuration(make, tmp_path):
    file = tmp_path / "store.nk"
    file.write_text("no seed")
    with pytest.raises(CredentialError, match=r"store\.nk: ") as caught:
        await make(store=plain, seed=file).run()
    assert caught.value.status == 78


async def test_the_watchdog_lives_by_the_services_own_round_trips(make, systemd, xenstored):
    from xenmesh.xen.xenstore import Xenstore

    deaf = anyio.Event()

    async def proving(bus: Bus, context: Context) -> None:
        async with Xenstore.connect(str(context.xenstore)) as store:

            async def alive() -> None:
                if deaf.is_set():
                    await anyio.sleep_forever()
                await store.get_domain_path(0)

            context.prove(alive)
            await plain(bus, context)

    async with running(make(store=proving, xenstore=str(xenstored.socket), interval=0.8)):
        await eventually(lambda: len(systemd.heard("WATCHDOG=1")) >= 2, "signs of life")
        deaf.set()
        process_signs = await silence(systemd)
        xenstored.kill()
        await eventually(lambda: len(systemd.heard("WATCHDOG=1")) > process_signs, "signs while xenstored is away")


async def silence(systemd: Systemd) -> int:
    """Wait for a whole interval without a sign; how many there were before."""
    signs, since = len(systemd.heard("WATCHDOG")), anyio.current_time()
    with anyio.fail_after(10):
        while anyio.current_time() - since < 0.8:
            now = len(systemd.heard("WATCHDOG"))
            if now != signs:
                signs, since = now, anyio.current_time()
            await anyio.sleep(0.02)
    return signs


async def test_a_bus_that_is_away_is_no_reason_to_die(make, systemd, bus):
    async with running(make(store=plain, interval=0.8)):
        await eventually(lambda: systemd.heard("WATCHDOG=1"), "a sign of life")
        bus.kill()
        await eventually(lambda: systemd.heard("STATUS=ready; bus lost"), "the loss")
        signs = len(systemd.heard("WATCHDOG"))
        await eventually(lambda: len(systemd.heard("WATCHDOG")) >= signs + 2, "signs of life without a bus")


async def test_a_start_that_waits_for_its_source_is_given_time(make, systemd):
    gate = anyio.Event()

    async def slow(bus: Bus, context: Context) -> None:
        await gate.wait()
        await plain(bus, context)

    async with running(make(store=slow, interval=0.4)):
        await eventually(lambda: len(systemd.heard("EXTEND_TIMEOUT_USEC=400000")) >= 2, "more time")
        assert systemd.heard("WATCHDOG") == []
        gate.set()
        await eventually(lambda: systemd.heard("WATCHDOG=1"), "a sign of life")
