import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from xenmesh.sim.xenstored.daemon import Daemon
from xenmesh.sim.xenstored.dialect import OCAML, C, Dialect
from xenmesh.xenstore.packets import Op, Packet, Parser, encode

DEADLINE = 10


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._parser = Parser(1 << 16)
        self._got: list[Packet] = []

    def send(self, op: Op, payload: bytes, req_id: int = 1, tx_id: int = 0) -> None:
        self.writer.write(encode(Packet(op, req_id, tx_id, payload)))

    async def take(self) -> Packet | None:
        async with asyncio.timeout(DEADLINE):
            while not self._got:
                data = await self.reader.read(1 << 16)
                if not data:
                    return None
                self._got += self._parser.feed(data)
        return self._got.pop(0)

    async def ask(self, op: Op, payload: bytes, tx_id: int = 0) -> bytes:
        self.send(op, payload, tx_id=tx_id)
        packet = await self.take()
        assert packet is not None
        return packet.payload


@asynccontextmanager
async def peer(daemon: Daemon) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_unix_connection(str(daemon.path))
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()


@pytest.mark.parametrize("dialect", [C, OCAML], ids=lambda dialect: dialect.name)
async def test_split_and_delayed_bytes_come_whole(short_dir: Path, dialect: Dialect) -> None:
    async with Daemon(short_dir, dialect) as daemon, peer(daemon) as one:
        daemon.faults.split = True
        daemon.faults.delay = 0.01
        assert await one.ask(Op.WRITE, b"/a\0v") == b"OK\0"
        assert await one.ask(Op.READ, b"/a\0") == b"v"


async def test_stall_holds_answers_until_it_ends(short_dir: Path) -> None:
    async with Daemon(short_dir) as daemon, peer(daemon) as one:
        daemon.faults.stall = True
        one.send(Op.WRITE, b"/a\0v")
        async with asyncio.timeout(DEADLINE):
            while daemon.store.tree.get("/a") is None:  # noqa: ASYNC110
                await asyncio.sleep(0)
        daemon.control.sim("stall", "off")
        assert (await one.take()) == Packet(Op.WRITE, 1, 0, b"OK\0")


async def test_cut_ends_the_connection_within_a_packet(short_dir: Path) -> None:
    async with Daemon(short_dir) as daemon, peer(daemon) as one:
        daemon.faults.cut_after = 5
        one.send(Op.READ, b"/\0")
        assert await one.take() is None


async def test_reorder_changes_places_of_replies(short_dir: Path) -> None:
    async with Daemon(short_dir) as daemon, peer(daemon) as one:
        daemon.faults.reorder = True
        one.writer.write(b"".join(encode(Packet(Op.READ, n, 0, b"/\0")) for n in range(20)))
        got = [packet.req_id for _ in range(20) if (packet := await one.take())]
        assert sorted(got) == list(range(20))
        assert got != sorted(got)


async def test_oversize_reply(short_dir: Path) -> None:
    async with Daemon(short_dir) as daemon, peer(daemon) as one:
        daemon.control.sim("oversize", "1")
        assert len(await one.ask(Op.READ, b"/\0")) == 4097
        assert await one.ask(Op.READ, b"/\0") == b""


async def test_every_second_commit_fails(short_dir: Path) -> None:
    async with Daemon(short_dir) as daemon, peer(daemon) as one:
        assert await one.ask(Op.CONTROL, b"sim\0eagain\0002\0") == b"OK\0"
        said = []
        for _ in range(4):
            tx_id = int((await one.ask(Op.TRANSACTION_START, b"\0"))[:-1])
            said.append(await one.ask(Op.TRANSACTION_END, b"T\0", tx_id))
        assert said == [b"OK\0", b"EAGAIN\0", b"OK\0", b"EAGAIN\0"]


async def test_restart_comes_back_empty(short_dir: Path) -> None:
    async with Daemon(short_dir) as daemon:
        async with peer(daemon) as one:
            await one.ask(Op.WRITE, b"/a\0v")
            daemon.control.sim("restart")
            assert await one.take() is None
        async with peer(daemon) as two:
            assert await two.ask(Op.READ, b"/a\0") == b"ENOENT\0"


async def test_live_update_keeps_watches_and_drops_transactions(short_dir: Path) -> None:
    async with Daemon(short_dir) as daemon, peer(daemon) as one:
        await one.ask(Op.WATCH, b"/a\0t\0")
        await one.take()
        tx_id = int((await one.ask(Op.TRANSACTION_START, b"\0"))[:-1])
        daemon.control.sim("live-update")
        assert await one.ask(Op.TRANSACTION_END, b"T\0", tx_id) == b"ENOENT\0"
        assert await one.ask(Op.WRITE, b"/a\0v") == b"/a\0t\0"


async def test_a_guests_socket_speaks_for_the_guest(short_dir: Path) -> None:
    async with Daemon(short_dir) as daemon:
        path = await daemon.listen(7)
        reader, writer = await asyncio.open_unix_connection(str(path))
        guest = Peer(reader, writer)
        assert await guest.ask(Op.READ, b"/\0") == b"EACCES\0"
        writer.close()


async def test_a_guest_that_takes_no_answers_gets_no_more_done_than_its_quota(short_dir: Path) -> None:
    async with Daemon(short_dir) as daemon:
        path = await daemon.listen(7)
        daemon.store.introduce(7)
        reader, writer = await asyncio.open_unix_connection(str(path))
        guest = Peer(reader, writer)
        daemon.faults.stall = True
        before = daemon.store.requests
        writer.write(b"".join(encode(Packet(Op.READ, n, 0, b"name\0")) for n in range(100)))
        async with asyncio.timeout(DEADLINE):
            while daemon.store.requests < before + 20:  # noqa: ASYNC110
                await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert daemon.store.requests == before + 20
        daemon.control.sim("stall", "off")
        answers = [packet.req_id for _ in range(100) if (packet := await guest.take())]
        assert answers == list(range(100))
        writer.close()


async def test_dom0_may_have_any_number_outstanding(short_dir: Path) -> None:
    async with Daemon(short_dir) as daemon, peer(daemon) as one:
        daemon.faults.stall = True
        one.writer.write(b"".join(encode(Packet(Op.READ, n, 0, b"/\0")) for n in range(100)))
        async with asyncio.timeout(DEADLINE):
            while daemon.store.requests < 100:  # noqa: ASYNC110
                await asyncio.sleep(0)
        daemon.control.sim("stall", "off")
        assert [packet.req_id for _ in range(100) if (packet := await one.take())] == list(range(100))


@pytest.mark.parametrize("dialect", [C, OCAML], ids=lambda dialect: dialect.name)
async def test_a_guest_that_takes_nothing_is_cut_off_by_c_alone(short_dir: Path, dialect: Dialect) -> None:
    async with Daemon(short_dir, dialect) as daemon:
        daemon.store.introduce(7)
        if dialect is C:
            daemon.store.quotas.set("unread", 0)
        theirs = await daemon.connect(7)
        theirs.setblocking(False)
        (client,) = daemon.store.clients
        loop = asyncio.get_running_loop()
        request = encode(Packet(Op.GET_DOMAIN_PATH, 1, 0, b"7\0"))

        async def flood() -> None:
            for _ in range(1000):
                await loop.sock_sendall(theirs, request * 100)

        flooding = asyncio.create_task(flood())
        async with asyncio.timeout(DEADLINE):
            if dialect is C:
                while client in daemon.store.clients:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            else:
                while client.wire.queued < 1024:  # noqa: ASYNC110
                    await asyncio.sleep(0)
                assert client.wire.queued == 1024
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        theirs.close()
