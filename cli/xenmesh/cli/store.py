"""`xenmesh store`: xenstore, read through the store service: no root, no xenstored socket, secrets left out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import anyio

from xenmesh.bus.consumer import Snapshot, ask
from xenmesh.bus.errors import Refused
from xenmesh.schemas import store
from xenmesh.schemas.envelope import Envelope, Item
from xenmesh.schemas.subjects import DECLARATIONS, area_of

from . import numbers, times
from .commands import below
from .context import Mesh, add_options, connect
from .errors import CommandError, NotFound, UsageError
from .exits import Exit
from .lines import clock, name_of, value_of
from .naming import each, list_of, path_called
from .output import Printer, Span, Style
from .output import add_options as add_output
from .records import event_record, mark
from .stream import listen

__all__ = ["DESCRIPTION", "ENDLESS", "EXAMPLES", "options", "run"]

DESCRIPTION = """Read xenstore through the mesh. It needs no root and no access to xenstored; secrets (VNC passwords and the like) are not shown.

A PATH is absolute, or begins with a domain's name, domid or uuid: web-1/data is /local/domain/5/data."""

EXAMPLES = """
xenmesh store ls                               # the root
xenmesh store ls -r web-1                      # a domain's tree, as xenstore-ls shows it
xenmesh store ls -r -p /local/domain/5/device  # with permissions
xenmesh store read web-1/data/os_name
xenmesh store read /local/domain/5/name -o json
xenmesh store watch web-1/device               # changes, until Ctrl-C
"""

ENDLESS = True  # store watch; ls and read that are cut short print no more than they have


def options(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="ls|read|watch")
    ls = below(verbs, "ls", "list what lies below a path")
    ls.add_argument("path", nargs="?", default="/", metavar="PATH", help="where to look (default: /)")
    ls.add_argument("-r", "--recursive", action="store_true", help="all that lies below, as xenstore-ls does")
    ls.add_argument("-p", "--perms", action="store_true", help="with permissions: owner first, n none, r read, w write, b both")
    ls.add_argument("-f", "--full", action="store_true", help="full paths")
    read = below(verbs, "read", "print values")
    read.add_argument("paths", nargs="+", metavar="PATH", help="whose value")
    read.add_argument("--raw", action="store_true", help="the bytes of one value as they are, without a newline")
    watch = below(verbs, "watch", "print changes as they happen")
    watch.add_argument("paths", nargs="*", default=["/"], metavar="PATH", help="at or below which (default: everywhere)")
    watch.add_argument("--snapshot", action="store_true", help="first what is there now")
    watch.add_argument("--for", dest="seconds", metavar="TIME", help="end after this time: 30s, 5m")
    watch.add_argument("-n", "--count", type=numbers.count, metavar="N", help="end after N changes")
    for verb in (ls, read, watch):
        add_output(verb)
        add_options(verb)


async def run(args: argparse.Namespace, out: Printer) -> int:
    """Connect, and ls, read or watch."""
    async with connect(args) as mesh:
        match args.verb:
            case "ls":
                return await ls(mesh, out, args.path, recursive=args.recursive, perms=args.perms, full=args.full)
            case "read":
                return await read(mesh, out, args.paths, raw=args.raw)
            case _:
                try:
                    seconds = times.seconds(args.seconds) if args.seconds else None
                except ValueError as error:
                    raise UsageError(str(error)) from None
                with anyio.move_on_after(seconds):
                    await watch(mesh, out, args.paths, snapshot=args.snapshot, count=args.count)
                return Exit.CUT if out.cut else Exit.OK


async def ls(mesh: Mesh, out: Printer, path: str, *, recursive: bool, perms: bool, full: bool) -> int:
    """The children of a path, or all below it.

    Raises:
        NotFound: there is no such node.
    """
    top = await path_called(mesh, path)
    listing = await list_of(mesh, top)
    if listing is None:
        raise NotFound(f"there is no {top} in xenstore")
    await _below(mesh, out, listing, 0, recursive=recursive, perms=perms, full=full)
    return Exit.OK


async def _below(
    mesh: Mesh, out: Printer, listing: store.Listing, depth: int, *, recursive: bool, perms: bool, full: bool
) -> None:
    if listing.truncated:
        out.gap(f"xenstored could not list all of {listing.path}", mark("gap", {"path": listing.path, "why": "truncated"}))
    parent = listing.path.rstrip("/")
    paths = [f"{parent}/{name}" for name in listing.names]
    nodes = await each(mesh, paths)
    for path, node in zip(paths, nodes, strict=True):
        if node is None:
            continue  # gone since it was listed
        allowed = await _perms(mesh, path) if perms else None
        name = path if full else path.rpartition("/")[2]
        line: list[Span | str] = [" " * (0 if full else depth), Span(name, Style.KEY), Span(" = ", Style.DIM)]
        if allowed:
            line = [
                " " * (0 if full else depth),
                Span(name, Style.KEY),
                Span(f" ({','.join(allowed)})", Style.DIM),
                Span(" = ", Style.DIM),
            ]
        record = {**_record(node), **({"perms": allowed} if perms else {})}
        out.line([*line, *value_of(node.value, node.raw, node.size, redacted=node.redacted)], record, path)
        if recursive and (inside := await list_of(mesh, path)) is not None and inside.names:
            await _below(mesh, out, inside, depth + 1, recursive=True, perms=perms, full=full)


