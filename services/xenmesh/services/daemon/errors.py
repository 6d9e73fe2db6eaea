"""What can keep the daemon from running, and whose fault it is.

    DaemonError
    ├── ConfigError        the operator's: a file, a key or a value that cannot be; exit 78
    │   └── CredentialError    a key is missing or cannot be read
    ├── HostIdError        the world's: the host's id can neither be read nor made; exit 73
    ├── BusAway            the world's: no bus within the time given; exit 69
    └── ServiceFailed      ours: a service ended by itself; exit 70

Each has a ``sentence`` that tells what to do, and the ``status`` that the process ends with. Statuses are those of sysexits.h, so that
systemd names them and a unit can leave a process down whose configuration is wrong (RestartPreventExitStatus=).
"""

# ruff: noqa: N818 - the names say what is the case

from __future__ import annotations

from typing import ClassVar

__all__ = ["BusAway", "ConfigError", "CredentialError", "DaemonError", "HostIdError", "ServiceFailed"]


class DaemonError(Exception):
    """Base of all errors of this room."""

    status: ClassVar[int] = 70

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class ConfigError(DaemonError):
    """``where`` (a file, or a variable of the environment) holds, at ``key``, what cannot be; ``why`` names what could."""

    status = 78

    def __init__(self, where: str, key: str, why: str) -> None:
        super().__init__(f"{where}: {key}: {why}" if key else f"{where}: {why}")
        self.where = where
        self.key = key
        self.why = why


class CredentialError(ConfigError):
    """The key of a service for the bus cannot be had."""


class HostIdError(DaemonError):
    """The host has no id."""

    status = 73


class BusAway(DaemonError):
    """No connection to the bus came about."""

    status = 69


class ServiceFailed(DaemonError):
    """``service`` ended by itself; the process follows, and systemd begins anew."""

    status = 70

    def __init__(self, service: str, why: str) -> None:
        super().__init__(f"the service {service} {why}")
        self.service = service
