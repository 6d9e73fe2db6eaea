"""What may stand in the place of the word being typed, asked of the mesh. Quick, and never an error: a shell waits for it."""

from __future__ import annotations

import argparse

import anyio

from xenmesh.bus.errors import BusError
from xenmesh.schemas.subjects import DECLARATIONS

from .context import Mesh, connect
from .errors import CommandError
from .main import first_error
from .naming import HOME, all_domains, list_of, path_called

__all__ = ["candidates"]

_PATIENCE = 1.5
"""Seconds that a shell waits at most."""

_LOOKED_INTO = 64
"""Nodes of which it is asked whether there is something below."""


async def candidates(kind: str, word: str, directory: str | None) -> list[str]:
    """The candidates of ``kind`` (DOMAIN, SERVICE, PATH, PATTERN), one a line; those with a control character are left out."""
    found = [name for name, each in DECLARATIONS.items() if each.built] if kind in {"SERVICE", "PATTERN"} else []
    if kind == "SERVICE":
        return found
    args = argparse.Namespace(dir=directory, url=None, creds=None, context=None, user=None, host=None)
    try:
        with anyio.move_on_after(_PATIENCE):
            async with connect(args) as mesh:
                found += await (_paths(mesh, word) if kind == "PATH" else _domains(mesh))
    except (CommandError, BusError):
        pass
    except BaseExceptionGroup as group:
        if not isinstance(first_error(group), CommandError | BusError):
            raise
    return [each for each in found if each.isprintable()]


async def _domains(mesh: Mesh) -> list[str]:
    domains = (await all_domains(mesh)).by_domid.values()
    names = [domain.untrusted_name for domain in domains if domain.untrusted_name]
    return [*names, *(str(domain.domid) for domain in domains)]


async def _paths(mesh: Mesh, word: str) -> list[str]:
    if "/" not in word:
        return [f"{name}/" for name in await _domains(mesh)] + [f"{HOME}/"]
    parent = word.rpartition("/")[0]
    path = await path_called(mesh, parent or "/")
    listing = await list_of(mesh, path)
    begun = word.rpartition("/")[2]
    names = [name for name in (listing.names if listing else []) if name.startswith(begun)]
    inside = [await list_of(mesh, f"{path.rstrip('/')}/{name}") for name in names[:_LOOKED_INTO]]
    leaves = {name for name, each in zip(names, inside, strict=False) if each is None or not each.names}
    return [f"{parent}/{name}" + ("" if name in leaves else "/") for name in names]
