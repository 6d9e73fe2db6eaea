"""What the mesh weighs when nothing happens: memory and CPU of ``xenmeshd all`` and of nats-server."""

from __future__ import annotations

import anyio

from .mesh import Writer, cpu, populate, rss, run_mesh, store
from .report import Figure

__all__ = ["measure"]

IDLE = 30.0
AIMS = {"mesh": 32.0, "bus": 20.0}
CPU_AIM = 0.3


async def measure(wanted: str) -> list[Figure]:
    """With three domains, as on a small host, and nobody listening."""
    del wanted
    figures = []
    with store() as xenstored:
        populate(Writer(xenstored.socket), 3, 60)
        async with run_mesh(xenstored) as mesh:
            if mesh.server.pid is None:
                raise SystemExit("nats-server died")
            pids = {"mesh": mesh.daemon.pid, "bus": mesh.server.pid}
            await anyio.sleep(3)
            used = {name: cpu(pid) for name, pid in pids.items()}
            await anyio.sleep(IDLE)
            for name, pid in pids.items():
                share = (cpu(pid) - used[name]) / IDLE * 100
                size = rss(pid)
                figures.append(Figure(f"{name}.rss", size, "MiB", f"aim {AIMS[name]:.0f} MiB", size / AIMS[name]))
                figures.append(Figure(f"{name}.idle.cpu", share, "% of a core", f"aim {CPU_AIM} %", share / CPU_AIM))
    return figures
