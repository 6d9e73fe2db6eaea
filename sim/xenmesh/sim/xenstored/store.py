"""The engine: a request of a client in, its reply and everyone's watch events out. No IO, no clock.

`Store.handle(client, incoming)` does one request and writes what follows into the clients' `ServerConnection`s, in the
order of the dialect; `Store.busy` are the clients with something to send. `Store.do` is the same for callers inside the
process, without bytes.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from xenmesh.sim.xenstored.dialect import C, Dialect
from xenmesh.sim.xenstored.errors import Refused
from xenmesh.sim.xenstored.transaction import Overlay, Replay, View
from xenmesh.sim.xenstored.tree import DOM0_ONLY, OWNER, READ, WRITE, Node, Perms, Tree, names_of, parent_of
from xenmesh.sim.xenstored.watches import Change, Watch, Watches, readable
from xenmesh.xenstore import messages as m
from xenmesh.xenstore.errors import PathError, PayloadError
from xenmesh.xenstore.packets import PAYLOAD_MAX, Op
from xenmesh.xenstore.paths import INTRODUCE_DOMAIN, RELEASE_DOMAIN, validate
from xenmesh.xenstore.server import Incoming, ServerConnection

__all__ = ["Client", "Store"]

_HOME = re.compile(r"/local/domain/[0-9]+/").match
_NODE_HEADER, _NODE_PERM = 24, 8
_NO_PATH_LIMIT = 1 << 20
_ALWAYS_EVENTS_FIRST = frozenset((Op.TRANSACTION_END, Op.INTRODUCE, Op.RELEASE))
_DOM0_OPS = frozenset((Op.INTRODUCE, Op.RELEASE, Op.RESUME, Op.SET_TARGET, Op.IS_DOMAIN_INTRODUCED))
_IGNORES_TRANSACTION = (m.Watch, m.Unwatch)


class Client:
    """One connection: who it is, what it watches, its transactions, and the wire it hangs on."""

    def __init__(self, serial: int, wire: ServerConnection) -> None:
        self.serial = serial
        self.domid = wire.domid
        self.target: int | None = None
        self.wire = wire
        self.watches: dict[tuple[str, bytes], Watch[Client]] = {}
        self.transactions: dict[int, Overlay | Replay] = {}
        self.next_transaction = 1

    @property
    def privileged(self) -> bool:
        """Whether it is dom0."""
        return self.domid == 0

    def mask(self, perms: Perms) -> int:
        """Return what it may do to a node of these permissions; a stub domain may do what its target may."""
        mask = perms.mask(self.domid)
        return mask if self.target is None else mask | perms.mask(self.target)


@dataclass
class _Domain:
    """A domain that was introduced."""

    shut_down: bool = False
    target: int | None = None
    features: int | None = None


class Store:
    """The whole xenstored but its sockets.

    `exists` says whether the hypervisor has a domain (C xenstored asks before it takes permissions); by default all do.
    `on_busy` is called when a client has something to send, and nobody is just handling a request of its own.
    `on_drop` is called with a client whose connection the server ends. `eagain_every`: that many commits, and one
    fails. `control` answers CONTROL: (client, arguments) to text, or raises Refused.
    """

    def __init__(self, dialect: Dialect = C, exists: Callable[[int], bool] = lambda _: True) -> None:
        self.dialect = dialect
        self.quotas = dialect.quotas.copy()
        self.domain_quotas: dict[int, dict[str, int | None]] = {}
        self.clients: set[Client] = set()
        self.busy: set[Client] = set()
        self.eagain_every = 0
        self.requests = 0
        self.dropped_events = 0
        self.on_busy: Callable[[], None] | None = None
        self.on_drop: Callable[[Client], None] | None = None
        self.control: Callable[[Client, tuple[bytes, ...]], str] | None = None
        self._exists = exists
        self._watches: Watches[Client] = Watches(newest_first=dialect.newest_watch_first)
        self._events: list[tuple[Watch[Client], str]] = []
        self._commits = 0
        self._serial = 0
        self._requests: dict[type, Callable[..., bytes]] = {
            m.Read: self._read,
            m.Write: self._write,
            m.Directory: self._directory,
            m.DirectoryPart: self._directory_part,
            m.Mkdir: self._mkdir,
            m.Rm: self._rm,
            m.GetPerms: self._get_perms,
            m.SetPerms: self._set_perms,
        }
        self._others: dict[type, Callable[..., bytes]] = {
            m.Watch: self._watch,
            m.Unwatch: self._unwatch,
            m.TransactionStart: self._transaction_start,
            m.TransactionEnd: self._transaction_end,
            m.ResetWatches: self._reset_watches,
            m.GetDomainPath: self._get_domain_path,
            m.Introduce: self._introduce,
            m.Release: self._release,
            m.Resume: self._resume,
            m.SetTarget: self._set_target,
            m.IsDomainIntroduced: self._is_domain_introduced,
            m.Control: self._control,
            m.GetFeature: self._get_feature,
            m.SetFeature: self._set_feature,
            m.GetQuota: self._get_quota,
            m.SetQuota: self._set_quota,
        }
        self._start()

    def _start(self) -> None:
        self.tree = Tree()
        self.domains: dict[int, _Domain] = {0: _Domain()}
        self._specials = {INTRODUCE_DOMAIN: DOM0_ONLY, RELEASE_DOMAIN: DOM0_ONLY}
        for path, value in self.dialect.first_nodes:
            self._create(self.tree, None, path, value)

    # clients

    def connect(self, domid: int = 0) -> Client:
        """Return a new connection of domain `domid`."""
        self._serial += 1
        client = Client(self._serial, ServerConnection(domid, self.dialect.wire))
        domain = self.domains.get(domid)
        client.target = domain.target if domain else None
        self.clients.add(client)
        return client

    def disconnect(self, client: Client) -> None:
        """Forget a connection, with its watches and transactions."""
        if client in self.clients:
            self._forget(client)
            self.clients.discard(client)
            self.busy.discard(client)

    def _forget(self, client: Client) -> None:
        for watch in client.watches.values():
            self._watches.remove(watch)
        client.watches.clear()
        client.transactions.clear()

    def limit(self, client: Client, name: str) -> int | None:
        """Return a quota as it holds for this client; None: no limit."""
        if client.privileged:
            return None
        own = self.domain_quotas.get(client.domid)
        if own is not None and name in own:
            return own[name]
        value: int | None = getattr(self.quotas, name)
        return value

    # requests

    def handle(self, client: Client, incoming: Incoming) -> None:
        """Do one request: the reply and the events go to the wires."""
        self.requests += 1
        message = incoming.message
        wire = client.wire
        try:
            if isinstance(message, PayloadError):
                message = self._bear(client, incoming, message)
            payload = self._run(client, incoming.tx_id, message)
        except Refused as refused:
            self._events.clear()
            wire.fail(incoming, refused.code)
            self.busy.add(client)
            return
        if not self._events:
            wire.reply(incoming, payload)
        elif type(message) is m.Watch or not (self.dialect.events_first or incoming.op in _ALWAYS_EVENTS_FIRST):
            wire.reply(incoming, payload)
            self._send_events()
        else:
            self._send_events()
            wire.reply(incoming, payload)
        self.busy.add(client)

    def _bear(self, client: Client, incoming: Incoming, flawed: PayloadError) -> m.AnyRequest:
        """Return what a request that cannot be read is taken for. Raises Refused, as a rule."""
        if incoming.op == Op.CONTROL and self.dialect.guest_control:
            return m.Control(())
        if incoming.op in _DOM0_OPS and not client.privileged:
            raise Refused("EACCES")
        if incoming.op == Op.TRANSACTION_END and incoming.tx_id and incoming.tx_id not in client.transactions:
            raise Refused(self.dialect.stale_transaction)
        raise Refused(flawed.code)

    def do(self, client: Client, message: m.AnyRequest, tx_id: int = 0) -> bytes:
        """Do one request of a caller in this process; return the reply's payload. Raises Refused."""
        self.requests += 1
        try:
            payload = self._run(client, tx_id, message)
        except Refused:
            self._events.clear()
            raise
        self.announce()
        return payload

    def announce(self) -> None:
        """Send the events that wait, and have `on_busy` called if there were any."""
        if self._events:
            self._send_events()
            if self.on_busy is not None:
                self.on_busy()

    def _run(self, client: Client, tx_id: int, message: m.AnyRequest) -> bytes:
        kind = type(message)
        request = self._requests.get(kind)
        if tx_id == 0 or kind in _IGNORES_TRANSACTION:
            if request is None:
                return self._others[kind](client, tx_id, message)
            return request(client, self.tree, message)
        transaction = client.transactions.get(tx_id)
        if transaction is None:
            raise Refused(self.dialect.stale_transaction)
        if isinstance(transaction, Replay):
            transaction.requests += 1
            most = self.limit(client, "requests")
            if most is not None and transaction.requests > most:
                raise Refused(self.dialect.quota_error)
        if request is None:
            return self._others[kind](client, tx_id, message)
        if isinstance(transaction, Overlay):
            return request(client, transaction, message)
        before = len(transaction.changes)
        try:
            payload = request(client, transaction, message)
        except Refused as refused:
            transaction.asked.append((message, refused.code.encode()))
            raise
        transaction.asked.append((message, payload))
        self._note(client, transaction, message, before)
        return payload

    def _note(self, client: Client, transaction: Replay, message: m.AnyRequest, before: int) -> None:
        """Take note of where in the tree a transaction has worked; `before`: how many changes it had made."""
        if isinstance(message, (m.Read, m.Directory, m.GetPerms)):
            transaction.note_read(self._path(client, message.path))
        elif len(transaction.changes) > before:
            path = transaction.changes[-1][0]
            transaction.note_write(path if isinstance(message, (m.SetPerms, m.Write)) else parent_of(path))

    # paths and permissions

    def _path(self, client: Client, path: str) -> str:
        """Return the absolute path of a request's. Raises Refused."""
        try:
            validate(path, _NO_PATH_LIMIT)
        except PathError:
            raise Refused("EINVAL") from None
        first = path[0]
        if first == "@":
            if not self.dialect.special_nodes:
                raise Refused("EINVAL")
            path = "/" + path
        elif first != "/":
            if len(path) > self.dialect.path_max:
                raise Refused("EINVAL")
            return f"/local/domain/{client.domid}/{path}"
        if len(path) > self.dialect.path_max:
            home = _HOME(path)
            if len(path) - (home.end() if home else 0) > self.dialect.path_max:
                raise Refused("EINVAL")
        return path

    def _node(self, client: Client, view: View, path: str, need: int) -> Node:
        """Return the node, on which the client has the rights `need`. Raises Refused."""
        node = view.get(path)
        if node is None:
            if self.dialect.hides_absence and not client.mask(self._nearest(view, path)[1].perms) & need:
                raise Refused("EACCES")
            raise Refused("ENOENT")
        if client.domid and client.mask(node.perms) & need != need:
            raise Refused("EACCES")
        return node

    def _nearest(self, view: View, path: str) -> tuple[str, Node]:
        """Return the nearest node above a path where there is none, and its path."""
        while True:
            path = parent_of(path)
            node = view.get(path)
            if node is not None:
                return path, node

    def _create(self, view: View, client: Client | None, path: str, value: bytes) -> None:
        """Make a node, and those above that are missing. Raises Refused."""
        above, nearest = self._nearest(view, path)
        perms = nearest.perms
        missing = names_of(path)[len(names_of(above)) :]
        if client is not None and not client.privileged:
            if not client.mask(perms) & WRITE:
                raise Refused("EACCES")
            if self.dialect.creator_owns:
                perms = perms.owned_by(client.domid)
            most = self.limit(client, "nodes")
            if most is not None and view.owned_by(client.domid) + len(missing) > most:
                raise Refused(self.dialect.quota_error)
            if self.dialect.counts_node:
                self._check_size(client, nearest.value, nearest.perms, [*nearest.children, missing[0]])
        if client is not None:
            self._check_size(client, value, perms, ())
        for name in missing[:-1]:
            above = f"{above}/{name}" if above != "/" else f"/{name}"
            view.add(above, b"", perms)
        view.add(path, value, perms)

    def _check_size(self, client: Client, value: bytes, perms: Perms, children: Iterable[str]) -> None:
        dialect = self.dialect
        if client.privileged:
            if dialect.dom0_limited and self.quotas.node_size is not None and len(value) > self.quotas.node_size:
                raise Refused(dialect.size_error)
            return
        most = self.limit(client, "node_size")
        if most is None:
            return
        if dialect.counts_node:
            names = sum(len(name) + 1 for name in children)
            if _NODE_HEADER + _NODE_PERM * len(perms.entries) + len(value) + names >= most:
                raise Refused(dialect.size_error)
        elif len(value) > most:
            raise Refused(dialect.size_error)

    # nodes

    def _read(self, client: Client, view: View, message: m.Read) -> bytes:
        return self._node(client, view, self._path(client, message.path), READ).value

    def _names(self, client: Client, view: View, path: str) -> tuple[Node, bytes]:
        node = self._node(client, view, self._path(client, path), READ)
        names = sorted(node.children) if self.dialect.sorted_children else node.children
        return node, "".join(name + "\0" for name in names).encode("ascii")

    def _directory(self, client: Client, view: View, message: m.Directory) -> bytes:
        names = self._names(client, view, message.path)[1]
        if self.dialect.directory_max is not None and len(names) > self.dialect.directory_max:
            raise Refused("E2BIG")
        return names

    def _directory_part(self, client: Client, view: View, message: m.DirectoryPart) -> bytes:
        if self.dialect.guest_control and not client.privileged:
            raise Refused("EACCES")
        node, names = self._names(client, view, message.path)
        head = b"%d\0" % node.generation
        rest = names[message.offset :]
        room = PAYLOAD_MAX - len(head) - 1
        if len(rest) <= room:
            return head + rest + b"\0"
        return head + rest[: rest.rindex(b"\0", 0, room + 1) + 1]

    def _get_perms(self, client: Client, view: View, message: m.GetPerms) -> bytes:
        return _spell(self._node(client, view, self._path(client, message.path), READ).perms)

    def _write(self, client: Client, view: View, message: m.Write) -> bytes:
        path = self._path(client, message.path)
        node = view.get(path)
        if node is None:
            self._create(view, client, path, message.value)
        else:
            if client.domid and not client.mask(node.perms) & WRITE:
                raise Refused("EACCES")
            children = node.children if self.dialect.counts_node and client.domid else ()
            self._check_size(client, message.value, node.perms, children)
            view.set_value(path, message.value)
        self._changed(view, path)
        return m.OK

    def _mkdir(self, client: Client, view: View, message: m.Mkdir) -> bytes:
        path = self._path(client, message.path)
        node = view.get(path)
        if node is not None:
            if client.domid and not client.mask(node.perms) & WRITE:
                raise Refused("EACCES")
            return m.OK
        self._create(view, client, path, b"")
        self._changed(view, path)
        return m.OK

    def _rm(self, client: Client, view: View, message: m.Rm) -> bytes:
        path = self._path(client, message.path)
        try:
            self._node(client, view, path, WRITE)
        except Refused as refused:
            if refused.code != "ENOENT" or view.get(parent_of(path)) is None:
                raise
            return m.OK
        if path == "/":
            self._remove_root(view)
            return m.OK
        self._remove(view, path)
        return m.OK

    def _remove(self, view: View, path: str) -> None:
        if isinstance(view, Tree):
            before = view.snapshot()
            gone = before.get(path)
            view.remove(path)
            if self.dialect.rm_fires_absent:
                self._tell(Change(path, "tree", (before,)))
            elif gone is not None:
                views = (before, view)
                # Deepest first, each node after all below it.
                for below, _ in _children_first(path, gone):
                    self._tell(Change(below, "node" if below == path else "exact", views))
        else:
            view.remove(path)
            self._changed(view, path, "rm")

    def _remove_root(self, view: View) -> None:
        if not self.dialect.may_remove_root or isinstance(view, Overlay):
            raise Refused("EINVAL")
        if isinstance(view, Tree):
            before = view.snapshot()
            view.clear()
            self._tell(Change("/", "tree", (before,)))
        elif isinstance(view, Replay):
            view.clear()
            self._changed(view, "/", "rm")

    def _set_perms(self, client: Client, view: View, message: m.SetPerms) -> bytes:
        perms = Perms(message.perms)
        if message.path[:1] == "@" and not self.dialect.special_nodes:
            if not client.privileged:
                raise Refused("EACCES")
            if message.path not in self._specials:
                raise Refused("ENOENT")
            self._specials[message.path] = perms
            return m.OK
        path = self._path(client, message.path)
        most = self.limit(client, "perms")
        if most is not None and len(perms.entries) > most:
            raise Refused(self.dialect.quota_error)
        node = self._node(client, view, path, WRITE | OWNER)
        if not client.privileged and perms.owner != node.perms.owner:
            raise Refused(self.dialect.owner_error)
        if self.dialect.checks_domains and not all(self._known(domid) for _, domid in perms.entries):
            raise Refused("ENOENT")
        if self.dialect.counts_node and client.domid:
            self._check_size(client, node.value, perms, node.children)
        if isinstance(view, Tree):
            before = view.snapshot()
            view.set_perms(path, perms)
            self._tell(Change(path, "node", (before, view)))
        else:
            view.set_perms(path, perms)
            self._changed(view, path, "perms")
        return m.OK

    def _known(self, domid: int) -> bool:
        return domid in self.domains or self._exists(domid)

    # events

    def _changed(self, view: View, path: str, how: str = "write") -> None:
        """Tell of a change now, or at the transaction's commit."""
        if isinstance(view, Tree):
            self._tell(Change(path, "node", (view,)))
        elif isinstance(view, Overlay):
            view.fire(path)
        elif isinstance(view, Replay):
            view.changes.append((path, how))

    def _tell(self, change: Change) -> None:
        always = not self.dialect.rm_fires_absent
        for watch, path in self._watches.seeing(change):
            if path == "/" and not self.dialect.root_fires:
                continue
            if (always and watch.client.domid == 0) or readable(watch.client, path, change.views):
                self._events.append((watch, path))

    def _tell_special(self, name: str, domid: int) -> None:
        for watch in self._watches.on(name):
            if self._sees_special(watch.client, name):
                self._events.append((watch, f"{name}/{domid}" if watch.depth else name))
        if self.dialect.depth:
            for watch in self._watches.on(f"{name}/{domid}"):
                if self._sees_special(watch.client, name):
                    self._events.append((watch, watch.absolute))

    def _sees_special(self, client: Client, name: str) -> bool:
        if self.dialect.special_nodes:
            return readable(client, "/" + name, (self.tree,))
        return bool(client.mask(self._specials[name]) & READ)

    def _send_events(self) -> None:
        events = self._events
        self._events = []
        for watch, path in events:
            client = watch.client
            most = self.limit(client, "events")
            if most is not None and client.wire.queued >= most:
                self.dropped_events += 1
                continue
            client.wire.fire(watch.spelt(path) if path[0] == "/" else path, watch.token)
            self.busy.add(client)

    # watches

    def _watch_path(self, client: Client, path: str) -> str:
        limit = self.dialect.watch_path_max
        if path[:1] == "@":
            if limit is not None and len(path) > limit:
                raise Refused("EINVAL")
            return path
        try:
            validate(path, _NO_PATH_LIMIT)
        except PathError:
            raise Refused("EINVAL") from None
        absolute = path if path[0] == "/" else f"/local/domain/{client.domid}/{path}"
        home = _HOME(absolute)
        if limit is not None and len(absolute) - (home.end() if home else 0) > limit:
            raise Refused("EINVAL")
        return absolute

    def _watch(self, client: Client, _tx_id: int, message: m.Watch) -> bytes:
        depth = message.depth
        if depth is not None and (not self.dialect.depth or (message.path[:1] == "@" and depth != 1)):
            raise Refused("EINVAL")
        absolute = self._watch_path(client, message.path)
        key = (absolute, message.token)
        if key in client.watches:
            raise Refused("EEXIST")
        most = self.limit(client, "watches")
        if most is not None and len(client.watches) > most:
            raise Refused(self.dialect.watch_quota_error)
        self._serial += 1
        watch = Watch(client, message.path, message.token, absolute, self._serial, depth)
        client.watches[key] = watch
        self._watches.add(watch)
        self._events.append((watch, absolute))
        return m.OK

    def _unwatch(self, client: Client, _tx_id: int, message: m.Unwatch) -> bytes:
        watch = client.watches.pop((self._watch_path(client, message.path), message.token), None)
        if watch is None:
            raise Refused("ENOENT")
        self._watches.remove(watch)
        return m.OK

    def _reset_watches(self, client: Client, _tx_id: int, _message: m.ResetWatches) -> bytes:
        self._forget(client)
        return m.OK

    # transactions

    def _transaction_start(self, client: Client, tx_id: int, _message: m.TransactionStart) -> bytes:
        if tx_id:
            raise Refused("EBUSY")
        most = self.limit(client, "transactions")
        if most is not None and len(client.transactions) > most:
            raise Refused(self.dialect.quota_error)
        new = client.next_transaction
        client.next_transaction += 1
        if self.dialect.snapshot_transactions:
            client.transactions[new] = Replay(self.tree)
        else:
            client.transactions[new] = Overlay(self.tree, self.limit(client, "touched"), self.dialect.quota_error)
        return b"%d\0" % new

    def _transaction_end(self, client: Client, tx_id: int, message: m.TransactionEnd) -> bytes:
        transaction = client.transactions.pop(tx_id, None)
        if transaction is None:
            raise Refused("ENOENT")
        if not message.commit:
            return m.OK
        self._commits += 1
        if self.eagain_every and self._commits % self.eagain_every == 0:
            raise Refused("EAGAIN")
        changes = transaction.commit() if isinstance(transaction, Overlay) else self._commit_replay(client, transaction)
        if changes is None:
            raise Refused("EAGAIN")
        for change in changes:
            self._tell(change)
        return m.OK

    def _commit_replay(self, client: Client, transaction: Replay) -> list[Change] | None:
        if not transaction.changes:
            return []
        if not transaction.current:
            separate = transaction.separate
            again = Replay(self.tree)
            client.next_transaction += 1
            for message, answer in transaction.asked:
                try:
                    payload = self._requests[type(message)](client, again, message)
                except Refused as refused:
                    payload = refused.code.encode()
                if payload != answer and not separate:
                    return None
            transaction = again
        return transaction.apply()

    # domains

    def _only_dom0(self, client: Client) -> None:
        if not client.privileged:
            raise Refused("EACCES")

    def _get_domain_path(self, _client: Client, _tx_id: int, message: m.GetDomainPath) -> bytes:
        return b"/local/domain/%d\0" % message.domid

    def _is_domain_introduced(self, client: Client, _tx_id: int, message: m.IsDomainIntroduced) -> bytes:
        self._only_dom0(client)
        return b"T\0" if message.domid in self.domains else b"F\0"

    def _introduce(self, client: Client, _tx_id: int, message: m.Introduce) -> bytes:
        self._only_dom0(client)
        if message.port == 0 or (message.domid == 0 and self.dialect.special_nodes):
            raise Refused("EINVAL")
        self._add_domain(message.domid)
        return m.OK

    def _add_domain(self, domid: int) -> None:
        if domid not in self.domains:
            self.domains[domid] = _Domain()
            self._tell_special(INTRODUCE_DOMAIN, domid)

    def introduce(self, domid: int) -> None:
        """Take in a new domain without anyone's request: @introduceDomain fires."""
        self._add_domain(domid)
        self.announce()

    def _release(self, client: Client, _tx_id: int, message: m.Release) -> bytes:
        self._only_dom0(client)
        if message.domid == 0:
            raise Refused(self.dialect.release_dom0)
        if message.domid not in self.domains:
            raise Refused(self.dialect.unknown_domain)
        self._drop_domain(message.domid)
        return m.OK

    def _resume(self, client: Client, _tx_id: int, message: m.Resume) -> bytes:
        self._only_dom0(client)
        if message.domid == 0 and not self.dialect.resumes_dom0:
            raise Refused("EINVAL")
        domain = self.domains.get(message.domid)
        if domain is None:
            raise Refused(self.dialect.unknown_domain)
        domain.shut_down = False
        return m.OK

    def _set_target(self, client: Client, _tx_id: int, message: m.SetTarget) -> bytes:
        self._only_dom0(client)
        domain = self.domains.get(message.domid)
        if domain is None or message.domid == 0:
            raise Refused("ENOENT")
        if self.dialect.target_error is not None and message.target not in self.domains:
            raise Refused(self.dialect.target_error)
        domain.target = message.target
        for each in self.clients:
            if each.domid == message.domid:
                each.target = message.target
        return m.OK

    def shut_down(self, domid: int) -> None:
        """Take note that the hypervisor says a domain has shut down or crashed; @releaseDomain fires once for it."""
        domain = self.domains.get(domid)
        if domain is not None and not domain.shut_down:
            domain.shut_down = True
            self._tell_special(RELEASE_DOMAIN, domid)
            self.announce()

    def gone(self, domid: int) -> None:
        """Take note that the hypervisor has destroyed a domain: its connections end, @releaseDomain fires."""
        if domid in self.domains:
            self._drop_domain(domid)
            self.announce()

    def _drop_domain(self, domid: int) -> None:
        del self.domains[domid]
        self.domain_quotas.pop(domid, None)
        for client in [client for client in self.clients if client.domid == domid]:
            self.disconnect(client)
            if self.on_drop is not None:
                self.on_drop(client)
        self._purge(domid)
        self._tell_special(RELEASE_DOMAIN, domid)

    def _purge(self, domid: int) -> None:
        """Remove the nodes that a domain owns; else its domid's next bearer would have them (XSA-322)."""
        for path, node in self.tree.of(domid):
            if node.perms.owner == domid and self.tree.get(path) is not None:
                if self.dialect.purge_fires:
                    self._remove(self.tree, path)
                else:
                    self.tree.remove(path)
        if self.dialect.forgets_perms:
            for path, node in self.tree.of(domid):
                first, *others = node.perms.entries
                self.tree.set_perms(path, Perms((first, *(entry for entry in others if entry.domid != domid))))

    # the daemon itself

    def _control(self, client: Client, _tx_id: int, message: m.Control) -> bytes:
        if not self.dialect.guest_control:
            self._only_dom0(client)
        if self.control is not None:
            return self.control(client, message.arguments).encode() + b"\0"
        return m.OK

    def _get_feature(self, client: Client, _tx_id: int, message: m.GetFeature) -> bytes:
        features = self.dialect.features
        if message.domid is not None:
            self._only_dom0(client)
            domain = self.domains.get(message.domid)
            if domain is None:
                raise Refused("ENOENT")
            features = domain.features if domain.features is not None else features
        return b"%d\0" % features

    def _set_feature(self, client: Client, _tx_id: int, message: m.SetFeature) -> bytes:
        self._only_dom0(client)
        domain = self.domains.get(message.domid)
        if domain is None:
            raise Refused("ENOENT")
        if message.value & ~self.dialect.features:
            raise Refused("EINVAL")
        domain.features = message.value
        return m.OK

    def _get_quota(self, client: Client, _tx_id: int, message: m.GetQuota) -> bytes:
        names = self.quotas.names()
        if message.quota is None:
            return " ".join(names).encode() + b"\0"
        if message.quota not in names:
            raise Refused("EINVAL")
        value = getattr(self.quotas, message.quota)
        if message.domid is not None:
            self._only_dom0(client)
            if message.domid not in self.domains:
                raise Refused("ENOENT")
            value = self.domain_quotas.get(message.domid, {}).get(message.quota, value)
        return b"%d\0" % (value or 0)

    def _set_quota(self, client: Client, _tx_id: int, message: m.SetQuota) -> bytes:
        self._only_dom0(client)
        if message.quota not in self.quotas.names():
            raise Refused("EINVAL")
        value = message.value or None
        if message.domid is None:
            self.quotas.set(message.quota, value)
        elif message.domid not in self.domains:
            raise Refused("ENOENT")
        else:
            self.domain_quotas.setdefault(message.domid, {})[message.quota] = value
        return m.OK

    def live_update(self) -> None:
        """Become a new server: connections and watches stay, transactions do not; oxenstored loses partial requests."""
        for client in self.clients:
            client.transactions.clear()
            if self.dialect.snapshot_transactions:
                client.wire.forget_partial()

    def restart(self) -> None:
        """Become a new and empty server, as after a crash: every connection ends, all is forgotten."""
        for client in list(self.clients):
            self.disconnect(client)
            if self.on_drop is not None:
                self.on_drop(client)
        self.domain_quotas.clear()
        self._start()


def _spell(perms: Perms) -> bytes:
    return "".join(f"{access.value}{domid}\0" for access, domid in perms.entries).encode("ascii")


def _children_first(path: str, node: Node) -> list[tuple[str, Node]]:
    """Return (path, node) of a node and all below, each after those below it."""
    found = []
    stack = [(path, node)]
    while stack:
        path, node = stack.pop()
        found.append((path, node))
        stack += [(f"{path}/{name}", child) for name, child in node.children.items()]
    return found[::-1]
