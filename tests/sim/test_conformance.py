"""The simulated xenstored and the two real ones answer the same, byte for byte, event for event.

tests/sim/transcripts/*.txt hold what the real C xenstored and oxenstored 4.17 said:

    A WRITE /a|x                  step: who, request, payload ("|" is NUL, "{x*9}" repeats, "-" is empty), [@transaction]
        = A OK                    what followed on each connection: "=" of both, "c" or "ml" of one
        c B EVENT /a|token

A and B are dom0 on the socket, G and H the domains 7 and 8 on their rings. "! ring 7", "! shutdown 8", "! destroy 8"
are the world's doing, "# ..." a remark. The simulation must repeat the transcripts always; the real ones where the
machine has them. XENMESH_RECORD=1 writes the transcripts anew from the real ones.
"""

import mmap
import os
import re
import socket
import struct
import time
from pathlib import Path
from typing import Protocol

import pytest
from rigs.xenstored import Kind, Xenstored, run_xenstored

from xenmesh.sim.xenstored.control import Control
from xenmesh.sim.xenstored.dialect import DIALECTS
from xenmesh.sim.xenstored.faults import Faults
from xenmesh.sim.xenstored.store import Client, Store
from xenmesh.xenstore.errors import FramingError
from xenmesh.xenstore.packets import Op

TRANSCRIPTS = Path(__file__).with_name("transcripts")
CASES = sorted(TRANSCRIPTS.glob("*.txt"))
TAGS = {"c": "c", "ocaml": "ml"}
DOMAINS = {"G": 7, "H": 8}
DEADLINE = 10.0

HEADER = struct.Struct("<4I")
OK = b"OK\0"


class Line(Protocol):
    """One connection, as a client has it."""

    @property
    def closed(self) -> bool: ...

    def put(self, data: bytes) -> None: ...

    def take(self) -> bytes:
        """Wait for bytes; none means that it is closed."""
        ...


