"""xenstore spoken by hand over a blocking socket: nothing of ours stands between a test and the daemon.

Not a test: `from mesh.raw import ...`; tests/ is on the path.
"""

import random
import socket
import struct
import threading
from pathlib import Path

__all__ = ["SECRET", "Raw", "RefusedError", "Writer", "dump"]

DIRECTORY, READ, START, END, INTRODUCE, WRITE, RM, SET_PERMS = 1, 2, 6, 7, 8, 11, 13, 14
_ERROR = 16
_HEADER = struct.Struct("=IIII")

SECRET = "hunter2"
"""The value of every vncpasswd that a `Writer` writes."""


class RefusedError(Exception):
    """xenstored answered with an error; its name is the argument."""


class Raw:
    """One connection, one request at a time. Raises OSError when the daemon goes."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def ask(self, op: int, payload: bytes, transaction: int = 0) -> bytes:
        self._socket.sendall(_HEADER.pack(op, 1, transaction, len(payload)) + payload)
        answer, _, _, size = _HEADER.unpack(self._exactly(_HEADER.size))
        data = self._exactly(size)
        if answer == _ERROR:
            raise RefusedError(data.rstrip(b"\0").decode())
        return data

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise ConnectionResetError("xenstored went away")
            data += part
        return data

    def write(self, path: str, value: str, transaction: int = 0) -> None:
        self.ask(WRITE, path.encode() + b"\0" + value.encode(), transaction)

    def rm(self, path: str) -> None:
        self.ask(RM, path.encode() + b"\0")

    def read(self, path: str) -> str:
        return self.ask(READ, path.encode() + b"\0").decode()

    def names(self, path: str) -> list[str]:
        return [name.decode() for name in self.ask(DIRECTORY, path.encode() + b"\0").split(b"\0") if name]

    def own(self, path: str, domid: int) -> None:
        self.ask(SET_PERMS, path.encode() + b"\0n%d\0r0\0" % domid)

    def introduce(self, domid: int) -> None:
        self.ask(INTRODUCE, b"%d\0001\0001\0" % domid)

    def start(self) -> int:
        return int(self.ask(START, b"\0").rstrip(b"\0"))

    def end(self, transaction: int) -> None:
        self.ask(END, b"T\0", transaction)


def dump(path: Path) -> dict[str, str]:
    """All that xenstored holds in the trees that the store service watches. The store must be at rest."""
    raw = Raw(path)
    try:
        tops = [top for top in ("/vm", "/libxl", "/tool") if top[1:] in raw.names("/")]
        if "local" in raw.names("/") and "domain" in raw.names("/local"):
            tops += [f"/local/domain/{name}" for name in raw.names("/local/domain")]
        found: dict[str, str] = {}
        while tops:
            node = tops.pop()
            found[node] = raw.read(node)
            tops += [f"{node}/{name}" for name in raw.names(node)]
        return found
    finally:
        raw.close()


def uuid_of(domid: int) -> str:
    return f"6d1b6e7e-0000-4000-8000-{domid:012d}"


class Writer(threading.Thread):
    """Writes without an end, in many ways: keys written again and again and keys written once, in transactions and without, subtrees taken
    away and made anew. When xenstored goes it connects again and writes on; what it had written is then no longer expected."""

    DOMIDS = range(1, 7)
    _ONCE = 400
    """Keys written once are this many to a domain, then they come round: below every cap."""

    _PACE = 0.0005

    def __init__(self, path: Path, seed: int) -> None:
        super().__init__(name="writer", daemon=True)
        self._path = path
        self._random = random.Random(seed)
        self._end = threading.Event()
        self._raw: Raw | None = None
        self.written = 0
        """Requests that xenstored acknowledged."""

        self.connections = 0
        self.values: dict[str, str] = {}
        """What the store must hold of what was written."""

        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._end.wait(self._PACE):
                try:
                    self._step(self._connected())
                    self.written += 1
                except OSError:
                    self._lose()
        except BaseException as error:
            self.error = error
            raise
        finally:
            self._lose()

    def finish(self) -> dict[str, str]:
        """Stop; returns what the store must hold."""
        self._end.set()
        self.join(20)
        assert not self.is_alive()
        assert self.error is None
        return self.values

    def _connected(self) -> Raw:
        if self._raw is None:
            raw = Raw(self._path)
            self._raw, self.values = raw, {}
            self.connections += 1
            for domid in self.DOMIDS:
                self._write(raw, f"/local/domain/{domid}/vm", f"/vm/{uuid_of(domid)}")
                self._write(raw, f"/vm/{uuid_of(domid)}/vncpasswd", SECRET)
        return self._raw

    def _lose(self) -> None:
        if self._raw is not None:
            self._raw.close()
            self._raw = None

    def _write(self, raw: Raw, path: str, value: str, transaction: int = 0) -> None:
        raw.write(path, value, transaction)
        self.values[path] = value

    def _step(self, raw: Raw) -> None:
        chance, number = self._random, self.written
        home = f"/local/domain/{chance.choice(self.DOMIDS)}"
        match chance.randrange(40):
            case 0:
                top = f"{home}/data/tree"
                try:
                    raw.rm(top)
                except RefusedError as error:
                    if str(error) != "ENOENT":
                        raise
                self.values = {path: value for path, value in self.values.items() if not path.startswith(f"{top}/")}
            case 1 | 2:
                paths = [f"{home}/device/vif/{n}/state" for n in range(3)]
                transaction = raw.start()
                for path in paths:
                    raw.write(path, f"{number}", transaction)
                raw.end(transaction)
                self.values |= dict.fromkeys(paths, f"{number}")
            case 3 | 4 | 5:
                self._write(raw, f"{home}/data/tree/{chance.randrange(3)}/{chance.randrange(3)}", f"{number}")
            case 6:
                self._write(raw, f"/tool/test/k{chance.randrange(5)}", f"{number}")
            case 7:
                self._write(raw, f"/libxl/{chance.choice(self.DOMIDS)}/device/{chance.randrange(3)}", f"{number}")
            case 8:
                self._write(raw, f"/vm/{uuid_of(chance.choice(self.DOMIDS))}/name", f"{number}")
            case n if n < 16:
                self._write(raw, f"{home}/attr/once/{number % self._ONCE}", f"{number}")
            case _:
                self._write(raw, f"{home}/data/k{chance.randrange(8)}", f"{number}")
