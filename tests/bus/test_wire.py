"""The lines of NATS's protocol that we write and read ourselves."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenmesh.bus.errors import BadSubject
from xenmesh.bus.wire import check_pattern, check_subject, encode_publish, parse_headers


def test_publish() -> None:
    assert encode_publish("a.b", "", None, b"hi") == b"PUB a.b 2\r\nhi\r\n"
    assert encode_publish("a.b", "r", {}, b"") == b"PUB a.b r 0\r\n\r\n"
    assert encode_publish("a", "r", {"K": "v"}, b"hi") == b"HPUB a r 18 20\r\nNATS/1.0\r\nK: v\r\n\r\nhi\r\n"


@pytest.mark.parametrize("subject", ["a", "a.b", "$KV.x.y-z_0", "_INBOX.a", "a/b.c=d"])
def test_subjects_that_may_be_said(subject: str) -> None:
    check_subject(subject)
    check_pattern(subject)


@pytest.mark.parametrize(
    "subject", ["", ".", "a.", ".a", "a..b", "a b", "a\r\nPUB b 0", "a\t", "é", "a.*", ">", "a.>", "a" * 513, "a\n"]
)
def test_subjects_that_may_not(subject: str) -> None:
    with pytest.raises(BadSubject):
        check_subject(subject)


@pytest.mark.parametrize("pattern", ["*", ">", "a.*.b", "a.>", "*.*"])
def test_patterns(pattern: str) -> None:
    check_pattern(pattern)


@pytest.mark.parametrize("pattern", ["", "a*", "a.>.b", "a>", "> ", "a b", "*.", "é.>"])
def test_patterns_that_are_none(pattern: str) -> None:
    with pytest.raises(BadSubject):
        check_pattern(pattern)


@pytest.mark.parametrize("headers", [{"a b": "c"}, {"": "c"}, {"é": "c"}, {"a:": "b"}, {"a": "x\r\nb: c"}, {"a": "\x00"}])
def test_headers_that_may_not_be_sent(headers: dict[str, str]) -> None:
    with pytest.raises(BadSubject):
        encode_publish("a", "", headers, b"")


def test_inline_status() -> None:
    assert parse_headers(b"NATS/1.0 503\r\n\r\n") == {"Status": "503"}
    assert parse_headers(b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 2\r\n\r\n") == {
        "Status": "204",
        "Description": "EOB",
        "Nats-Num-Pending": "2",
    }


@pytest.mark.parametrize("block", [b"", b"NATS/1.0", b"NATS/1.0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_blocks_without_headers(block: bytes) -> None:
    assert parse_headers(block) is None


@settings(deadline=None)
@given(st.binary() | st.binary().map(lambda tail: b"NATS/1.0" + tail))
def test_any_block_is_read_without_raising(block: bytes) -> None:
    headers = parse_headers(block)
    assert headers is None or all(isinstance(value, str) for value in headers.values())


_NAMES = st.from_regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,20}", fullmatch=True).filter(
    lambda name: name not in {"Status", "Description"}
)
_VALUES = st.text().filter(str.isprintable).map(str.strip)


@settings(deadline=None)
@given(st.dictionaries(_NAMES, _VALUES, min_size=1), st.binary())
def test_headers_come_back_as_they_went(headers: dict[str, str], data: bytes) -> None:
    command = encode_publish("a", "", headers, data)
    line, _, rest = command.partition(b"\r\n")
    size = int(line.split()[2])
    assert parse_headers(rest[:size]) == headers
    assert rest[size:] == data + b"\r\n"
