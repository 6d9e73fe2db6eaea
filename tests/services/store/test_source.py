"""The source over real xenstoreds, of both kinds; on their sockets everyone is domain 0."""

import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from rigs.waiting import eventually
from rigs.xenstored import Xenstored

from xenmesh.bus.errors import Refused
from xenmesh.schemas.envelope import Event
from xenmesh.schemas.service import Source as SourceEvent
from xenmesh.schemas.store import Changed, DomainGone, DomainSeen, Flooding, Removed
from xenmesh.services.store.config import StoreConfig
from xenmesh.services.store.model import Model, Resynced
from xenmesh.services.store.redaction import Redaction
from xenmesh.services.store.rounds import Batch
from xenmesh.services.store.source import Source, recorded
from xenmesh.sim.xenstored.daemon import Daemon
from xenmesh.sim.xenstored.dialect import C_4_23, OCAML, OCAML_FORK, C, Dialect
from xenmesh.xen.xenstore import Xenstore
from xenmesh.xenstore.errors import ServerError, XenstoreError
from xenmesh.xenstore.messages import Write
from xenmesh.xenstore.perms import Access, Perm

A, B = "6d1b6e7e-0000-4000-8000-00000000000a", "6d1b6e7e-0000-4000-8000-00000000000b"
ROOTS = ("/vm", "/libxl", "/tool")


