"""The simulated xenstored as a program, with a socket for each guest: ``guests_xenstored.py DIRECTORY c|ocaml DOMID...``."""

import asyncio
import sys
from pathlib import Path

from xenmesh.sim.xenstored.daemon import Daemon
from xenmesh.sim.xenstored.dialect import DIALECTS


async def serve(directory: Path, server: str, domids: list[int]) -> None:
    """Until it is killed. Dom0's socket comes last: when it is there, all are."""
    daemon = Daemon(directory, DIALECTS[server])
    for domid in (*domids, 0):
        await daemon.listen(domid)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2], [int(domid) for domid in sys.argv[3:]]))
