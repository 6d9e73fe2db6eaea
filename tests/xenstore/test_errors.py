from __future__ import annotations

import pytest

from xenmesh.xenstore import errors
from xenmesh.xenstore.errors import (
    CODES,
    AccessError,
    ConflictError,
    ExistsError,
    LimitError,
    LinkError,
    NotFoundError,
    OutcomeUnknown,
    PathError,
    ProtocolError,
    QuotaError,
    ServerError,
    UnsupportedError,
    XenstoreError,
)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ENOENT", NotFoundError),
        ("EACCES", AccessError),
        ("EPERM", AccessError),
        ("EEXIST", ExistsError),
        ("EAGAIN", ConflictError),
        ("ENOSYS", UnsupportedError),
        ("ENOSPC", LimitError),
        ("E2BIG", LimitError),
        ("EQUOTA", QuotaError),
        ("EINVAL", ServerError),
        ("EWHATEVER", ServerError),
    ],
)
def test_a_reply_gets_its_class_and_keeps_its_string(code: str, kind: type[ServerError]) -> None:
    error = ServerError.of(code, "READ /a")

    assert type(error) is kind
    assert error.code == code
    assert str(error) == f"xenstored answered {code} to READ /a"
    assert error.facts == {"request": "READ /a"}


def test_a_quota_is_a_limit() -> None:
    assert isinstance(ServerError.of("EQUOTA"), LimitError)
    assert "EQUOTA" not in CODES


def test_whose_fault() -> None:
    assert PathError("x y", "illegal character").origin == "ours"
    assert ServerError.of("EIO").origin == "theirs"
    assert ProtocolError("odd").origin == "theirs"
    assert OutcomeUnknown("WRITE /a", safe_to_repeat=True, sent=True).origin == "world"
    assert issubclass(OutcomeUnknown, LinkError)


def test_the_tree_is_drawn_whole() -> None:
    assert errors.__doc__ is not None
    for name in errors.__all__:
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, XenstoreError):
            assert name in errors.__doc__
            assert kind.__doc__
