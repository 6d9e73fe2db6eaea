"""Requests and transactions against the real servers."""

import anyio
import pytest
from rigs.waiting import eventually
from rigs.xenstored import Xenstored

from xenmesh.xen.xenstore import Xenstore
from xenmesh.xenstore.errors import (
    ConflictError,
    LimitError,
    ListingError,
    NotFoundError,
    OutcomeUnknown,
    PathError,
    ServerError,
    TransactionLostError,
)
from xenmesh.xenstore.messages import TransactionEnd
from xenmesh.xenstore.perms import Access, Perm


async def test_nodes(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store:
        await store.write("/a/b", "ü")
        await store.write("/a/c", b"\0x\0")
        await store.mkdir("/a/d")

        assert await store.read("/a/b") == "ü".encode()
        assert await store.read("/a/c") == b"\0x\0"
        assert await store.read("/a/d") == b""
        assert sorted(await store.directory("/a")) == ["b", "c", "d"]
        assert await store.directory("/a/d") == []

        await store.rm("/a")
        with pytest.raises(NotFoundError):
            await store.read("/a/b")
        await store.rm("/a")
        with pytest.raises(NotFoundError):
            await store.rm("/a/b/c")
        with pytest.raises(PathError):
            await store.read("/a b")


async def test_permissions(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store:
        await store.write("/a", "")
        await store.introduce(5, 1, 1)
        perms = [Perm(Access.NONE, 0), Perm(Access.READ, 5)]
        await store.set_perms("/a", perms)

        assert await store.get_perms("/a") == perms


async def test_read_many(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store:
        await store.write("/a", "1")
        answers = await store.read_many(["/a", "/nope"] * 200)

        assert answers[::2] == [b"1"] * 200
        assert all(isinstance(answer, NotFoundError) for answer in answers[1::2])
        assert await store.read_many([]) == []


async def test_a_directory_above_4096_bytes(xenstored: Xenstored) -> None:
    names = [f"child-{number:03}-{'x' * 20}" for number in range(300)]
    async with Xenstore.connect(str(xenstored.socket)) as store:
        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(store.write, f"/long/{name}", "")

        assert sorted(await store.directory("/long")) == names
        async with store.transaction() as tx:
            assert sorted(await tx.directory("/long")) == names


async def test_a_long_directory_that_changes_while_it_is_listed(xenstored_c: Xenstored) -> None:
    names = {f"child-{number:04}-{'x' * 20}" for number in range(600)}
    async with (
        Xenstore.connect(str(xenstored_c.socket)) as store,
        Xenstore.connect(str(xenstored_c.socket)) as other,
    ):
        for name in names:
            await store.write(f"/long/{name}", "")
        async with anyio.create_task_group() as group:

            async def disturb() -> None:
                for number in range(20):
                    await other.write(f"/long/new-{number}", "")

            group.start_soon(disturb)
            for _ in range(5):
                listed = await store.directory("/long")
                assert names <= set(listed)
                assert len(listed) == len(set(listed))


async def test_a_list_that_is_not_given_in_parts(xenstored_c: Xenstored, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Xenstore.connect(str(xenstored_c.socket)) as store:
        for number in range(200):
            await store.write(f"/long/child-{number:03}-{'x' * 20}", "")
        ask = store._ask_raw

        async def without_parts(message):
            if message.op.name == "DIRECTORY_PART":
                raise ServerError.of("ENOSYS")
            return await ask(message)

        monkeypatch.setattr(store, "_ask_raw", without_parts)
        with pytest.raises(ListingError):
            await store.directory("/long")


async def test_a_value_that_only_c_takes(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store:
        if xenstored.kind == "c":
            await store.write("/a", "x" * 3000)
        else:
            with pytest.raises(LimitError):
                await store.write("/a", "x" * 3000)


# -- transactions


async def test_a_transaction_is_seen_whole_or_not_at_all(xenstored: Xenstored) -> None:
    async with (
        Xenstore.connect(str(xenstored.socket)) as store,
        Xenstore.connect(str(xenstored.socket)) as other,
    ):
        async with store.transaction() as tx:
            await tx.write("/a", "1")
            await tx.mkdir("/b")
            assert await tx.read("/a") == b"1"
            assert await tx.read_many(["/a"]) == [b"1"]
            with pytest.raises(NotFoundError):
                await other.read("/a")
        assert await other.read("/a") == b"1"

        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the end of the inner block raises
            async with store.transaction() as tx:
                await tx.write("/a", "2")
                _ = 1 / 0
        assert await other.read("/a") == b"1"


async def test_a_conflict(xenstored: Xenstored) -> None:
    async with (
        Xenstore.connect(str(xenstored.socket)) as store,
        Xenstore.connect(str(xenstored.socket)) as other,
    ):
        await store.write("/a", "1")
        with pytest.raises(ConflictError):  # noqa: PT012 - the end of the inner block raises
            async with store.transaction() as tx:
                await tx.write("/a", await tx.read("/a") + b"x")
                await other.write("/a", "2")
        assert await store.read("/a") == b"2"


async def test_concurrent_increments_all_count(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store:
        await store.write("/n", "0")

        async def increment(tx):
            value = int(await tx.read("/n")) + 1
            await tx.write("/n", str(value))
            return value

        seen = set()

        async def run() -> None:
            seen.add(await store.transact(increment))

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(run)
        assert await store.read("/n") == b"8"
        assert seen == set(range(1, 9))


async def test_transact_gives_up_in_the_end(xenstored: Xenstored) -> None:
    runs = 0
    async with (
        Xenstore.connect(str(xenstored.socket)) as store,
        Xenstore.connect(str(xenstored.socket)) as other,
    ):
        await store.write("/a", "")

        async def body(tx) -> None:
            nonlocal runs
            runs += 1
            await tx.write("/a", await tx.read("/a") + b"x")
            await other.write("/a", str(runs))

        with pytest.raises(ConflictError):
            await store.transact(body, attempts=3)
    assert runs == 3


async def test_a_server_that_dies_before_the_commit(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store:
        with pytest.raises(TransactionLostError):  # noqa: PT012 - the end of the inner block raises
            async with store.transaction() as tx:
                await tx.write("/a", "1")
                xenstored.kill()
                await tx.read("/a")


async def test_a_transaction_never_reaches_another_connection(xenstored: Xenstored) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store:
        with pytest.raises(TransactionLostError):  # noqa: PT012 - the end of the inner block raises
            async with store.transaction() as tx:
                await tx.write("/a", "1")
                xenstored.kill()
                xenstored.start()
                await eventually(lambda: store.statistics.connects == 2, "the new connection")
                with pytest.raises(TransactionLostError):
                    await tx.write("/a", "2")
                with pytest.raises(TransactionLostError):
                    await tx.read_many(["/a"])
        with pytest.raises(NotFoundError):
            await store.read("/a")


async def test_a_server_that_dies_at_the_commit(xenstored: Xenstored, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store:
        with pytest.raises(OutcomeUnknown) as caught:  # noqa: PT012 - the end of the inner block raises
            async with store.transaction() as tx:
                await tx.write("/a", "1")
                send = tx._session.send

                def send_and_die(message, tx_id=0):
                    future = send(message, tx_id)
                    if isinstance(message, TransactionEnd):
                        # before the loop can see the answer
                        tx._session._transport._lose("cut")
                    return future

                monkeypatch.setattr(tx._session, "send", send_and_die)
        assert caught.value.sent
        assert not caught.value.safe_to_repeat


async def test_a_commit_that_never_left(xenstored: Xenstored, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store:
        with pytest.raises(TransactionLostError):  # noqa: PT012 - the end of the inner block raises
            async with store.transaction() as tx:
                await tx.write("/a", "1")
                session = tx._session
                monkeypatch.setattr(session._transport, "flush", lambda: None)
                send = session.send

                def send_and_die(message, tx_id=0):
                    future = send(message, tx_id)
                    session._transport._lose("cut")
                    return future

                monkeypatch.setattr(session, "send", send_and_die)


async def test_many_reads_of_a_transaction_whose_server_dies(xenstored: Xenstored, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Xenstore.connect(str(xenstored.socket)) as store:
        with pytest.raises(TransactionLostError):  # noqa: PT012 - the end of the inner block raises
            async with store.transaction() as tx:
                monkeypatch.setattr(tx._session._transport, "flush", lambda: None)
                async with anyio.create_task_group() as group:

                    async def cut() -> None:
                        tx._session._transport._lose("cut")

                    group.start_soon(cut)
                    with pytest.raises(TransactionLostError):
                        await tx.read_many(["/a"] * 3)
