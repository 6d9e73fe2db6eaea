"""The rule, with peers that are real (a xenstored, a nats-server) where it is about them, and clocks short enough to wait for."""

import os
import signal
from pathlib import Path

import anyio
import pytest
from rigs.waiting import eventually

from xenmesh.services.daemon import knock
from xenmesh.services.daemon.watchdog import Proof, hung, watch


async def answered() -> None:
    pass


async def refused() -> None:
    raise ConnectionRefusedError


async def silent() -> None:
    await anyio.sleep_forever()


def is_stopped(pid: int) -> bool:
    return all(stat.read_text().rpartition(") ")[2][0] == "T" for stat in Path(f"/proc/{pid}/task").glob("*/stat"))


@pytest.mark.parametrize("alive", [answered, refused, silent])
@pytest.mark.parametrize("newcomer", [answered, refused, silent])
async def test_hung_is_who_gets_no_answer_where_a_newcomer_does(alive, newcomer):
    proof = Proof("store", "xenstored", alive, newcomer)
    found = await hung([proof], 0.02)
    assert found == ([proof] if alive is not answered and newcomer is answered else [])


async def test_one_hung_connection_among_many_is_found_in_one_patience():
    proofs = [Proof("store", str(number), silent if number % 2 else answered, answered) for number in range(6)]
    with anyio.fail_after(5):
        assert {proof.peer for proof in await hung(proofs, 0.02)} == {"1", "3", "5"}


async def test_no_sign_while_hung_and_signs_again_when_not(caplog):
    broken = False
    signs = 0

    async def alive() -> None:
        if broken:
            raise ConnectionError

    def sign() -> None:
        nonlocal signs
        signs += 1

    async with anyio.create_task_group() as group:
        group.start_soon(watch, [Proof("store", "xenstored", alive, answered)], 0.04, sign)
        await eventually(lambda: signs > 3, "signs of life")
        broken = True
        await eventually(
            lambda: "store gets no answer from xenstored, where a newcomer does" in caplog.text, "the log to say so"
        )
        caplog.clear()
        before = signs
        await eventually(lambda: len(caplog.records) >= 3, "it to be tried again")
        assert signs == before
        broken = False
        await eventually(lambda: signs > before, "signs again")
        group.cancel_scope.cancel()


async def test_three_tries_fit_into_the_interval():
    """A connection that comes back late in WatchdogSec still saves the process: systemd's clock is the sign before."""
    interval = 1.6
    tries: list[float] = []
    signs: list[float] = []

    async def alive() -> None:
        tries.append(anyio.current_time())
        if len(tries) in (2, 3):
            await silent()

    async with anyio.create_task_group() as group:
        group.start_soon(
            watch, [Proof("store", "xenstored", alive, answered)], interval, lambda: signs.append(anyio.current_time())
        )
        await eventually(lambda: len(signs) >= 2, "the second sign")
        group.cancel_scope.cancel()
    assert len(tries) == 4
    assert signs[1] - signs[0] < interval


async def test_what_is_proved_later_is_watched_too():
    proofs: list[Proof] = []
    signs = 0
    asked = anyio.Event()

    async def alive() -> None:
        asked.set()

    def sign() -> None:
        nonlocal signs
        signs += 1

    async with anyio.create_task_group() as group:
        group.start_soon(watch, proofs, 0.04, sign)
        await eventually(lambda: signs, "a sign")
        proofs.append(Proof("store", "xenstored", alive, answered))
        with anyio.fail_after(5):
            await asked.wait()
        group.cancel_scope.cancel()


async def test_a_xenstored_that_is_stopped_or_gone_is_no_fault_of_ours(xenstored):
    """The very case: xenstored hangs (SIGSTOP), then dies; the service's connection is silent, then broken; the process stays alive."""
    from xenmesh.xen.xenstore import Xenstore

    async with Xenstore.connect(str(xenstored.socket)) as store:

        async def alive() -> None:
            await store.get_domain_path(0)

        async def newcomer() -> None:
            await knock.at_xenstored(xenstored.socket)

        proof = Proof("store", "xenstored", alive, newcomer)
        assert await hung([proof], 2) == []
        deaf = Proof("store", "xenstored", silent, newcomer)
        assert await hung([deaf], 0.5) == [deaf]
        os.kill(xenstored.pid, signal.SIGSTOP)
        await eventually(lambda: is_stopped(xenstored.pid), "every thread of it to stand still")
        try:
            assert await hung([proof, deaf], 0.2) == []
        finally:
            os.kill(xenstored.pid, signal.SIGCONT)
        xenstored.kill()
        assert await hung([proof, deaf], 0.2) == []
