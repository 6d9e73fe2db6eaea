"""What CONTROL answers: a few commands of the real servers, and "sim" for everything that can be made to go wrong.

xenstore-control sim                  what there is, and how it is set
xenstore-control sim stall on|off     answer nothing (requests are still done)
xenstore-control sim refuse on|off    close new connections at once
xenstore-control sim delay SECONDS    before anything is sent
xenstore-control sim split on|off     send each byte by itself
xenstore-control sim reorder on|off   let the replies of one flush change places
xenstore-control sim oversize N       blow up the next N replies above 4096 bytes
xenstore-control sim cut-after BYTES  end the connection that gets the last of them
xenstore-control sim cut [DOMID]      end all connections (of one domain)
xenstore-control sim eagain N         let each N-th commit fail; 0: none
xenstore-control sim live-update      become a new server; connections and watches stay
xenstore-control sim restart          come back empty
xenstore-control sim introduce|shutdown|destroy DOMID
xenstore-control sim quota NAME N     0: no limit

(xenstore-control itself runs only on Xen; anywhere else, any client's CONTROL request with these words does the same.)

As C xenstored: check, print, log, memreport (nothing is logged), help, quota, quota DOMID, quota set NAME N. Not made: logfile and
live-update with a file, quota-soft, and the quota of memory: an account of bytes would be of Python's, not of C's.
As oxenstored: quota DOMID, and OK to all else.
"""

from collections.abc import Callable, Mapping

from xenmesh.sim.errors import FaultError
from xenmesh.sim.xenstored.errors import Refused
from xenmesh.sim.xenstored.faults import Faults
from xenmesh.sim.xenstored.store import Client, Store

__all__ = ["Control"]

_C_QUOTAS = {
    "nodes": "nodes",
    "watches": "watches",
    "transactions": "transactions",
    "outstanding": "outstanding",
    "transaction-nodes": "touched",
    "node-size": "node_size",
    "permissions": "perms",
}
"""C xenstored's names of quotas, and ours."""

_HELP = "check\nlog\ton|off\nmemreport\t[<file>]\nprint\t<string>\nquota\t[set <name> <val>|<domid>]\nhelp\n"


class Control:
    """The commands of one daemon. `cut` ends connections, of one domain or (None) all."""

    def __init__(self, store: Store, faults: Faults, cut: Callable[[int | None], None]) -> None:
        self._store = store
        self._faults = faults
        self._cut = cut

    def answer(self, client: Client, arguments: tuple[bytes, ...]) -> str:
        """Do a CONTROL request. Raises Refused."""
        words = [argument.decode("ascii", "replace") for argument in arguments if argument]
        if words[:1] == ["sim"] and client.privileged:
            try:
                return self.sim(*words[1:])
            except FaultError as error:
                raise Refused("EINVAL") from error
        return self._oxenstored(words) if self._store.dialect.guest_control else self._c_xenstored(words)

    def _c_xenstored(self, words: list[str]) -> str:
        match words:
            case ["help"]:
                return _HELP
            case ["quota"]:
                return self._quotas(_C_QUOTAS)
            case ["quota", "set", name, value] if name in _C_QUOTAS and value.isdigit():
                self._store.quotas.set(_C_QUOTAS[name], int(value) or None)
                return "OK"
            case ["quota", domid]:
                return self._account(int(domid) if domid.isdigit() else 0)
            case ["check"] | ["print", _] | ["log", "on" | "off"] | ["memreport"] | ["memreport", _]:
                return "OK"
            case _:
                raise Refused("EINVAL")

    def _account(self, domid: int) -> str:
        """What a domain has of each quota. Raises Refused."""
        store = self._store
        if domid not in store.domains:
            raise Refused("ENOENT")
        clients = [client for client in store.clients if client.domid == domid]
        has = {
            "nodes": store.tree.owned_by(domid),
            "watches": sum(len(client.watches) for client in clients),
            "transactions": sum(len(client.transactions) for client in clients),
            "outstanding": sum(client.wire.queued for client in clients) if domid else 0,
        }
        return f"Domain {domid}:\n" + "".join(f"{name:<16}: {count:8}\n" for name, count in has.items())

    def _oxenstored(self, words: list[str]) -> str:
        if words[:1] == ["quota"] and words[1:] and words[1].isdigit():
            domid = int(words[1])
            nodes = self._store.tree.owned_by(domid) - (domid == 0)  # "/" is nobody's
            return f"dom{domid} quota: {f'{nodes}/{self._store.quotas.nodes}' if nodes else 'not set'}"
        return "OK"

    def sim(self, command: str = "", *arguments: str) -> str:
        """Do one of the commands above; return what to show. Raises FaultError."""
        faults, store = self._faults, self._store
        try:
            match command, arguments:
                case "", ():
                    return self._status()
                case "stall" | "refuse" | "split" | "reorder", ("on" | "off" as switch,):
                    setattr(faults, command, switch == "on")
                    if command == "stall" and store.on_busy is not None:
                        store.on_busy()
                case "delay", (seconds,):
                    faults.delay = max(0.0, float(seconds))
                case "oversize", (count,):
                    faults.oversize = int(count)
                case "cut-after", (count,):
                    faults.cut_after = int(count)
                case "cut", ():
                    self._cut(None)
                case "cut", (domid,):
                    self._cut(int(domid))
                case "eagain", (count,):
                    store.eagain_every = int(count)
                case "live-update", ():
                    store.live_update()
                case "restart", ():
                    store.restart()
                case "introduce", (domid,):
                    store.introduce(int(domid))
                case "shutdown", (domid,):
                    store.shut_down(int(domid))
                case "destroy", (domid,):
                    store.gone(int(domid))
                case "quota", (name, value):
                    store.quotas.set(name, int(value) or None)
                case _:
                    raise FaultError(f"no such command: {command}", command=command)
        except (ValueError, KeyError) as error:
            raise FaultError(f"{command}: bad argument", command=command) from error
        return "OK"

    def _status(self) -> str:
        faults, store = self._faults, self._store
        return (
            f"dialect {store.dialect.name}, {len(store.clients)} connections, {len(store.domains)} domains, "
            f"{store.requests} requests, {store.dropped_events} events dropped\n{faults}\neagain {store.eagain_every}\n"
            f"{self._quotas({name: name for name in store.quotas.names()})}"
        )

    def _quotas(self, named: Mapping[str, str]) -> str:
        quotas = self._store.quotas
        return "".join(f"{shown:<17}: {getattr(quotas, name) or 'no limit':>8}\n" for shown, name in named.items())