class SocketLine:
    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))  # blocking: with a timeout a full backlog is an error
        self._socket.settimeout(DEADLINE)
        self.closed = False

    def put(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self.closed = True

    def take(self) -> bytes:
        try:
            return self._socket.recv(1 << 16)
        except ConnectionResetError:
            return b""

    def close(self) -> None:
        self._socket.close()


class RingLine:
    """The guest's side of the shared ring of the real servers: requests at 0, replies at 1024, then four counters."""

    SIZE = 1024
    REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD = 2048, 2052, 2056, 2060

    def __init__(self, daemon: Xenstored, domid: int) -> None:
        self._daemon, self._domid = daemon, domid
        self.closed = False
        page = os.open(daemon.directory / f"ring-{domid}", os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(page, 4096)
        self._page = mmap.mmap(page, 4096)
        os.close(page)

    def _counter(self, at: int) -> int:
        return int(struct.unpack_from("<I", self._page, at)[0])

    def put(self, data: bytes) -> None:
        end = time.monotonic() + DEADLINE
        while data:
            produced = self._counter(self.REQ_PROD)
            room = self.SIZE - (produced - self._counter(self.REQ_CONS)) % (1 << 32)
            for at, byte in enumerate(data[:room], produced):
                self._page[at % self.SIZE] = byte
            struct.pack_into("<I", self._page, self.REQ_PROD, (produced + min(room, len(data))) % (1 << 32))
            data = data[room:]
            self._daemon.event(f"kick {self._domid}")
            assert time.monotonic() < end, "the ring is not emptied"

    def take(self) -> bytes:
        end = time.monotonic() + DEADLINE
        while (consumed := self._counter(self.RSP_CONS)) == (produced := self._counter(self.RSP_PROD)):
            assert time.monotonic() < end, "nothing comes through the ring"
            time.sleep(0.0005)
        data = bytes(self._page[self.SIZE + at % self.SIZE] for at in range(consumed, produced))
        struct.pack_into("<I", self._page, self.RSP_CONS, produced)
        self._daemon.event(f"kick {self._domid}")
        return data


class SimLine:
    def __init__(self, store: Store, domid: int) -> None:
        self._store = store
        self._client: Client = store.connect(domid)
        self._cut = False

    @property
    def closed(self) -> bool:
        return self._cut or self._client not in self._store.clients

    def put(self, data: bytes) -> None:
        try:
            for request in self._client.wire.receive_data(data):
                self._store.handle(self._client, request)
            self._cut = self._client.wire.closed
        except FramingError:
            self._cut = True

    def take(self) -> bytes:
        data = self._client.wire.data_to_send()
        assert data or self.closed, "the simulation does not answer"
        return data


class RealServer:
    def __init__(self, daemon: Xenstored) -> None:
        self._daemon = daemon
        self._open: list[SocketLine] = []

    def dom0(self) -> Line:
        line = SocketLine(self._daemon.socket)
        self._open.append(line)
        return line

    def ring(self, domid: int) -> Line:
        return RingLine(self._daemon, domid)

    def world(self, what: str, domid: int) -> None:
        self._daemon.event(f"{what} {domid}")

    def close(self) -> None:
        for line in self._open:
            line.close()


class SimServer:
    def __init__(self, kind: Kind) -> None:
        self._store = Store(DIALECTS[kind])
        self._store.control = Control(self._store, Faults(), lambda _: None).answer

    def dom0(self) -> Line:
        return SimLine(self._store, 0)

    def ring(self, domid: int) -> Line:
        return SimLine(self._store, domid)

    def world(self, what: str, domid: int) -> None:
        {"shutdown": self._store.shut_down, "destroy": self._store.gone}[what](domid)


class Dialogue:
    """Speaks a transcript's steps to a server, and writes down what comes back."""

    BARRIER = b"/no/such/node\0"

    def __init__(self, server: RealServer | SimServer) -> None:
        self._server = server
        self._lines: dict[str, Line] = {"A": server.dom0(), "B": server.dom0()}
        self._held: dict[str, bytes] = {}
        self._transactions: dict[int, str] = {}
        self._req_id = 0

    def step(self, step: str) -> list[str]:
        if step.startswith("!"):
            return self._worldly(*step[1:].split())
        who, op, payload, *marks = step.split(" ")
        tx_id = 0
        for mark in marks:
            if mark[0] == "@":
                named = [number for number, name in self._transactions.items() if name == mark[1:]]
                tx_id = named[0] if named else int(mark[1:])
        self._req_id += 1
        request = self._req_id
        line = self._lines[who]
        number = int(op) if op.isdigit() else int(Op[op])
        data = unspell(payload)
        barrier = self._frame(Op.READ, self.BARRIER)
        line.put(HEADER.pack(number, request, tx_id, len(data)) + data + barrier)
        said = self._until(who, self._req_id, request, marks)
        return said + self._others(who)

    def _frame(self, op: int, data: bytes) -> bytes:
        self._req_id += 1
        return HEADER.pack(op, self._req_id, 0, len(data)) + data

    def _others(self, who: str) -> list[str]:
        said = []
        for other, line in list(self._lines.items()):
            if other != who and not line.closed:
                line.put(self._frame(Op.READ, self.BARRIER))
                said += self._until(other, self._req_id, None, [])
        return said

    def _until(self, who: str, barrier: int, request: int | None, marks: list[str]) -> list[str]:
        """Collect what comes on a line up to the answer to the barrier."""
        line = self._lines[who]
        said: list[str] = []
        held = self._held.pop(who, b"")
        while True:
            while len(held) >= HEADER.size:
                op, req_id, tx_id, length = HEADER.unpack_from(held)
                if len(held) < HEADER.size + length:
                    break
                payload, held = held[HEADER.size : HEADER.size + length], held[HEADER.size + length :]
                if req_id == barrier and op != Op.WATCH_EVENT:
                    self._held[who] = held
                    return said
                said.append(f"{who} {self._told(op, req_id == request, tx_id, payload, marks)}")
            data = line.take()
            if not data:
                del self._lines[who]
                return [*said, f"{who} CLOSED"]
            held += data

    def _told(self, op: int, answers: bool, tx_id: int, payload: bytes, marks: list[str]) -> str:
        if op == Op.WATCH_EVENT:
            return f"EVENT {spell(payload)}"
        stray = "" if answers else "STRAY "
        echo = f" @{self._transactions.get(tx_id, tx_id)}" if tx_id else ""
        if op == Op.TRANSACTION_START:
            name = next((mark[1:] for mark in marks if mark[0] == "="), "?")
            self._transactions = {n: of for n, of in self._transactions.items() if of != name}
            self._transactions[int(payload[:-1])] = name
            return f"{stray}{name}{echo}"
        if op == Op.DIRECTORY_PART:
            payload = b"N" + payload[payload.index(b"\0") :]
        if payload == OK:
            return f"{stray}OK{echo}"
        return f"{stray}{Op(op).name} {spell(payload)}{echo}"

    def _worldly(self, what: str, domain: str) -> list[str]:
        domid = int(domain)
        name = next(name for name, of in DOMAINS.items() if of == domid)
        if what == "ring":
            line = self._server.ring(domid)
            self._lines["A"].put(self._frame(Op.INTRODUCE, b"%d\0001\0001\0" % domid))
            self._until("A", self._req_id, None, [])
            self._lines[name] = line
            return []
        if what == "destroy":
            self._lines.pop(name, None)
        self._server.world(what, domid)
        said: list[str] = []
        end = time.monotonic() + DEADLINE
        while not said:  # A watches @releaseDomain
            assert time.monotonic() < end, f"no event of {what}"
            self._lines["A"].put(self._frame(Op.READ, self.BARRIER))
            said = self._until("A", self._req_id, None, [])
        return said + self._others("A")


def unspell(text: str) -> bytes:
    if text == "-":
        return b""
    text = re.sub(r"\{(.)\*(\d+)\}", lambda m: m[1] * int(m[2]), text)
    return text.replace("|", "\0").replace("~", " ").encode("latin-1")


def spell(payload: bytes) -> str:
    text = payload.decode("latin-1").replace("\0", "|").replace("\n", "\\n") or "-"
    return text if len(text) <= 120 else f"{text[:40]}... ({len(payload)} bytes)"


def steps_of(case: Path) -> list[str]:
    return [line for line in case.read_text().splitlines() if line and line[0] not in " #"]


def expected(case: Path, kind: Kind) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for line in case.read_text().splitlines():
        if line.startswith(" "):
            tag, said = line.strip().split(" ", 1)
            if tag in ("=", TAGS[kind]):
                found[-1][1].append(said)
        elif line and line[0] != "#":
            found.append((line, []))
    return found


def speak(case: Path, server: RealServer | SimServer) -> list[tuple[str, list[str]]]:
    dialogue = Dialogue(server)
    return [(step, dialogue.step(step)) for step in steps_of(case)]


def record(case: Path) -> None:
    said: dict[str, list[tuple[str, list[str]]]] = {}
    kinds: tuple[Kind, ...] = ("c", "ocaml")
    for kind in kinds:
        with run_xenstored(kind) as daemon:
            server = RealServer(daemon)
            said[kind] = speak(case, server)
            server.close()
    lines, at = [], 0
    for line in case.read_text().splitlines():
        if line.startswith(" "):
            continue
        lines.append(line)
        if line and line[0] != "#":
            c, ml = said["c"][at][1], said["ocaml"][at][1]
            at += 1
            if c == ml:
                lines += [f"    = {each}" for each in c]
            else:
                lines += [f"    c {each}" for each in c] + [f"    ml {each}" for each in ml]
    case.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", ["c", "ocaml"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_simulation_says_what_the_real_one_said(case: Path, kind: Kind) -> None:
    assert speak(case, SimServer(kind)) == expected(case, kind)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("c", marks=pytest.mark.rig("xenstored")),
        pytest.param("ocaml", marks=pytest.mark.rig("oxenstored")),
    ],
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_real_one_says_it_still(case: Path, kind: Kind) -> None:
    if os.environ.get("XENMESH_RECORD"):
        record(case)
    with run_xenstored(kind) as daemon:
        server = RealServer(daemon)
        try:
            assert speak(case, server) == expected(case, kind)
        finally:
            server.close()


def test_transcripts_are_there() -> None:
    assert len(CASES) >= 15
    assert all(steps_of(case) for case in CASES)
