"""A client inside the process: the same engine, permissions and quotas, without bytes in between."""

from collections.abc import Callable
from contextlib import suppress

from xenmesh.sim.xenstored.errors import Refused
from xenmesh.sim.xenstored.store import Store
from xenmesh.xenstore import messages as m
from xenmesh.xenstore.packets import HEADER_SIZE
from xenmesh.xenstore.perms import Perm

__all__ = ["Session"]

_TRIES = 16


class Session:
    """Speaks for one domain. All methods raise Refused with the server's code."""

    def __init__(self, store: Store, domid: int = 0) -> None:
        self._store = store
        self.domid = domid
        self._client = store.connect(domid)
        self._tx = 0

    def read(self, path: str) -> bytes:
        """Return a node's value."""
        return self._store.do(self._client, m.Read(path), self._tx)

    def children(self, path: str) -> list[str]:
        """Return the names below a node, however many."""
        return m.Directory(path).parse_reply(self._store.do(self._client, m.Directory(path), self._tx))

    def write(self, path: str, value: str | bytes | int = b"") -> None:
        """Set a node's value."""
        data = value if isinstance(value, bytes) else str(value).encode()
        self._store.do(self._client, m.Write(path, data), self._tx)

    def write_all(self, below: str, values: dict[str, str | int]) -> None:
        """Set the values of nodes below one."""
        for name, value in values.items():
            self.write(f"{below}/{name}", value)

    def mkdir(self, path: str) -> None:
        """Make a node if it is not there."""
        self._store.do(self._client, m.Mkdir(path), self._tx)

    def rm(self, path: str) -> None:
        """Remove a node and all below; one that is not there is no matter."""
        try:
            self._store.do(self._client, m.Rm(path), self._tx)
        except Refused as refused:
            if refused.code != "ENOENT":
                raise

    def set_perms(self, path: str, *perms: str) -> None:
        """Set a node's permissions: "n0", "r5"."""
        self._store.do(self._client, m.SetPerms(path, tuple(Perm.parse(perm) for perm in perms)), self._tx)

    def exists(self, path: str) -> bool:
        """Whether there is such a node that may be read."""
        with suppress(Refused):
            self.read(path)
            return True
        return False

    def introduce(self, domid: int) -> None:
        """Tell the server of a domain."""
        self._store.do(self._client, m.Introduce(domid, gfn=1, port=1), self._tx)

    def release(self, domid: int) -> None:
        """Have the server drop a domain."""
        self._store.do(self._client, m.Release(domid), self._tx)

    def watch(self, path: str, token: str) -> None:
        """Watch a node; see `events`."""
        self._store.do(self._client, m.Watch(path, token.encode()))

    def events(self) -> list[m.WatchEvent]:
        """Return the watch events that have come since the last call."""
        frames = self._client.wire.frames_to_send()
        return [m.WatchEvent.parse(frame[HEADER_SIZE:]) for frame in frames]

    def atomically(self, body: Callable[[], None]) -> None:
        """Run `body`, whose requests are one transaction; again where the commit meets a conflict."""
        for attempt in range(_TRIES):
            start = m.TransactionStart()
            self._tx = start.parse_reply(self._store.do(self._client, start))
            try:
                body()
            except BaseException:
                self._end(commit=False)
                raise
            try:
                self._end(commit=True)
                return
            except Refused as refused:
                if refused.code != "EAGAIN" or attempt == _TRIES - 1:
                    raise

    def _end(self, *, commit: bool) -> None:
        tx, self._tx = self._tx, 0
        self._store.do(self._client, m.TransactionEnd(commit=commit), tx)

    def close(self) -> None:
        """End the connection."""
        self._store.disconnect(self._client)
