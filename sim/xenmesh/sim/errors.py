"""What can go wrong in the simulated host.

    SimError
    ├── SocketError         the socket cannot be had
    │   ├── PathTooLong     choose a shorter directory
    │   ├── SocketInUse     another server lives there: stop it, or choose another directory
    │   └── SocketRefused   the system does not let us make it: see `why`
    └── FaultError          a fault that is unknown or has a bad argument

Each has `code` and `facts`.
"""

from collections.abc import Mapping

__all__ = ["FaultError", "PathTooLong", "SimError", "SocketError", "SocketInUse", "SocketRefused"]


class SimError(Exception):
    """Base of all errors of this room. `code` is a fixed word, `facts` what it is about."""

    code = "sim"

    def __init__(self, sentence: str, **facts: str | int) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.facts: Mapping[str, str | int] = facts


class SocketError(SimError):
    """The socket cannot be made."""

    code = "socket"


class PathTooLong(SocketError):  # noqa: N818 - says what is the case
    """A unix socket's path has at most 107 bytes."""

    code = "path_too_long"

    def __init__(self, path: str, length: int, limit: int) -> None:
        super().__init__(
            f"the socket's path has {length} bytes, at most {limit} fit; choose a shorter directory: {path}",
            path=path,
            length=length,
            limit=limit,
        )


class SocketInUse(SocketError):  # noqa: N818
    """A living server answers on that socket."""

    code = "socket_in_use"

    def __init__(self, path: str) -> None:
        super().__init__(f"another server answers on {path}; stop it, or choose another directory", path=path)


class SocketRefused(SocketError):  # noqa: N818
    """The system does not let us make it. `why`: its words."""

    code = "socket_refused"

    def __init__(self, path: str, why: str) -> None:
        super().__init__(
            f"the socket cannot be made: {why}; mend that, or choose another directory: {path}", path=path, why=why
        )


class FaultError(SimError):
    """A fault to be injected that is none."""

    code = "fault"