class Observed:
    """A source at work, and what came of it."""

    def __init__(self, writer: Xenstore, source: Source, model: Model, counters: Counter[str]) -> None:
        self.store = writer
        self.source = source
        self.model = model
        self.counters = counters
        self.events: list[Event] = []
        self.resyncs = 0

    async def run(self) -> None:
        async for observations in self.source.observations():
            for observation in observations:
                self.events += self.model.apply(observation)
                self.resyncs += isinstance(observation, Resynced)

    @property
    def kept(self) -> dict[str, bytes]:
        return {
            item.path: item.raw if item.raw is not None else (item.value or "").encode()
            for view in self.model.cut().values()
            for item in view
            if isinstance(item, Changed)
        }

    def said(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    async def truth(self) -> dict[str, bytes]:
        """What the store holds, read by someone else."""
        found: dict[str, bytes] = {}
        try:
            domains = [f"/local/domain/{name}" for name in await self.store.directory("/local/domain")]
        except ServerError:
            domains = []
        pending = [*ROOTS, *domains]
        while pending:
            path = pending.pop()
            try:
                found[path] = await self.store.read(path)
                pending += [f"{path}/{name}" for name in await self.store.directory(path)]
            except ServerError:
                continue
        return found


@asynccontextmanager
async def observed(xenstored: Xenstored | Daemon, **settings: object) -> AsyncIterator[Observed]:
    config = StoreConfig(**settings)  # type: ignore[arg-type]
    model, counters = Model(config), Counter[str]()
    path = str(xenstored.path if isinstance(xenstored, Daemon) else xenstored.socket)
    async with (
        Xenstore.connect(path) as writer,
        Xenstore.connect(path) as reader,
        Source.open(reader, config, model, Redaction(config.secrets, b"key"), counters) as source,
        anyio.create_task_group() as group,
    ):
        mine = Observed(writer, source, model, counters)
        group.start_soon(mine.run)
        await eventually(lambda: mine.resyncs, "the first reading")
        yield mine
        group.cancel_scope.cancel()


async def restarted(mine: Observed, xenstored: Xenstored) -> None:
    before = mine.resyncs
    xenstored.kill()
    xenstored.start()
    await eventually(lambda: mine.resyncs > before, "the source to read all again", within=20)
    await mine.store.up()


async def test_what_is_there_at_the_start_is_read_whole(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store:
        for path in (
            "/local/domain/5/data/x",
            "/local/domain/5/device/vif/0/state",
            "/vm/x/name",
            "/libxl/5/type",
            "/tool/a/b",
        ):
            await store.write(path, "1")
        await store.write("/local/domain/5/vm", f"/vm/{A}")
    async with observed(xenstored) as mine:
        assert mine.kept == await mine.truth()
        assert mine.said(DomainSeen)[-1] == DomainSeen(domid=5, uuid=A, introduced=False, generation=1)


async def test_a_change_is_seen_and_a_barrier_proves_it(xenstored: Xenstored) -> None:
    async with observed(xenstored) as mine:
        for n in range(20):
            await mine.store.write("/local/domain/5/data/x", f"{n}")
            await mine.store.write("/vm/x/name", f"{n}")
            await mine.source.passed()
            assert mine.kept["/local/domain/5/data/x"] == mine.kept["/vm/x/name"] == b"%d" % n
        await mine.store.rm("/local/domain/5/data")
        await mine.source.passed()
        assert mine.kept == await mine.truth()
        assert [event.path for event in mine.said(Removed)] == ["/local/domain/5/data"]  # type: ignore[attr-defined]


async def test_barriers_are_passed_while_others_write_without_end(xenstored: Xenstored) -> None:
    async with observed(xenstored, guest_burst=1 << 20) as mine, anyio.create_task_group() as group:

        async def write() -> None:
            n = 0
            while True:
                n += 1
                await mine.store.write("/local/domain/5/data/busy", f"{n}")

        group.start_soon(write)
        for n in range(5):
            await mine.store.write("/local/domain/6/data/x", f"{n}")
            with anyio.fail_after(10):
                await mine.source.passed()
            assert mine.kept["/local/domain/6/data/x"] == b"%d" % n
        group.cancel_scope.cancel()


async def test_a_domain_comes_is_introduced_and_goes(xenstored: Xenstored) -> None:
    async with observed(xenstored) as mine:
        await mine.store.write("/libxl/5/type", "pv")
        await mine.store.write("/local/domain/5/vm", f"/vm/{A}")
        await mine.source.passed()
        await eventually(lambda: mine.model.domids == {5}, "the domain to be seen")
        xenstored.event("create 5")
        await mine.store.introduce(5, 1, 1)
        await mine.source.passed()
        await eventually(lambda: mine.model.introduced(5), "the domain to be introduced")
        await mine.store.rm("/local/domain/5")
        await mine.store.release(5)
        await eventually(lambda: mine.said(DomainGone), "the domain to be gone")

        assert mine.said(DomainGone) == [DomainGone(domid=5, uuid=A, generation=1)]
        assert "/local/domain/5" not in mine.kept
        assert mine.said(DomainSeen)[-1] == DomainSeen(domid=5, uuid=A, introduced=True, generation=1)


async def test_a_domain_without_hint_is_found_by_listing(xenstored: Xenstored) -> None:
    async with observed(xenstored, reconcile=0.05) as mine:
        await mine.store.write("/local/domain/7/vm", f"/vm/{A}")
        await eventually(lambda: mine.model.domids == {7}, "the listing")
        await eventually(lambda: mine.kept.get("/local/domain/7/vm"), "its nodes")
        await mine.store.rm("/local/domain/7")
        await eventually(lambda: not mine.model.domids, "its end")
        await mine.source.passed()
        assert mine.kept == await mine.truth()


async def test_a_domain_that_comes_back_while_it_is_found_gone_stays_watched(xenstored: Xenstored) -> None:
    async with observed(xenstored, reconcile=3600.0) as mine:
        await mine.store.write("/local/domain/5/vm", f"/vm/{A}")
        await mine.source.passed()
        ask, again = mine.source._ask, []

        async def ask_then_write(batch: Batch) -> list[object]:
            answers = await ask(batch)
            if batch.domids == [5] and isinstance(answers[0], ServerError) and not again:
                again.append(5)
                await mine.store.write("/local/domain/5/data/x", "back")
                await mine.source._store.sync()
            return answers

        mine.source._ask = ask_then_write  # type: ignore[method-assign]
        await mine.store.rm("/local/domain/5")
        await eventually(lambda: mine.kept.get("/local/domain/5/data/x") == b"back", "what came back")
        assert again == [5]
        await eventually(lambda: mine.model.domids == {5}, "the domain")


async def test_a_barrier_asked_for_while_the_domains_are_listed_waits_for_what_the_listing_missed(xenstored: Xenstored) -> None:
    async with observed(xenstored, reconcile=3600.0) as mine, anyio.create_task_group() as group:
        await mine.store.write("/local/domain/5/data/x", "1")
        await mine.source.passed()
        directory, meanwhile = mine.source._store.directory, []

        async def list_then_change(path: str) -> list[str]:
            names = await directory(path)
            if path == "/local/domain" and not meanwhile:
                meanwhile.append(path)
                await mine.store.write("/local/domain/5/data/x", "2")
                await mine.store.write("/local/domain/6/data/x", "3")
                group.start_soon(second)
                await eventually(lambda: len(mine.source._tickets) == 2, "the second barrier")
            return names

        async def second() -> None:
            await mine.source.passed()
            found.append((mine.kept.get("/local/domain/5/data/x"), mine.kept.get("/local/domain/6/data/x")))

        found: list[tuple[bytes | None, bytes | None]] = []
        mine.source._store.directory = list_then_change  # type: ignore[method-assign]
        await mine.source.passed()
        await eventually(lambda: found, "the second barrier to be passed")
        assert found == [(b"2", b"3")]


async def test_a_reboot_has_two_domids_of_one_uuid_for_a_while(xenstored: Xenstored) -> None:
    async with observed(xenstored, reconcile=0.05) as mine:
        await mine.store.write("/local/domain/5/vm", f"/vm/{A}")
        await mine.store.write("/local/domain/6/vm", f"/vm/{A}")
        await eventually(lambda: mine.model.domids == {5, 6}, "both")
        await mine.source.passed()
        await mine.store.rm("/local/domain/5")
        await eventually(lambda: mine.model.domids == {6}, "the first to go")
        assert mine.said(DomainGone) == [DomainGone(domid=5, uuid=A, generation=1)]


async def test_a_domid_used_again_is_another_domain(xenstored: Xenstored) -> None:
    async with observed(xenstored, reconcile=0.05) as mine:
        await mine.store.write("/local/domain/5/vm", f"/vm/{A}")
        await eventually(lambda: mine.kept.get("/local/domain/5/vm"), "the first")
        await mine.store.write("/local/domain/5/vm", f"/vm/{B}")
        await eventually(lambda: mine.said(DomainGone), "the second")
        assert mine.said(DomainSeen)[-1] == DomainSeen(domid=5, uuid=B, introduced=False, generation=2)
        await mine.source.passed()
        assert mine.kept == await mine.truth()


async def test_secrets_stay_in_the_store(xenstored: Xenstored) -> None:
    async with observed(xenstored) as mine:
        await mine.store.write("/vm/x/vncpasswd", "hunter2")
        await mine.source.passed()
        [said] = [event for event in mine.said(Changed) if event.path == "/vm/x/vncpasswd"]  # type: ignore[attr-defined]

        assert said == Changed(domid=None, uuid=None, path="/vm/x/vncpasswd", value=None, redacted=True)


async def test_an_empty_store_after_a_loss_kills_nobody(xenstored: Xenstored) -> None:
    async with observed(xenstored, reconcile=0.1) as mine:
        await mine.store.write("/local/domain/5/vm", f"/vm/{A}")
        await mine.store.write("/tool/x", "1")
        await eventually(lambda: mine.model.domids == {5}, "the domain")
        await mine.source.passed()
        await restarted(mine, xenstored)
        assert mine.kept == await mine.truth()
        await mine.store.write("/tool/y", "2")
        await mine.source.passed()

        assert mine.kept["/tool/y"] == b"2"
        assert mine.said(DomainGone) == []
        assert mine.said(DomainSeen)[-1] == DomainSeen(domid=5, uuid=A, introduced=False, generation=1, missing=True)
        assert [event.state.value for event in mine.said(SourceEvent)] == ["lost", "resynced"]  # type: ignore[attr-defined]
        await mine.store.write("/local/domain/5/vm", f"/vm/{A}")
        await eventually(lambda: mine.said(DomainSeen)[-1].missing is False, "the domain to be back")  # type: ignore[attr-defined]
        await mine.source.passed()
        await mine.store.rm("/local/domain/5")
        await eventually(lambda: mine.said(DomainGone), "the domain to leave in the ordinary way")


async def test_a_restart_under_writes_loses_no_final_value(xenstored: Xenstored) -> None:
    async with observed(xenstored, guest_burst=1 << 20, reconcile=0.1) as mine, anyio.create_task_group() as group:
        stop, stopped = anyio.Event(), anyio.Event()
        written = 0

        async def write() -> None:
            nonlocal written
            n = 0
            while not stop.is_set():
                n += 1
                try:
                    await mine.store.write(f"/local/domain/{n % 3 + 1}/data/k{n % 7}", f"{n}")
                    await mine.store.write(f"/vm/x/k{n % 5}", f"{n}")
                    written += 1
                except XenstoreError:  # whatever a loss looks like: go on
                    await anyio.sleep(0.001)
            stopped.set()

        group.start_soon(write)
        for _ in range(3):
            before = written
            await eventually(lambda: written > before + 20, "some writes")  # noqa: B023 - within its turn
            await restarted(mine, xenstored)
        before = written
        await eventually(lambda: written > before + 20, "some more writes")
        stop.set()
        await eventually(stopped.is_set, "the last write")
        truth = await mine.truth()
        assert len(truth) > 5
        await eventually(lambda: mine.kept == truth, "every final value")


async def test_a_barrier_says_that_the_store_is_lost(xenstored: Xenstored) -> None:
    async with observed(xenstored) as mine:
        await mine.source.alive()
        xenstored.kill()
        with pytest.raises(Refused, match="xenstored does not answer"):
            await mine.source.passed()
        xenstored.start()


async def test_a_barrier_that_meets_the_loss_half_way_is_told_too(xenstored: Xenstored) -> None:
    async with observed(xenstored) as mine:
        sync = mine.source._store.sync

        async def sync_then_lose() -> None:
            await sync()
            xenstored.kill()
            await eventually(lambda: mine.said(SourceEvent), "the loss to be said")

        mine.source._store.sync = sync_then_lose  # type: ignore[method-assign]
        with anyio.fail_after(5), pytest.raises(Refused, match="xenstored does not answer"):
            await mine.source.passed()
        xenstored.start()


async def test_while_the_store_is_lost_the_source_rests(xenstored_c: Xenstored) -> None:
    async with observed(xenstored_c, reconcile=0.01) as mine:
        mine.source._unwatched["/nowhere"] = None
        mine.source._listing = True
        xenstored_c.kill()
        await eventually(lambda: mine.said(SourceEvent), "the loss to be said")
        before = time.process_time()
        await anyio.sleep(0.5)
        assert time.process_time() - before < 0.25


async def test_barriers_are_passed_though_a_domain_is_missing(xenstored: Xenstored) -> None:
    async with observed(xenstored) as mine:
        await mine.store.write("/local/domain/5/vm", f"/vm/{A}")
        await mine.source.passed()
        await restarted(mine, xenstored)
        async with anyio.create_task_group() as group:
            with anyio.fail_after(20):
                for n in range(50):
                    await mine.store.write("/tool/x", f"{n}")
                    group.start_soon(mine.source.passed)
                    await mine.source.passed()
                    assert mine.kept["/tool/x"] == b"%d" % n


async def test_a_flooding_domain_delays_its_own_events_only_and_is_reported(xenstored: Xenstored) -> None:
    settings = {"guest_burst": 100, "guest_rate": 10, "flood_interval": 0.2, "flood_quiet": 0.6, "reconcile": 0.05}
    async with observed(xenstored, **settings) as mine, anyio.create_task_group() as group:
        await mine.store.write("/local/domain/5/data/x", "")
        await mine.store.write("/local/domain/6/data/x", "")
        await eventually(lambda: mine.model.domids == {5, 6}, "both domains")

        async def flood() -> None:
            n = 0
            async with Xenstore.connect(str(xenstored.socket)) as guest:
                while True:
                    await guest.ask_all([Write(f"/local/domain/5/data/k{n + k}", b"%d" % n) for k in range(50)])
                    n = (n + 1) % 100

        async with anyio.create_task_group() as flooding:
            flooding.start_soon(flood)
            await eventually(lambda: mine.said(Flooding), "the flood to be reported")
            for n in range(10):
                await mine.store.write("/local/domain/6/data/x", f"{n}")
                with anyio.fail_after(5):
                    await mine.source.passed()
                assert mine.kept["/local/domain/6/data/x"] == b"%d" % n
            flooding.cancel_scope.cancel()
        first = mine.said(Flooding)[0]
        assert (first.domid, first.active) == (5, True)  # type: ignore[attr-defined]
        await eventually(lambda: mine.said(Flooding)[-1].active is False, "the domain to be quiet again", within=20)  # type: ignore[attr-defined]
        await mine.store.write("/local/domain/5/data/last", "1")
        await eventually(lambda: "/local/domain/5/data/last" in mine.kept, "it to be watched again")
        truth = await mine.truth()
        await eventually(lambda: mine.kept == truth, "all of it")
        group.cancel_scope.cancel()


async def test_more_than_a_watch_can_hold_is_read_whole(xenstored: Xenstored) -> None:
    async with observed(xenstored) as mine:
        await mine.store.ask_all([Write(f"/tool/k{n}", b"%d" % n) for n in range(1500)])
        await mine.source.passed()
        assert mine.kept == await mine.truth()


async def test_a_directory_too_long_for_one_answer_is_read_whole(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store:
        await store.ask_all([Write(f"/tool/a-rather-long-name-{n}", b"%d" % n) for n in range(600)])
    async with observed(xenstored) as mine:
        assert mine.kept == await mine.truth()
        assert len(mine.kept) > 600


@pytest.mark.parametrize("dialect", [C_4_23, OCAML_FORK], ids=lambda dialect: dialect.name)
async def test_where_xenstored_knows_depths_a_domain_is_found_at_once(short_dir: Path, dialect: Dialect) -> None:
    async with Daemon(short_dir, dialect) as daemon, observed(daemon, reconcile=3600.0) as mine:
        await mine.store.mkdir("/local/domain/7")
        await mine.store.write("/local/domain/7/vm", f"/vm/{A}")
        await eventually(lambda: mine.model.domids == {7}, "the domain")
        await mine.source.passed()
        assert mine.kept == await mine.truth()


@pytest.mark.parametrize("dialect", [C, OCAML, C_4_23, OCAML_FORK], ids=lambda dialect: dialect.name)
async def test_a_guest_that_writes_without_end_delays_nobody_else(short_dir: Path, dialect: Dialect) -> None:
    settings = {"guest_burst": 100, "guest_rate": 10, "flood_interval": 0.2, "flood_quiet": 0.4, "reconcile": 0.05}
    async with Daemon(short_dir, dialect) as daemon, observed(daemon, **settings) as mine:
        for n in (5, 6):
            await mine.store.write(f"/local/domain/{n}/data", "")
            await mine.store.introduce(n, 1, 1)
            await mine.store.set_perms(f"/local/domain/{n}/data", [Perm(Access.NONE, n)])
            await mine.store.write(f"/local/domain/{n}/vm", f"/vm/{A}")
        await mine.source.passed()
        async with Xenstore.connect(str(await daemon.listen(5))) as guest, anyio.create_task_group() as group:

            async def flood() -> None:
                n = 0
                while True:
                    n += 1
                    await guest.ask_all([Write(f"data/k{k}", b"%d" % n) for k in range(10)])

            group.start_soon(flood)
            await eventually(lambda: mine.said(Flooding), "the flood to be reported")
            for n in range(10):
                await mine.store.write("/local/domain/6/data/x", f"{n}")
                with anyio.fail_after(5):
                    await mine.source.passed()
                assert mine.kept["/local/domain/6/data/x"] == b"%d" % n
            group.cancel_scope.cancel()
        await eventually(lambda: mine.said(Flooding)[-1].active is False, "the guest to be quiet again", within=20)  # type: ignore[attr-defined]
        truth = await mine.truth()
        await eventually(lambda: mine.kept == truth, "all that it wrote")
        assert {event.domid for event in mine.said(Flooding)} == {5}  # type: ignore[attr-defined]


async def test_a_flooding_domain_that_goes_floods_no_more(short_dir: Path) -> None:
    async with Daemon(short_dir) as daemon, observed(daemon, guest_burst=10, guest_rate=1, reconcile=0.05) as mine:
        await mine.store.write("/local/domain/5/vm", f"/vm/{A}")
        await mine.source.passed()
        for n in range(50):
            await mine.store.write(f"/local/domain/5/data/k{n}", "")
        await eventually(lambda: mine.said(Flooding), "the flood to be reported")
        await mine.store.rm("/local/domain/5")
        await eventually(lambda: mine.said(DomainGone), "its end")
        await eventually(lambda: len(mine.said(Flooding)) == 2, "the end of the flood")
        assert [event.active for event in mine.said(Flooding)] == [True, False]  # type: ignore[attr-defined]


async def test_a_watch_that_is_refused_is_tried_again(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Daemon(short_dir) as daemon, observed(daemon, reconcile=0.05) as mine:
        add, refused = mine.source._watches.add, []

        async def refuse_once(key: object, *paths: str) -> None:
            if not refused:
                refused.append(key)
                raise ServerError.of("ENOSPC")
            await add(key, *paths)  # type: ignore[arg-type]

        monkeypatch.setattr(mine.source._watches, "add", refuse_once)
        await mine.store.write("/local/domain/5/vm", f"/vm/{A}")
        await eventually(lambda: mine.kept.get("/local/domain/5/vm"), "it to be read all the same")
        await eventually(lambda: 5 in mine.source._watches, "the watch")
        assert refused == [5]
        await mine.store.write("/local/domain/5/vm", f"/vm/{B}")
        await eventually(lambda: mine.said(DomainGone), "a change to be seen")


@pytest.mark.parametrize("seed", range(4))
async def test_random_lives_end_in_what_the_store_holds(xenstored: Xenstored, seed: int) -> None:
    rng = random.Random(seed)
    async with observed(xenstored, reconcile=0.05, guest_burst=1 << 20) as mine:
        store = mine.store

        def path() -> str:
            root = rng.choice([f"/local/domain/{rng.randint(1, 3)}", "/vm/x", "/libxl/2", "/local/domain/0/backend/vif/2"])
            return "/".join([root, *(rng.choice(["a", "b", "data"]) for _ in range(rng.randint(0, 3)))])

        async def act(to: object) -> None:
            try:
                if rng.random() < 0.3:
                    chosen = path()
                    # Of a node made and removed in one transaction no xenstored tells anything, nor of the parents that it leaves.
                    if to is not store:
                        await store.read(chosen)
                    await to.rm(chosen)  # type: ignore[attr-defined]
                else:
                    await to.write(path(), rng.choice(["", "1", "2", "é"]))  # type: ignore[attr-defined]
            except ServerError:
                pass

        for _ in range(200):
            if rng.random() < 0.1:
                async with store.transaction() as transaction:
                    for _ in range(rng.randint(1, 6)):
                        await act(transaction)
            else:
                await act(store)
        truth = await mine.truth()
        await eventually(lambda: mine.kept == truth, "what is kept to be what the store holds")

        replayed = Model(StoreConfig())
        again = [event for observation in recorded(mine.events) for event in replayed.apply(observation)]
        assert again == mine.events
