"""Listing a directory of any length: DIRECTORY, and piece by piece where that is refused as too big."""

from __future__ import annotations

from xenmesh.xenstore.errors import ListingError, ReplyError, ServerError
from xenmesh.xenstore.messages import Directory, DirectoryPart

__all__ = ["Listing"]

RESTARTS = 32
"""How often a directory may change under us before we give up."""


class Listing:
    """A listing under way. Send `request`; give the answer to `answered` or `refused`; send the new `request` while they return None."""

    def __init__(self, path: str) -> None:
        self.request: Directory | DirectoryPart = Directory(path)
        self._path = path
        self._generation: str | None = None
        self._names: list[str] = []
        self._restarts = 0

    def answered(self, payload: bytes) -> list[str] | None:
        """Take the payload of an answer; return the names once all are there.

        Raises ReplyError for nonsense, ListingError("unsteady") when the directory never keeps still.
        """
        request = self.request
        if isinstance(request, Directory):
            return request.parse_reply(payload)
        part = request.parse_reply(payload)
        if part.generation != self._generation and request.offset:
            self._restarts += 1
            if self._restarts > RESTARTS:
                raise ListingError(self._path, "unsteady")
            self._names.clear()
            self.request = DirectoryPart(self._path, 0)
            return None
        self._generation = part.generation
        self._names += part.names
        if part.last:
            return self._names
        if not part.names:
            raise ReplyError("a part of a directory that holds nothing and is not the last")
        self.request = DirectoryPart(self._path, request.offset + part.size)
        return None

    def refused(self, error: ServerError) -> None:
        """Take the server's refusal.

        Raises `error` again if it is final; ListingError("unsupported") if the list is too big and the server (oxenstored
        4.17; the newer one towards a guest) does not give it in parts.
        """
        if isinstance(self.request, Directory):
            if error.code != "E2BIG":
                raise error
            self.request = DirectoryPart(self._path, 0)
        elif error.code in ("ENOSYS", "EACCES", "EPERM"):
            raise ListingError(self._path, "unsupported") from error
        else:
            raise error
