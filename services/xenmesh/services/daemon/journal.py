"""The log: to journald by its native protocol where it reads our stderr, as one readable line a message everywhere else.

Messages go through `logging` as ever. What is about a domain or an event says so in ``extra``: ``domain_id=5``, ``domain_uuid=...``,
``event="store.changed"`` become the fields ``DOMAIN_ID=``, ``DOMAIN_UUID=``, ``EVENT=`` (``journalctl DOMAIN_ID=5``). ``SERVICE=`` is the
service in whose task the message was made.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import TextIO

__all__ = ["SERVICE", "SOCKET", "JournalHandler", "LineFormatter", "datagram", "handler", "reads_stderr"]

SOCKET = Path("/run/systemd/journal/socket")

SERVICE: ContextVar[str] = ContextVar("service", default="")
"""The service whose task is running; inherited by the tasks that it starts."""

_FIELDS = {"domain_id": "DOMAIN_ID", "domain_uuid": "DOMAIN_UUID", "event": "EVENT", "service": "SERVICE"}
_IDENTIFIER = "xenmeshd"
_CLOEXEC_SEALABLE = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
_ALL_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def handler() -> logging.Handler:
    """The right one for this process."""
    if reads_stderr():
        return JournalHandler()
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(LineFormatter(sys.stderr))
    return lines


def reads_stderr() -> bool:
    """Whether journald is what our stderr leads to: ``$JOURNAL_STREAM`` names its device and inode (systemd.exec(5))."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        stderr = os.fstat(2)
    except OSError:
        return False
    return (device, inode) == (str(stderr.st_dev), str(stderr.st_ino)) and SOCKET.exists()


def datagram(fields: dict[str, str]) -> bytes:
    """``fields`` in journald's native protocol: ``KEY=value`` lines; a value of several lines is preceded by its length, 64-bit little-endian."""
    parts = []
    for key, value in fields.items():
        name, data = key.encode(), value.encode("utf-8", "backslashreplace")
        if b"\n" in data:
            parts += [name, b"\n", len(data).to_bytes(8, "little"), data, b"\n"]
        else:
            parts += [name, b"=", data, b"\n"]
    return b"".join(parts)


def _fields(record: logging.LogRecord) -> dict[str, str]:
    found = {"service": SERVICE.get(), **vars(record)}
    return {name: str(found[key]) for key, name in _FIELDS.items() if found.get(key) not in (None, "")}


def _priority(level: int) -> int:
    """Of syslog."""
    for least, priority in ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6)):
        if level >= least:
            return priority
    return 7


class JournalHandler(logging.Handler):
    """Sends each record as one datagram. Never waits: what journald does not take at once is dropped, and counted in the next (``DROPPED=``)."""

    def __init__(self, address: Path = SOCKET) -> None:
        super().__init__()
        self._address = str(address)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Send it."""
        try:
            fields = {
                "MESSAGE": self.format(record),
                "PRIORITY": str(_priority(record.levelno)),
                "SYSLOG_IDENTIFIER": _IDENTIFIER,
                "LOGGER": record.name,
                "CODE_FILE": record.pathname,
                "CODE_LINE": str(record.lineno),
                "CODE_FUNC": record.funcName or "",
                **_fields(record),
            }
            if self.dropped:
                fields["DROPPED"] = str(self.dropped)
            self._send(datagram(fields))
            self.dropped = 0
        except OSError:
            self.dropped += 1
        except Exception:  # noqa: BLE001 - a record that cannot be formatted: logging's own way to say so
            self.handleError(record)

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()
        super().close()

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendto(data, self._address)
        except OSError as error:
            # EMSGSIZE, or ENOBUFS from some kernels: too long for a datagram. journald then takes a sealed memory file.
            if len(data) < 1 << 16:
                raise
            self._send_file(data, error)

    def _send_file(self, data: bytes, error: OSError) -> None:
        file = os.memfd_create("xenmesh-log", _CLOEXEC_SEALABLE)
        try:
            if os.write(file, data) != len(data):
                raise error
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, _ALL_SEALS)
            # Not socket.send_fds: Python 3.11's leaves the address out.
            self._socket.sendmsg(
                [], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, file.to_bytes(4, sys.byteorder))], 0, self._address
            )
        finally:
            os.close(file)


_COLOURS = {"WARNING": "\033[33m", "ERROR": "\033[31m", "CRITICAL": "\033[1;31m"}


class LineFormatter(logging.Formatter):
    """``12:03:04.567 warning store: xenstored is away [DOMAIN_ID=5]``, in colour on a terminal. A traceback follows on lines of its own."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self._colour = stream.isatty() and "NO_COLOR" not in os.environ

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """One line; control characters of untrusted text are shown, not sent to the terminal."""
        fields = _fields(record)
        source = fields.pop("SERVICE", "")
        about = " ".join(f"{key}={value}" for key, value in fields.items())
        message = f"{source}: {record.message}" if source else record.message
        text = f"{message} [{about}]" if about else message
        shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
        level = record.levelname.lower()
        if self._colour and record.levelname in _COLOURS:
            level = f"{_COLOURS[record.levelname]}{level}\033[0m"
        return f"{self.formatTime(record, self.datefmt)}.{int(record.msecs):03d} {level} {shown}"
