"""The anyio client of xenstore: `async with Xenstore.connect() as store: await store.read("/tool")`."""

from xenmesh.xen.xenstore.client import State, Statistics, Xenstore
from xenmesh.xen.xenstore.operations import Transaction
from xenmesh.xen.xenstore.watches import Dirty, Watch, WatchSet

__all__ = ["Dirty", "State", "Statistics", "Transaction", "Watch", "WatchSet", "Xenstore"]
