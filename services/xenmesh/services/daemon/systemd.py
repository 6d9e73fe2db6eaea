"""What systemd is told: one datagram each (sd_notify(3)), and what it asks of us: the watchdog's interval."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

__all__ = ["Notifier", "watchdog_interval"]

_log = logging.getLogger(__name__)


class Notifier:
    """Speaks to the socket in ``$NOTIFY_SOCKET``; without one (a terminal, a test) says nothing to anybody."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))

    def ready(self) -> None:
        """Starting is over."""
        self._send("READY=1")

    def status(self, line: str) -> None:
        """One line for ``systemctl status``."""
        self._send("STATUS=" + line.replace("\n", " "))

    def stopping(self) -> None:
        """An orderly end has begun."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """The watchdog's sign: good for another interval."""
        self._send("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """While starting (or stopping): it takes longer, but not longer than ``seconds`` from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _send(self, text: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(1)
                sender.connect(self._address)
                sender.send(text.encode())
        except OSError as error:
            _log.warning("systemd was not told %s: %s", text.partition("=")[0], error)


def _address(given: str) -> str | None:
    if given.startswith("@"):
        return "\0" + given[1:]
    return given if given.startswith("/") else None


def watchdog_interval(environment: Mapping[str, str] = os.environ) -> float | None:
    """Seconds within which systemd wants a sign of life (WatchdogSec=); None: it wants none, or from another process."""
    text = environment.get("WATCHDOG_USEC", "")
    if not text.isdigit() or int(text) == 0:
        return None
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(text) / 1e6
