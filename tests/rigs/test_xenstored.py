import os
import socket
import subprocess
from contextlib import suppress

import pytest
from rigs.waiting import wait_until
from rigs.xenstored import Xenstored

WATCH_EVENT = 15


@pytest.mark.rig("xenstore-utils")
def test_it_is_a_real_store(xenstored: Xenstored):
    xenstored.tool("write", "/a/b", "value")
    assert xenstored.tool("read", "/a/b") == "value\n"
    assert ("oxenstored" in xenstored.tool("ls", "/tool")) == (xenstored.kind == "ocaml")


@pytest.mark.rig("xenstore-utils")
def test_after_a_kill_it_comes_back_empty_at_the_same_path(xenstored: Xenstored):
    xenstored.tool("write", "/a", "value")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(xenstored.socket))
        pid = xenstored.pid
        xenstored.kill()
        with suppress(ConnectionResetError):  # where it had not accepted yet
            assert client.recv(1) == b""
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(subprocess.CalledProcessError):
        xenstored.tool("read", "/tool")
    xenstored.start()
    with pytest.raises(subprocess.CalledProcessError, match="xenstore-read"):
        xenstored.tool("read", "/a")
    xenstored.tool("write", "/a", "new")
    assert xenstored.tool("read", "/a") == "new\n"


def test_an_event_of_the_hypervisor_fires_its_watch(xenstored: Xenstored):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(xenstored.socket))
        replies = client.makefile("rb")

        def request(op: int, *words: bytes) -> tuple[int, bytes]:
            payload = b"".join(word + b"\0" for word in words)
            header = [op, 1, 0, len(payload)]
            client.sendall(b"".join(n.to_bytes(4, "little") for n in header) + payload)
            return receive()

        def receive() -> tuple[int, bytes]:
            header = replies.read(16)
            payload = replies.read(int.from_bytes(header[12:], "little"))
            return int.from_bytes(header[:4], "little"), payload

        introduce, watch = 8, 4
        assert request(introduce, b"5", b"1", b"1") == (introduce, b"OK\0")
        assert request(watch, b"@releaseDomain", b"token") == (watch, b"OK\0")
        assert receive() == (WATCH_EVENT, b"@releaseDomain\0token\0")  # the one each watch begins with
        xenstored.event("shutdown 5")
        assert receive() == (WATCH_EVENT, b"@releaseDomain\0token\0")
        replies.close()


def test_two_live_side_by_side(xenstored_c: Xenstored, xenstored_ocaml: Xenstored):
    assert xenstored_c.socket != xenstored_ocaml.socket
    assert xenstored_c.pid != xenstored_ocaml.pid
    with pytest.raises(RuntimeError, match="it runs already"):
        xenstored_c.start()
    xenstored_c.stop()
    with pytest.raises(RuntimeError, match="it does not run"):
        xenstored_c.event("shutdown 5")
    xenstored_c.stop()


@pytest.mark.rig("xenstored")
def test_a_daemon_that_dies_at_once_tells_why(short_dir, monkeypatch):
    liar = short_dir / "xenstored"
    liar.write_text("#!/bin/sh\necho no such hypervisor >&2\nexit 1\n")
    liar.chmod(0o755)
    monkeypatch.setenv("XENSTORED_BIN", str(liar))
    with pytest.raises(RuntimeError, match="no such hypervisor"):
        Xenstored("c", short_dir).start()


def test_wait_until_gives_up_and_says_on_what():
    with pytest.raises(TimeoutError, match=r"0\.01 s in vain for the moon"):
        wait_until(lambda: False, "the moon", within=0.01)
    assert wait_until(lambda: 7, "a number") == 7
