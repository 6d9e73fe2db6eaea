import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli.house import OTHER, UUID, born, changed, lines
from rigs.waiting import wait_until

from xenmesh.cli.output import ndjson
from xenmesh.cli.records import mark
from xenmesh.cli.serving import StoreState
from xenmesh.schemas import store

pytestmark = pytest.mark.timeout(90)


def test_events_add_up_to_a_snapshot() -> None:
    state = StoreState()
    for domid, uuid in ((5, UUID), (7, OTHER)):
        state.apply(store.DomainSeen(domid=domid, uuid=uuid, introduced=True, generation=1))
        for item in born(domid, f"web-{domid}", uuid):
            state.apply(item)
    state.apply(changed("/vm/x", "1"))
    capped = store.Capped(domid=5, uuid=UUID, area="data", limit=store.Limit.NODES, left_out=1)
    state.apply(capped)

    cut = state.cut()
    assert {owner: len(list(items)) for owner, items in cut.items()} == {"store.5": 4, "store.7": 3, "store.host": 1}

    state.apply(store.Capped(domid=5, uuid=UUID, area="data", limit=None, left_out=0))
    state.apply(store.Removed(domid=7, uuid=OTHER, path="/local/domain/7/name"))
    state.apply(store.DomainGone(domid=5, uuid=UUID, generation=1))
    assert {owner: len(list(items)) for owner, items in state.cut().items()} == {"store.7": 2, "store.host": 1}


def test_a_recording_is_a_mesh_for_any_consumer(short_dir: Path) -> None:
    seen = store.DomainSeen(domid=5, uuid=UUID, introduced=True, generation=1)
    text = [ndjson(mark("item", {"service": "store", "item": each})) for each in (seen, *born(5, "web-1"))]
    text += lines(changed("/local/domain/5/data/x", "1", UUID), changed("/local/domain/5/data/y", "2", UUID))
    file = short_dir / "case.ndjson"
    file.write_text("\n".join(text) + "\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XENMESH_")}
    base = [sys.executable, "-m", "xenmesh.cli.main"]
    directory = short_dir / "m"
    process = subprocess.Popen(
        [*base, "replay", str(file), "--serve", "--speed", "1000", "--dir", str(directory)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        wait_until((directory / "mesh.json").exists, "the mesh", within=30)

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*base, *words, "--dir", str(directory)],
                capture_output=True,
                text=True,
                timeout=40,
                check=False,
                env=environment,
            )

        waited = run("wait", "key", "web-1/data/y", "2", "--timeout", "20s")
        assert waited.returncode == 0, waited.stderr
        shown = run("watch", "web-1", "--snapshot", "--for", "1s")
        paths = {json.loads(line)["event"].get("item", {}).get("path") for line in shown.stdout.splitlines()}
        assert {"/local/domain/5/name", "/local/domain/5/data/x", "/local/domain/5/data/y"} <= paths
    finally:
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=30)[1]
    assert process.returncode == 0, errors
    assert "its last state stands (0 records could not be said)" in errors
