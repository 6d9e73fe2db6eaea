"""What can be asked of the store, and the same within a transaction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from xenmesh.xen.xenstore.session import Session
from xenmesh.xenstore.errors import OutcomeUnknown, ServerError, TransactionLostError
from xenmesh.xenstore.listing import Listing
from xenmesh.xenstore.messages import (
    GetPerms,
    Message,
    Mkdir,
    Read,
    Request,
    Rm,
    SetPerms,
    TransactionEnd,
    TransactionStart,
    Write,
)
from xenmesh.xenstore.perms import Perm

__all__ = ["Operations", "Transaction"]

R = TypeVar("R")


class Operations(ABC):
    """What can be asked inside and outside a transaction."""

    async def ask(self, message: Request[R]) -> R:
        """Send any request and return its answer. Raises ServerError, UsageError, LinkError."""
        return message.parse_reply(await self._ask_raw(message))

    @abstractmethod
    async def ask_all(self, messages: Sequence[Request[R]]) -> list[R | ServerError]:
        """Send many requests at once; return each answer or the server's refusal, in order."""

    async def read(self, path: str) -> bytes:
        """Return a node's value."""
        return await self.ask(Read(path))

    async def read_many(self, paths: Iterable[str]) -> list[bytes | ServerError]:
        """Read many nodes at once, pipelined: each value, or the server's refusal, in the order asked."""
        return await self.ask_all([Read(path) for path in paths])

    async def write(self, path: str, value: bytes | str) -> None:
        """Set a node's value; missing parents are made. Text is sent as UTF-8."""
        await self.ask(Write(path, value.encode() if isinstance(value, str) else value))

    async def mkdir(self, path: str) -> None:
        """Make an empty node, unless it exists."""
        await self.ask(Mkdir(path))

    async def rm(self, path: str) -> None:
        """Remove a node and all below."""
        await self.ask(Rm(path))

    async def directory(self, path: str) -> list[str]:
        """Return the names of a node's children, however many.

        Raises ListingError where the server refuses to give a long list, or the list never keeps still.
        """
        listing = Listing(path)
        names: list[str] | None = None
        while names is None:
            try:
                names = listing.answered(await self._ask_raw(listing.request))
            except ServerError as error:
                listing.refused(error)
        return names

    async def get_perms(self, path: str) -> list[Perm]:
        """Return a node's permissions, the owner first."""
        return await self.ask(GetPerms(path))

    async def set_perms(self, path: str, perms: Iterable[Perm]) -> None:
        """Set a node's permissions, the owner first."""
        await self.ask(SetPerms(path, tuple(perms)))

    @abstractmethod
    async def _ask_raw(self, message: Message) -> bytes:
        """Send a request and return its answer's payload."""


class Transaction(Operations):
    """A view of the store that others' changes do not reach, written as one or not at all.

    `async with`: commits at the block's end, drops it on an exception. Its methods raise TransactionLostError if the
    connection went: nothing was done then. The commit raises ConflictError when it met another (run it again: see
    `Xenstore.transact`), and OutcomeUnknown if the connection went while it was under way: then only the store can tell.
    """

    def __init__(self, current: Callable[[], Session]) -> None:
        self._current = current
        self._session: Session
        self._tx_id = 0

    async def __aenter__(self) -> Self:
        self._session = self._current()
        start = TransactionStart()
        self._tx_id = start.parse_reply(await self._ask_raw(start))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._session.post(TransactionEnd(commit=False), self._tx_id)
            return
        self._check()
        try:
            await self._session.send(TransactionEnd(commit=True), self._tx_id)
        except OutcomeUnknown as lost:
            if lost.sent:
                raise
            raise _nothing_done() from lost

    def _check(self) -> None:
        # On another connection the id would be nobody's, or somebody else's.
        if not self._session.open:
            raise _nothing_done()

    async def _ask_raw(self, message: Message) -> bytes:
        self._check()
        try:
            return await self._session.send(message, self._tx_id)
        except OutcomeUnknown as error:
            raise _nothing_done() from error

    async def ask_all(self, messages: Sequence[Request[R]]) -> list[R | ServerError]:
        """Send many requests within the transaction at once."""
        self._check()
        try:
            return await self._session.answers(messages, self._tx_id)
        except OutcomeUnknown as error:
            raise _nothing_done() from error


def _nothing_done() -> TransactionLostError:
    return TransactionLostError("the connection went before the commit; nothing was done")
