"""`xenmesh wait`: return when something is so. Driven by events: nothing is polled."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import anyio

from xenmesh.bus.consumer import Away, Snapshot, ask
from xenmesh.bus.errors import BusError
from xenmesh.schemas import store
from xenmesh.schemas.envelope import Envelope, Item
from xenmesh.schemas.request import Health, HealthReport
from xenmesh.schemas.service import Started
from xenmesh.schemas.subjects import DECLARATIONS

from . import times
from .commands import below
from .context import Mesh, add_options, connect
from .domains import Domain, Domains
from .errors import TimedOut, UsageError
from .exits import Exit
from .output import Printer, Style
from .output import add_options as add_output
from .stream import listen

__all__ = ["DESCRIPTION", "EXAMPLES", "options", "run"]

DESCRIPTION = """Wait until something is so, and return at once if it is so already. Driven by events, not by polling. What there is by then is
printed; with --timeout the exit code is 6 when it did not come about in time."""

EXAMPLES = """
xenmesh wait domain web-1                          # until it runs
xenmesh wait gone web-1 --timeout 2m               # until it has left
xenmesh wait key web-1/data/os_name                # until the key is there
xenmesh wait key web-1/device/vif/0/state 4        # until it has this value
xenmesh wait service store --timeout 10s           # until it takes requests
ip=$(xenmesh wait key web-1/attr/vif/0/ipv4/0 -o json | jq -r .value)
"""


def options(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    conditions = parser.add_subparsers(dest="condition", required=True, metavar="domain|gone|key|service")
    domain = below(conditions, "domain", "until xenstored knows the domain as running")
    domain.add_argument("domain", metavar="DOMAIN", help="its name, domid or uuid; it need not exist yet")
    gone = below(conditions, "gone", "until no such domain is left")
    gone.add_argument("domain", metavar="DOMAIN", help="its name, domid or uuid")
    key = below(conditions, "key", "until a key of xenstore exists, or has a value")
    key.add_argument(
        "path", metavar="PATH", help="absolute, or beginning with a domain, which need not exist yet: web-1/data/os_name"
    )
    key.add_argument("value", nargs="?", metavar="VALUE", help="the value to wait for (default: any)")
    service = below(conditions, "service", "until a service takes requests")
    service.add_argument(
        "service", metavar="SERVICE", help="its name: " + ", ".join(each.name for each in DECLARATIONS.values() if each.built)
    )
    service.add_argument("state", nargs="?", default="ready", choices=["ready"], metavar="STATE", help="ready (the default)")
    for each in (domain, gone, key, service):
        each.add_argument("--timeout", metavar="TIME", help="give up after this time: 30s, 5m (default: never)")
        add_output(each)
        add_options(each)


async def run(args: argparse.Namespace, out: Printer) -> int:
    """Connect and wait."""
    try:
        seconds = times.seconds(args.timeout) if args.timeout else None
    except ValueError as error:
        raise UsageError(str(error)) from None
    with anyio.move_on_after(seconds):
        async with connect(args) as mesh:
            match args.condition:
                case "domain":
                    await until_domain(mesh, out, args.domain)
                case "gone":
                    await until_gone(mesh, out, args.domain)
                case "key":
                    await until_key(mesh, out, args.path, args.value)
                case _:
                    await until_ready(mesh, args.service)
                    record = {"service": args.service, "ready": True}
                    out.line((f"{args.service} is ready",), record, args.service)
            return Exit.OK
    raise TimedOut(f"{_condition(args)}: it did not come about within {args.timeout}")


def _condition(args: argparse.Namespace) -> str:
    """What was waited for, as it was given."""
    match args.condition:
        case "domain" | "gone":
            words = [args.domain]
        case "key":
            words = [args.path, *([] if args.value is None else [args.value])]
        case _:
            words = [args.service, args.state]
    return " ".join([args.condition, *words])


async def until_domain(mesh: Mesh, out: Printer, word: str) -> None:
    """Until a domain called so is introduced to xenstored."""
    found: list[Domain] = []

    def there(state: _State) -> bool:
        found[:] = [domain for domain in state.domains.called(word) if domain.introduced]
        return bool(found)

    await _until(mesh, out, there)
    domain = found[-1]
    record = {"domid": domain.domid, "uuid": domain.uuid, "name": domain.untrusted_name}
    out.line((f"{domain.label} runs as domain {domain.domid}",), record, str(domain.domid))


async def until_gone(mesh: Mesh, out: Printer, word: str) -> None:
    """Until no domain is called so."""
    await _until(mesh, out, lambda state: not state.domains.called(word))
    out.line((f"{word} is gone",), {"domain": word, "gone": True}, word)


async def until_key(mesh: Mesh, out: Printer, text: str, value: str | None) -> None:
    """Until the key is there with that value (None: any).

    Raises:
        UsageError: the path cannot be one.
    """
    if not text.strip("/"):
        raise UsageError("the root always exists", "name a key: web-1/data/os_name")
    got: list[store.Changed] = []

    def there(state: _State) -> bool:
        for path in state.paths(text):
            node = state.nodes.get(path)
            if node is not None and (value is None or node.value == value):
                got[:] = [node]
                return True
        return False

    await _until(mesh, out, there)
    node = got[0]
    record = {"path": node.path, "value": node.value, "raw": node.raw, "size": node.size, "redacted": node.redacted}
    out.line((node.value if node.value is not None else node.path,), record, node.path)


async def until_ready(mesh: Mesh, name: str) -> None:
    """Until the service says that it takes requests.

    Raises:
        UsageError: no service has that name.
    """
    if name not in DECLARATIONS or not DECLARATIONS[name].built:
        raise UsageError(
            f"there is no service {name}", "there are: " + ", ".join(each.name for each in DECLARATIONS.values() if each.built)
        )
    async with listen(mesh, [DECLARATIONS[name]], streams=False) as told:
        await mesh.bus.settle()
        try:
            report = await ask(mesh.bus, mesh.host, name, "health", Health(), HealthReport)
            ready = report.ready and not report.lame_duck
        except BusError:
            ready = False  # it is not there yet: its first word will be heard
        while not ready:
            event = (await anext(told)).what
            ready = isinstance(event, Envelope) and isinstance(event.event, Started)


class _State:
    """What the store service has told so far."""

    def __init__(self) -> None:
        self.domains = Domains()
        self.nodes: dict[str, store.Changed] = {}

    def begin(self, items: list[Item]) -> None:
        """A snapshot: forget all else."""
        self.domains.clear()
        self.nodes.clear()
        for item in items:
            self.apply(item)

    def apply(self, item: Item) -> None:
        """One event or one item of a snapshot."""
        self.domains.apply(item)
        match item:
            case store.Changed(path=path):
                self.nodes[path] = item
            case store.Removed(path=path):
                below = f"{path}/"
                self.nodes = {each: node for each, node in self.nodes.items() if each != path and not each.startswith(below)}
            case _:
                pass

    def paths(self, text: str) -> list[str]:
        """The absolute paths that ``text`` may mean now."""
        if text.startswith("/"):
            return [text.rstrip("/")]
        word, _, rest = text.strip("/").partition("/")
        homes = [f"/local/domain/{domain.domid}" for domain in reversed(self.domains.called(word))]
        return [f"{home}/{rest}" if rest else home for home in homes]


async def _until(mesh: Mesh, out: Printer, so: Callable[[_State], bool]) -> None:
    """Until ``so`` holds of what the store service tells; a service that is away is waited for."""
    state = _State()
    async with listen(mesh, [DECLARATIONS["store"]], own=False) as told:
        async for each in told:
            match each.what:
                case Snapshot(items=items):
                    state.begin(items)
                case Envelope(event=event):
                    state.apply(event)
                case Away(why=why):
                    out.note(f"the store service is away ({why}); waiting for it", Style.WARN)
                    continue
                case _:
                    continue
            if so(state):
                return
