"""How much a guest may have. None is "no limit". Dom0 is free of all but what the dialect says otherwise."""

from dataclasses import dataclass, fields, replace

__all__ = ["Quotas"]


@dataclass
class Quotas:
    """The limits of one server, all for each unprivileged domain. Defaults are C xenstored's.

    `nodes` owned; `node_size` bytes (what counts is the dialect's affair); `watches` (one more is let through: both
    servers compare before they count); `transactions` open at once (likewise one more); `touched`: nodes used in one
    transaction; `requests` in one transaction; `outstanding`: answers not yet taken, above which no more is read from
    the guest; `events`: watch events not yet taken, above which more are dropped; `perms` of one node; `unread`: seconds after which a guest that takes nothing is cut off.
    """

    nodes: int | None = 1000
    node_size: int | None = 2048
    watches: int | None = 128
    transactions: int | None = 10
    touched: int | None = 1024
    requests: int | None = None
    outstanding: int | None = 20
    events: int | None = 1024
    perms: int | None = 5
    unread: int | None = 20

    def copy(self) -> "Quotas":
        """Return limits of the same values, to be changed by themselves."""
        return replace(self)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all limits."""
        return tuple(each.name for each in fields(cls))

    def set(self, name: str, value: int | None) -> None:
        """Set one limit. Raises KeyError with its name if there is none such."""
        if name not in self.names():
            raise KeyError(name)
        setattr(self, name, value)
