"""The xenstore client over /dev/xen/xenbus, run in Dom0 by test_device.py: each check prints its name; the first that fails ends it."""

import asyncio
import sys

from xenmesh.xen.xenstore import Xenstore
from xenmesh.xenstore.errors import ConflictError, NotFoundError
from xenmesh.xenstore.messages import Directory, Read

DEVICE = "/dev/xen/xenbus"
HERE = "/tool/xenmesh-lab"
MANY = 200


async def each_read_gets_its_own_answer(store: Xenstore) -> None:
    # Sizes differ as well: the kernel has one buffer, and an answer cut to another's length would show.
    values = {f"{HERE}/many/{number}": b"%d" % number * (number % 50 + 1) for number in range(MANY)}
    await asyncio.gather(*(store.write(path, value) for path, value in values.items()))
    answers = await asyncio.gather(*(store.read(path) for path in values))
    assert dict(zip(values, answers, strict=True)) == values
    asked = [Read(path) for path in values] + [Directory(f"{HERE}/many"), Read(f"{HERE}/none")]
    *answers, names, missing = await store.ask_all(asked)  # type: ignore[arg-type]
    assert dict(zip(values, answers, strict=True)) == values
    assert sorted(names, key=int) == [str(number) for number in range(MANY)]
    assert isinstance(missing, NotFoundError), missing


async def watches_hear_what_is_written(store: Xenstore) -> None:
    async with store.watches() as watches:
        await watches.add("all", HERE)
        assert watches.take(await watches.next()).initial
        async with Xenstore.connect(DEVICE) as other:
            for number in range(50):
                await other.write(f"{HERE}/heard/{number}", b"x")
        heard: set[str] = set()
        async with asyncio.timeout(60):
            while not {f"{HERE}/heard/{number}" for number in range(50)} <= heard:
                heard |= watches.take(await watches.next()).paths


async def sync_comes_after_the_events(store: Xenstore) -> None:
    async with store.watches() as watches:
        await watches.add("all", HERE)
        watches.take(await watches.next())
        for number in range(50):
            await store.write(f"{HERE}/synced", b"%d" % number)
            await store.sync()
            async with asyncio.timeout(0):
                dirty = watches.take(await watches.next())
            assert f"{HERE}/synced" in dirty.paths, number


async def transactions_are_whole_and_conflict(store: Xenstore) -> None:
    async with store.transaction() as within:
        await within.write(f"{HERE}/a", b"1")
        await within.write(f"{HERE}/b", b"2")
        try:
            await store.read(f"{HERE}/a")
        except NotFoundError:
            pass
        else:
            raise AssertionError("seen before its end")
        assert await within.read(f"{HERE}/a") == b"1"
    assert await store.read_many([f"{HERE}/a", f"{HERE}/b"]) == [b"1", b"2"]
    try:
        async with store.transaction() as within:
            await within.read(f"{HERE}/a")
            await store.write(f"{HERE}/a", b"3")
            await within.write(f"{HERE}/a", b"4")
    except ConflictError:
        pass
    else:
        raise AssertionError("no conflict")
    assert await store.read(f"{HERE}/a") == b"3"


async def main() -> None:
    checks = [
        each_read_gets_its_own_answer,
        watches_hear_what_is_written,
        sync_comes_after_the_events,
        transactions_are_whole_and_conflict,
    ]
    async with Xenstore.connect(DEVICE) as store:
        try:
            for check in checks:
                await check(store)
                print(check.__name__, flush=True)
        finally:
            await store.rm(HERE)
        assert store.statistics.losses == 0
    print("all")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
