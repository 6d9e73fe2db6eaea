"""Domains asked for by name, domid or uuid, and xenstore paths that begin with one. Asks the store service."""

from __future__ import annotations

import anyio

from xenmesh.bus.consumer import ask
from xenmesh.bus.errors import Refused
from xenmesh.schemas import store

from .context import Mesh
from .domains import Domain, Domains, is_domid
from .errors import NotFound, UsageError

__all__ = ["all_domains", "domain_called", "each", "path_called"]

HOME = "/local/domain"
_AT_ONCE = 12
"""Requests under way: fewer than a service carries out at once, so that others get their turn."""


async def read(mesh: Mesh, path: str) -> store.Node | None:
    """The node, or None where there is none."""
    try:
        return await ask(mesh.bus, mesh.host, "store", "read", store.Read(path=path), store.Node)
    except Refused as error:
        if error.code == "not-found":
            return None
        raise


async def list_of(mesh: Mesh, path: str) -> store.Listing | None:
    """The names of the node's children, or None where there is no such node."""
    try:
        return await ask(mesh.bus, mesh.host, "store", "list", store.List(path=path), store.Listing)
    except Refused as error:
        if error.code == "not-found":
            return None
        raise


async def each(mesh: Mesh, paths: list[str]) -> list[store.Node | None]:
    """The nodes, in the order of ``paths``; a few requests are under way at a time."""
    found: list[store.Node | None] = [None] * len(paths)
    limit = anyio.CapacityLimiter(_AT_ONCE)

    async def one(index: int) -> None:
        async with limit:
            found[index] = await read(mesh, paths[index])

    async with anyio.create_task_group() as group:
        for index in range(len(paths)):
            group.start_soon(one, index)
    return found


async def all_domains(mesh: Mesh) -> Domains:
    """The domains that xenstore holds now, with their names and uuids."""
    listing = await list_of(mesh, HOME)
    domids = [int(name) for name in (listing.names if listing else []) if is_domid(name)]
    names = await each(mesh, [f"{HOME}/{domid}/name" for domid in domids])
    homes = await each(mesh, [f"{HOME}/{domid}/vm" for domid in domids])
    domains = Domains()
    for domid, name, home in zip(domids, names, homes, strict=True):
        uuid = home.value.rpartition("/")[2] if home and home.value else None
        domains.by_domid[domid] = Domain(domid, uuid, name.value if name else None)
    return domains


async def domain_called(mesh: Mesh, word: str) -> Domain:
    """The one domain that ``word`` means.

    Raises:
        NotFound: there is none.
        UsageError: there are several.
    """
    if is_domid(word):
        nodes = await each(mesh, [f"{HOME}/{int(word)}", f"{HOME}/{int(word)}/name", f"{HOME}/{int(word)}/vm"])
        if nodes[0] is not None:
            name, home = nodes[1], nodes[2]
            uuid = home.value.rpartition("/")[2] if home and home.value else None
            return Domain(int(word), uuid, name.value if name else None)
    domains = await all_domains(mesh)
    found = domains.called(word)
    if not found:
        there = ", ".join(each.label for each in list(domains.by_domid.values())[:12]) or "none"
        more = " ..." if len(domains.by_domid) > 12 else ""
        raise NotFound(f"there is no domain {word}", f"there are: {there}{more}")
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} domains are called {word}: {', '.join(str(each.domid) for each in found)}", "use a domid"
        )
    return found[0]


async def path_called(mesh: Mesh, text: str) -> str:
    """The absolute path that ``text`` means: itself, or, where it does not begin with ``/``, below the domain its first element names.

    Raises:
        NotFound, UsageError: as `domain_called`.
    """
    if text.startswith("/"):
        return text.rstrip("/") or "/"
    word, _, rest = text.strip("/").partition("/")
    if not word:
        raise UsageError("an empty path", "a path begins with / or with a domain: web-1/data")
    domain = await domain_called(mesh, word)
    return f"{HOME}/{domain.domid}" + (f"/{rest}" if rest else "")
