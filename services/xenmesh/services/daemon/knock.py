"""A newcomer at a peer's door: is it the peer that is away, or only our connection to it? Each returns when the peer answered; raises or hangs
when it did not (the caller bounds it)."""

from __future__ import annotations

from pathlib import Path

import anyio

__all__ = ["at_bus", "at_xenstored"]

_REFUSAL = 0.2  # seconds within which a server that greets takes its welcome back


async def at_bus(url: str) -> None:
    """A greeting (``INFO``) that stands: a server that is full or shutting down takes it back at once.

    Raises:
        OSError: nobody greets there.
    """
    host, _, port = url.partition("://")[2].rpartition(":")
    async with await anyio.connect_tcp(host.strip("[]"), int(port)) as stream:
        try:
            greeting = await stream.receive()
            if not greeting.startswith(b"INFO "):
                raise ConnectionRefusedError(f"{url} is not a NATS server")
            while b"\r\n" not in greeting:
                greeting += await stream.receive(4096)
            with anyio.move_on_after(_REFUSAL):
                after = greeting.partition(b"\r\n")[2] or await stream.receive()
                if after.startswith(b"-ERR"):
                    raise ConnectionRefusedError(after.decode("utf-8", "replace").strip())
        except anyio.EndOfStream as error:
            raise ConnectionResetError(f"{url} hung up") from error


async def at_xenstored(path: Path | None) -> None:
    """One answer from xenstored over a connection of our own.

    Raises:
        XenstoreError: there is none to be had.
    """
    from xenmesh.xen.xenstore import Xenstore  # whoever knocks here has it loaded

    async with Xenstore.connect(None if path is None else str(path), reconnect=False) as store:
        await store.get_domain_path(0)
