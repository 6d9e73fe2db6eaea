"""How the two real servers differ, as one table. Framing and reading are in xenmesh.xenstore.server's own.

Each entry was seen on the real programs (4.17.7, over their socket and their ring); tests/sim/test_conformance.py
holds both servers and this table to each other.
"""

from dataclasses import dataclass, field, replace

from xenmesh.sim.xenstored.quota import Quotas
from xenmesh.xenstore import server
from xenmesh.xenstore.packets import Op

__all__ = ["C_4_23", "DIALECTS", "OCAML", "OCAML_FORK", "C", "Dialect"]


@dataclass(frozen=True)
class Dialect:
    """One server's ways.

    Order of events: `events_first`: those of WRITE, MKDIR, RM and SET_PERMS come before the reply (those of a commit
    and of INTRODUCE and RELEASE always do, those of WATCH never). `newest_watch_first`: by place in the tree from "/"
    down, then the newest watch first (oxenstored); otherwise by connection and time of registration.
    `root_fires`: changes of "/" itself reach a watch on "/".
    `rm_fires_absent`: RM also fires watches set on names below that were never there.

    Transactions: `snapshot_transactions`: a transaction sees the store as it was at its start, and commits by being
    run again (oxenstored); otherwise it sees each node as at its own first look, and commits if none of those changed.

    Nodes: `sorted_children`: DIRECTORY is sorted by name, else by age. `special_nodes`: "@introduceDomain" is a node
    like any other, and "@name" a path for every request. `creator_owns`: a node made by a guest is the guest's,
    otherwise it has its parent's owner. `hides_absence`: ENOENT is told only to who may do the thing to the nearest
    node above, others get EACCES. `may_remove_root`: dom0's RM of "/" empties the store.
    `checks_domains`: SET_PERMS must name living domains only. `purge_fires`: watches see the nodes vanish that a
    released domain owned. `forgets_perms`: a released domain's entries leave the permissions of others' nodes.

    Errors: `stale_transaction`, `quota_error`, `watch_quota_error`, `owner_error` (a guest gives a node away),
    `size_error`, `unknown_domain` (RELEASE and RESUME of a stranger), `release_dom0`
    (`resumes_dom0`: RESUME of it is OK); `target_error`: SET_TARGET's
    for a target that was never introduced (None: it does not look).

    Limits: `path_max` below /local/domain/N (`watch_path_max`: the same for watches, None: any);
    `dom0_limited`: the node's size holds for dom0 too; `counts_node`: permissions and names of children count in it.
    `directory_max`: DIRECTORY above it is E2BIG.

    `depth`: WATCH may name one. `features`: GET_FEATURE's bits. `guest_control`: guests may send CONTROL (it answers
    OK to all). `first_nodes`: what is there at the start.
    """

    name: str
    wire: server.ServerDialect
    quotas: Quotas
    events_first: bool
    newest_watch_first: bool
    root_fires: bool
    rm_fires_absent: bool
    snapshot_transactions: bool
    sorted_children: bool
    special_nodes: bool
    creator_owns: bool
    hides_absence: bool
    may_remove_root: bool
    checks_domains: bool
    purge_fires: bool
    forgets_perms: bool
    stale_transaction: str
    quota_error: str
    watch_quota_error: str
    owner_error: str
    size_error: str
    unknown_domain: str
    release_dom0: str
    resumes_dom0: bool
    target_error: str | None
    path_max: int
    watch_path_max: int | None
    dom0_limited: bool
    counts_node: bool
    directory_max: int | None
    guest_control: bool
    depth: bool = False
    features: int = 0
    first_nodes: tuple[tuple[str, bytes], ...] = field(default=(("/tool/xenstored", b""),))


C = Dialect(
    name="c",
    wire=server.C,
    quotas=Quotas(),
    events_first=True,
    newest_watch_first=False,
    root_fires=True,
    rm_fires_absent=False,
    snapshot_transactions=False,
    sorted_children=False,
    special_nodes=False,
    creator_owns=True,
    hides_absence=True,
    may_remove_root=False,
    checks_domains=True,
    purge_fires=True,
    forgets_perms=False,
    stale_transaction="ENOENT",
    quota_error="ENOSPC",
    watch_quota_error="E2BIG",
    owner_error="EPERM",
    size_error="ENOSPC",
    unknown_domain="ENOENT",
    release_dom0="EINVAL",
    resumes_dom0=False,
    target_error="ENOENT",
    path_max=2048,
    watch_path_max=2048,
    dom0_limited=False,
    counts_node=True,
    directory_max=4096,
    guest_control=False,
)
"""C xenstored 4.17, Debian 12's."""

OCAML = Dialect(
    name="ocaml",
    wire=server.OCAML,
    quotas=Quotas(watches=100, perms=None, outstanding=1024, requests=1024, touched=None, unread=None),
    events_first=False,
    newest_watch_first=True,
    root_fires=False,
    rm_fires_absent=True,
    snapshot_transactions=True,
    sorted_children=True,
    special_nodes=True,
    creator_owns=False,
    hides_absence=False,
    may_remove_root=True,
    checks_domains=False,
    purge_fires=False,
    forgets_perms=True,
    stale_transaction="EIO",
    quota_error="EQUOTA",
    watch_quota_error="EQUOTA",
    owner_error="EACCES",
    size_error="E2BIG",
    unknown_domain="EINVAL",
    release_dom0="ENOENT",
    resumes_dom0=True,
    target_error=None,
    path_max=1024,
    watch_path_max=None,
    dom0_limited=True,
    counts_node=False,
    directory_max=None,
    guest_control=True,
    first_nodes=(
        ("/@introduceDomain", b""),
        ("/@releaseDomain", b""),
        ("/local", b""),
        ("/tool/xenstored", b"/usr/lib/xen-4.17/bin/oxenstored"),
    ),
)
"""oxenstored 4.17."""

_LATER = {int(op) for op in (Op.GET_FEATURE, Op.SET_FEATURE, Op.GET_QUOTA, Op.SET_QUOTA)}
_ERROR_BIT, _DEPTH_BIT, _ANY_BIT = 2, 4, 8

C_4_23 = replace(
    C,
    name="c-4.23",
    wire=replace(server.C, unknown=server.C.unknown - _LATER),
    depth=True,
    features=_ERROR_BIT | _DEPTH_BIT | _ANY_BIT,
)
"""C xenstored as in development for 4.23: depth of watches, features, quotas by request. Not compared: none to run."""

OCAML_FORK = replace(
    OCAML,
    name="ocaml-fork",
    wire=replace(server.OCAML, unknown=server.OCAML.unknown - {int(Op.DIRECTORY_PART)}),
    depth=True,
    directory_max=4096,
)
"""oxenstored as its own project continues it (XCP-ng): depth of watches, DIRECTORY_PART for dom0. Not compared."""

DIALECTS = {dialect.name: dialect for dialect in (C, OCAML, C_4_23, OCAML_FORK)}
