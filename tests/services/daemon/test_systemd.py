import os
import socket
from contextlib import closing

import pytest

from xenmesh.services.daemon.systemd import Notifier, watchdog_interval


def listener(address: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(address)
    made.settimeout(5)
    return made


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_each_word_is_a_datagram(short_dir, abstract):
    path = f"{short_dir}/notify"
    shown = f"@{path}" if abstract else path
    with closing(listener(f"\0{path}" if abstract else path)) as systemd:
        notifier = Notifier({"NOTIFY_SOCKET": shown})
        notifier.ready()
        notifier.status("12 domains\nREADY=1")
        notifier.alive()
        notifier.extend(2.5)
        notifier.stopping()
        said = [systemd.recv(4096).decode() for _ in range(5)]
    assert said == ["READY=1", "STATUS=12 domains READY=1", "WATCHDOG=1", "EXTEND_TIMEOUT_USEC=2500000", "STOPPING=1"]


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_nobody_is_told_where_nobody_asks(environment, caplog):
    Notifier(environment).ready()
    assert caplog.messages == []


def test_a_socket_that_is_gone_is_logged_and_survived(short_dir, caplog):
    Notifier({"NOTIFY_SOCKET": f"{short_dir}/gone"}).ready()
    assert caplog.messages == ["systemd was not told READY: [Errno 2] No such file or directory"]


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_interval(environment, interval):
    assert watchdog_interval(environment) == interval
