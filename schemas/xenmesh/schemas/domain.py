"""What the domains service will say: a domain's whole state, what happens to it, and tasks. Shapes only, until that service is built."""

from __future__ import annotations

import enum

from .envelope import Event
from .errors import Failure

__all__ = [
    "Domain",
    "DomainEvent",
    "Lifecycle",
    "Power",
    "ShutdownReason",
    "Task",
    "TaskEvent",
    "TaskPhase",
    "Vanished",
]


class Power(enum.Enum):
    """What state a domain is in."""

    DEFINED = "defined"
    BUILDING = "building"
    PAUSED = "paused"
    RUNNING = "running"
    SHUTDOWN = "shutdown"
    SUSPENDED = "suspended"
    DYING = "dying"
    CRASHED = "crashed"


class ShutdownReason(enum.Enum):
    """Why a domain stopped running (xen/include/public/sched.h, SHUTDOWN_*)."""

    POWEROFF = "poweroff"
    REBOOT = "reboot"
    SUSPEND = "suspend"
    CRASH = "crash"
    WATCHDOG = "watchdog"
    SOFT_RESET = "soft_reset"


class Domain(Event, frozen=True, kw_only=True, tag="domain.state"):
    """``state.domain.<uuid>``: a domain as the host has it."""

    uuid: str
    name: str
    """Chosen by people or guests: untrusted text, never part of a subject."""

    domid: int | None
    power: Power
    reason: ShutdownReason | None = None
    memory: int = 0
    """KiB it has now."""

    memory_max: int = 0
    """KiB it may have."""

    vcpus: int = 0
    vcpus_max: int = 0
    ours: bool = False
    """False: made by xl, libvirt or another toolstack; seen, and may be acted on."""

    task: str | None = None
    """Id of the task that runs on it."""


class Lifecycle(Event, frozen=True, kw_only=True, tag="domain.lifecycle"):
    """``evt.domain.<uuid>.lifecycle``: a domain went from one power state to another."""

    uuid: str
    name: str
    domid: int | None
    before: Power | None
    after: Power
    reason: ShutdownReason | None = None


class Vanished(Event, frozen=True, kw_only=True, tag="domain.vanished"):
    """``evt.domain.<uuid>.vanished``: it is neither on the host nor defined any more."""

    uuid: str
    domid: int | None


class TaskPhase(enum.Enum):
    """Where a task is."""

    STARTED = "started"
    PROGRESS = "progress"
    ENDED = "ended"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Task(Event, frozen=True, kw_only=True, tag="task"):
    """``evt.task.<id>.<phase>``: an operation, or one named step of it, began, went on or ended."""

    id: str
    request_id: str
    verb: str
    uuid: str | None
    """The domain it works on."""

    phase: TaskPhase
    step: str | None = None
    progress: float = 0.0
    """0 to 1, of the whole operation."""

    error: Failure | None = None


DomainEvent = Lifecycle | Vanished
TaskEvent = Task