def _record(node: store.Node) -> dict[str, object]:
    return {"path": node.path, "value": node.value, "raw": node.raw, "size": node.size, "redacted": node.redacted}


async def _perms(mesh: Mesh, path: str) -> list[str]:
    try:
        return (await ask(mesh.bus, mesh.host, "store", "perms", store.PermsOf(path=path), store.Perms)).perms
    except Refused as error:
        if error.code == "not-found":
            return []
        raise


async def read(mesh: Mesh, out: Printer, paths: list[str], *, raw: bool) -> int:
    """The values of some nodes.

    Raises:
        NotFound: one of them does not exist; those before it are printed.
    """
    if raw and len(paths) != 1:
        raise UsageError("--raw takes one PATH")
    for text in paths:
        path = await path_called(mesh, text)
        node = (await each(mesh, [path]))[0]
        if node is None:
            raise NotFound(
                f"there is no {path} in xenstore", f"see what there is: xenmesh store ls {path.rpartition('/')[0] or '/'}"
            )
        if raw:
            return _write_raw(node)
        prefix: list[Span | str] = [Span(path, Style.KEY), Span(" = ", Style.DIM)] if len(paths) > 1 else []
        if node.value is not None and len(paths) == 1 and not node.redacted:
            prefix = [node.value]
            out.line(prefix, _record(node), path)
        else:
            out.line([*prefix, *value_of(node.value, node.raw, node.size, redacted=node.redacted)], _record(node), path)
    return Exit.OK


def _write_raw(node: store.Node) -> int:
    data = node.raw if node.raw is not None else (node.value or "").encode()
    if node.redacted:
        raise CommandError(f"{node.path} is a secret and not told")
    if len(data) < node.size:
        raise CommandError(f"{node.path} has {node.size} bytes, of which the service tells {len(data)}")
    if sys.stdout.isatty() and not data.decode(errors="replace").isprintable():
        raise CommandError("the value has bytes that a terminal should not see", "send them into a pipe, or leave out --raw")
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return Exit.OK


async def watch(mesh: Mesh, out: Printer, paths: list[str], *, snapshot: bool, count: int | None) -> None:
    """Changes at or below the paths, until cancelled or until so many were shown."""
    tops = [await path_called(mesh, path) for path in paths]
    owners = {_owner(top) for top in tops}
    owner = owners.pop() if len(owners) == 1 else None
    left = count if count is not None else -1
    began = False
    async with listen(mesh, [DECLARATIONS["store"]], owner=owner, own=False) as told:
        async for each_told in told:
            match each_told.what:
                case Snapshot() as first:
                    if began:
                        out.gap(
                            f"store: changes were missed ({first.why}); the state was read again",
                            mark("gap", {"service": "store", "why": first.why}),
                        )
                    for item in first.items if snapshot else ():
                        if _within(item, tops):
                            out.line(
                                _line(None, item),
                                mark("item", {"service": "store", "boot": first.boot, "seq": first.seq, "item": item}),
                                name_of(item),
                            )
                    began = True
                case Envelope() as event:
                    if _within(event.event, tops):
                        out.line(
                            _line(event.time, event.event),
                            event_record(mesh.host, each_told.subject, event),
                            name_of(event.event),
                        )
                        left -= 1
                        if left == 0:
                            return
                case _:
                    pass


def _owner(path: str) -> str | None:
    """The one owner under which all changes below ``path`` are told; None where there are several."""
    domid, area = area_of(path)
    if domid is not None:
        return f"store.{domid}" if path.startswith("/local/") else None
    return "store.host" if area in {"vm", "tool"} else None


def _within(item: Item, tops: list[str]) -> bool:
    if not isinstance(item, store.Changed | store.Removed):
        return False
    removed = isinstance(item, store.Removed)
    return any(
        top == "/" or item.path == top or item.path.startswith(f"{top}/") or (removed and top.startswith(f"{item.path}/"))
        for top in tops
    )


def _line(time: float | None, item: Item) -> list[Span | str]:
    return list(_spans(time, item))


def _spans(time: float | None, item: Item) -> Iterator[Span | str]:
    if time is not None:
        yield Span(clock(time), Style.DIM)
        yield "  "
    match item:
        case store.Changed(path=path, value=value, raw=raw, size=size, redacted=redacted):
            yield Span(path, Style.KEY)
            yield Span(" = ", Style.DIM)
            yield from value_of(value, raw, size, redacted=redacted)
        case store.Removed(path=path):
            yield Span(path, Style.KEY)
            yield Span(" removed", Style.WARN)
        case _:
            pass
