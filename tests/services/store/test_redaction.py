import pytest

from xenmesh.services.store.config import StoreConfig
from xenmesh.services.store.redaction import Redaction


@pytest.mark.parametrize(
    "path",
    [
        "/vm/6d1b6e7e-0000-4000-8000-000000000001/vncpasswd",
        "/local/domain/0/backend/vfb/5/0/vncpasswd",
        "/local/domain/5/console/VNC-Passwd",
        "/local/domain/5/vm-data/admin_password",
        "/tool/spice-password",
    ],
)
def test_secrets_are_covered_wherever_they_lie(path: str) -> None:
    assert Redaction(StoreConfig().secrets, b"key").covers(path)


@pytest.mark.parametrize("path", ["/local/domain/5/console/vnc-port", "/local/domain/5/passwd/x", "/local/domain/5/name"])
def test_other_nodes_are_not(path: str) -> None:
    assert not Redaction(StoreConfig().secrets, b"key").covers(path)


def test_without_patterns_nothing_is_secret() -> None:
    assert not Redaction((), b"key").covers("/a/vncpasswd")


def test_a_digest_tells_a_change_and_nothing_else() -> None:
    mine = Redaction((), b"key")

    assert mine.digest(b"hunter2") == mine.digest(b"hunter2") != mine.digest(b"hunter3")
    assert Redaction((), b"other").digest(b"hunter2") != mine.digest(b"hunter2")
    assert len(mine.digest(b"")) == len(mine.digest(b"x" * 4096)) == 16
