"""The room runs in guests, so on a Python as old as 3.9, with the standard library alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOM = Path(__file__).parents[2] / "xenstore"

PROGRAM = """
import importlib, pathlib, sys
for file in sorted(pathlib.Path(sys.argv[1], "xenmesh", "xenstore").glob("*.py")):
    importlib.import_module("xenmesh.xenstore." + file.stem)
from xenmesh.xenstore import messages
from xenmesh.xenstore.client import ClientConnection, Reply
from xenmesh.xenstore.messages import Read, SetPerms, Watch, WatchEvent
from xenmesh.xenstore.packets import Op, Packet, Parser, encode
from xenmesh.xenstore.perms import Access, Perm

client = ClientConnection()
for request in (Read("/a"), Watch("/a", b"t"), SetPerms("/a", (Perm(Access.NONE, 0),))):
    client.request(request)
    (packet,) = Parser().feed(client.data_to_send())
    assert messages.parse(packet.op, packet.payload) == request
assert client.receive_data(encode(Packet(Op.READ, 1, 0, b"v"))) == [Reply(1, Read("/a"), b"v")]
assert client.receive_data(encode(Packet(15, 0, 0, WatchEvent("/a", b"t").payload()))) == [WatchEvent("/a", b"t")]
assert len(client.connection_lost()) == 2
print("whole")
"""


@pytest.mark.rig("python3.9")
def test_the_room_works_on_3_9(python39: str) -> None:
    done = subprocess.run(
        [python39, "-I", "-W", "error", "-c", "import sys; sys.path.insert(0, sys.argv[1])" + PROGRAM, ROOM],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert (done.stdout, done.stderr) == ("whole\n", "")
