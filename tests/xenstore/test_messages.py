from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenmesh.xenstore.errors import (
    PathError,
    PayloadError,
    ReplyError,
    UsageError,
    XenstoreError,
)
from xenmesh.xenstore.messages import (
    OK,
    AnyRequest,
    Control,
    Directory,
    DirectoryPart,
    GetDomainPath,
    GetFeature,
    GetPerms,
    GetQuota,
    Introduce,
    IsDomainIntroduced,
    Message,
    Mkdir,
    Part,
    Read,
    Release,
    Request,
    ResetWatches,
    Resume,
    Rm,
    SetFeature,
    SetPerms,
    SetQuota,
    SetTarget,
    TransactionEnd,
    TransactionStart,
    Unwatch,
    Watch,
    WatchEvent,
    Write,
    format_error,
    parse,
    parse_error,
)
from xenmesh.xenstore.packets import Op
from xenmesh.xenstore.perms import Access, Perm

PATHS = st.lists(st.text("ab-_@9", min_size=1, max_size=5), max_size=4).map(lambda parts: "/" + "/".join(parts))
TOKENS = st.binary(max_size=10).map(lambda token: token.replace(b"\0", b"."))
DOMIDS = st.integers(0, 0x7FFF)
NUMBERS = st.integers(0, 2**64 - 1)
NAMES = st.text("ab-", min_size=1, max_size=8)
PERMS = st.builds(Perm, st.sampled_from(Access), DOMIDS)

REQUESTS = st.one_of(
    st.builds(Control, st.lists(TOKENS, min_size=1, max_size=3).map(tuple)),
    st.builds(Directory, PATHS),
    st.builds(Read, PATHS),
    st.builds(GetPerms, PATHS),
    st.builds(Watch, PATHS, TOKENS, st.none() | st.integers(0, 9)),
    st.builds(Unwatch, PATHS, TOKENS),
    st.builds(TransactionStart),
    st.builds(TransactionEnd, st.booleans()),
    st.builds(Introduce, DOMIDS, NUMBERS, NUMBERS),
    st.builds(Release, DOMIDS),
    st.builds(GetDomainPath, DOMIDS),
    st.builds(Write, PATHS, st.binary(max_size=20)),
    st.builds(Mkdir, PATHS),
    st.builds(Rm, PATHS),
    st.builds(SetPerms, PATHS, st.lists(PERMS, min_size=1, max_size=3).map(tuple)),
    st.builds(IsDomainIntroduced, DOMIDS),
    st.builds(Resume, DOMIDS),
    st.builds(SetTarget, DOMIDS, DOMIDS),
    st.builds(ResetWatches),
    st.builds(DirectoryPart, PATHS, NUMBERS),
    st.builds(GetFeature, st.none() | DOMIDS),
    st.builds(SetFeature, DOMIDS, NUMBERS),
    st.builds(GetQuota, NAMES, st.none() | DOMIDS) | st.just(GetQuota()),
    st.builds(SetQuota, NAMES, NUMBERS, st.none() | DOMIDS),
)


@given(REQUESTS)
def test_requests_are_read_as_they_were_made(request: AnyRequest) -> None:
    assert parse(request.op, request.payload()) == request


def refusal(op: int, payload: bytes) -> str:
    try:
        parse(op, payload)
    except PayloadError as error:
        return error.code
    return ""


def test_every_type_of_request_is_known() -> None:
    others = {Op.WATCH_EVENT, Op.ERROR, Op.RESTRICT, Op.INVALID}
    for op in set(Op) - others:
        assert refusal(op, b"") in ("", "EINVAL")
    for op in [*others, 128, 27]:
        with pytest.raises(PayloadError) as caught:
            parse(op, b"")
        assert caught.value.code == "ENOSYS"


@given(st.sampled_from(Op), st.binary(max_size=60))
def test_arbitrary_payloads_are_read_or_refused(op: Op, payload: bytes) -> None:
    try:
        request = parse(op, payload)
    except PayloadError:
        return
    # what was read can be said again, unless the path is one that no server takes
    try:
        again = request.payload()
    except UsageError:
        return
    assert parse(op, again) == request


@pytest.mark.parametrize(
    ("request_", "payload"),
    [
        (Read("/a"), b"/a\0"),
        (Write("/a", b"b\0c"), b"/a\0b\0c"),
        (Watch("/a", b"t"), b"/a\0t\0"),
        (Watch("/a", b"", 1), b"/a\0\x001\0"),
        (Unwatch("/a", b"t"), b"/a\0t\0"),
        (Release(5), b"5\0"),
        (SetTarget(5, 6), b"5\x006\0"),
        (SetFeature(5, 6), b"5\x006\0"),
        (TransactionStart(), b"\0"),
        (TransactionEnd(commit=True), b"T\0"),
        (TransactionEnd(commit=False), b"F\0"),
        (ResetWatches(), b"\0"),
        (Introduce(5, 100, 7), b"5\x00100\x007\0"),
        (SetPerms("/a", (Perm(Access.NONE, 0), Perm(Access.READ, 5))), b"/a\0n0\0r5\0"),
        (DirectoryPart("/a", 0), b"/a\x000\0"),
        (GetFeature(), b""),
        (GetFeature(5), b"5\0"),
        (GetQuota(), b""),
        (GetQuota("nodes", 5), b"5\0nodes\0"),
        (SetQuota("nodes", 9, 5), b"5\0nodes\x009\0"),
        (Control((b"print", b"hi there")), b"print\0hi there\0"),
    ],
    ids=str,
)
def test_the_bytes(request_: AnyRequest, payload: bytes) -> None:
    assert request_.payload() == payload
    assert parse(request_.op, payload) == request_


@pytest.mark.parametrize(
    ("op", "payload", "flaw"),
    [
        (Op.READ, b"/a", "nul"),
        (Op.READ, b"", "nul"),
        (Op.READ, b"/a\0b\0", "fields"),
        (Op.READ, b"/\xff\0", "ascii"),
        (Op.WRITE, b"/a", "nul"),
        (Op.WATCH, b"/a\0", "fields"),
        (Op.WATCH, b"/a\0t\0x\0", "number"),
        (Op.UNWATCH, b"/a\0t\x001\0", "fields"),
        (Op.TRANSACTION_END, b"X\0", "fields"),
        (Op.RELEASE, b"-1\0", "number"),
        (Op.RELEASE, b"1_0\0", "number"),
        (Op.RELEASE, " ١\0".encode(), "number"),
        (Op.SET_PERMS, b"/a\0q1\0", "perm"),
        (Op.SET_PERMS, b"/a\0\xff1\0", "ascii"),
        (Op.SET_PERMS, b"/a\0", "fields"),
        (99, b"", "op"),
    ],
)
def test_what_a_server_cannot_read(op: int, payload: bytes, flaw: str) -> None:
    with pytest.raises(PayloadError) as caught:
        parse(op, payload)
    assert caught.value.flaw == flaw


@pytest.mark.parametrize(
    "request_",
    [
        Read("/a b"),
        Write("/a\0b", b""),
        Watch("/a", b"a\0b"),
        Unwatch("/a", b"\0"),
        SetPerms("/a", ()),
        Control(()),
        Control((b"a\0b",)),
        GetQuota("a\0b"),
        GetQuota("ä"),
        GetQuota(None, 5),
        SetQuota("", 1),
    ],
    ids=str,
)
def test_what_must_not_be_sent(request_: AnyRequest) -> None:
    with pytest.raises(UsageError):
        request_.payload()


def test_paths_are_judged_when_sent_not_when_read() -> None:
    # servers differ on what they take, so the reader leaves it to them
    read = parse(Op.READ, b"/a b\0")
    with pytest.raises(PathError):
        read.payload()


REPLIES: list[tuple[Request[Any], Any, bytes]] = [
    (Read("/a"), b"v\0w", b"v\0w"),
    (Directory("/a"), [], b""),
    (Directory("/a"), ["b", "c"], b"b\0c\0"),
    (GetPerms("/a"), [Perm(Access.NONE, 0), Perm(Access.READ, 5)], b"n0\0r5\0"),
    (TransactionStart(), 17, b"17\0"),
    (GetDomainPath(5), "/local/domain/5", b"/local/domain/5\0"),
    (IsDomainIntroduced(5), True, b"T\0"),
    (IsDomainIntroduced(5), False, b"F\0"),
    (Write("/a", b""), None, OK),
    (Watch("/a", b"t"), None, OK),
    (Control((b"help",)), "commands:\n", b"commands:\n\0"),
    (DirectoryPart("/a", 0), Part("3", ["b", "c"], last=False), b"3\0b\0c\0"),
    (DirectoryPart("/a", 0), Part("3", ["b", "c"], last=True), b"3\0b\0c\0\0"),
    (DirectoryPart("/a", 9), Part("3", [], last=True), b"3\0\0"),
    (DirectoryPart("/a", 9), Part("3", [], last=False), b"3\0"),
    (GetFeature(), 6, b"6\0"),
    (GetQuota("nodes"), "1000", b"1000\0"),
]


@pytest.mark.parametrize(("request_", "value", "payload"), REPLIES, ids=str)
def test_replies_both_ways(request_: Request[Any], value: Any, payload: bytes) -> None:
    assert request_.format_reply(value) == payload
    assert request_.parse_reply(payload) == value


@pytest.mark.parametrize(
    ("request_", "payload"),
    [
        (Write("/a", b""), b"KO\0"),
        (Directory("/a"), b"b\0c"),
        (Directory("/a"), b"\xff\0"),
        (GetPerms("/a"), b""),
        (GetPerms("/a"), b"q5\0"),
        (TransactionStart(), b"x\0"),
        (IsDomainIntroduced(1), b"maybe\0"),
        (DirectoryPart("/a", 0), b"3"),
    ],
    ids=str,
)
def test_nonsense_for_an_answer(request_: Request[Any], payload: bytes) -> None:
    with pytest.raises(ReplyError):
        request_.parse_reply(payload)


@given(REQUESTS, st.binary(max_size=40))
def test_an_arbitrary_answer_is_read_or_refused(request: AnyRequest, payload: bytes) -> None:
    try:
        request.parse_reply(payload)
    except ReplyError:
        pass
    except XenstoreError as error:
        pytest.fail(f"{error!r} is not a ReplyError")


def test_a_number_may_come_without_its_nul() -> None:
    assert TransactionStart().parse_reply(b"3") == 3


def test_the_size_of_a_part_is_the_way_to_the_next() -> None:
    assert Part("1", ["ab", "c"], last=False).size == len(b"ab\0c\0")


@given(PATHS, TOKENS)
def test_watch_events_both_ways(path: str, token: bytes) -> None:
    event = WatchEvent(path, token)

    assert WatchEvent.parse(event.payload()) == event


@pytest.mark.parametrize("payload", [b"", b"/a", b"/a\0t", b"/a\0", b"\xff\0t\0"])
def test_no_watch_event(payload: bytes) -> None:
    with pytest.raises(ReplyError):
        WatchEvent.parse(payload)


def test_errors_both_ways() -> None:
    assert format_error("ENOENT") == b"ENOENT\0"
    assert parse_error(b"EQUOTA\0") == "EQUOTA"
    assert parse_error(b"\xff") == "\N{REPLACEMENT CHARACTER}"


def test_names_for_people() -> None:
    assert str(Read("/a")) == "READ /a"
    assert str(Release(5)) == "RELEASE"


def test_the_bases_are_abstract() -> None:
    for call in (
        lambda: Message().payload(),
        lambda: Request[bytes]().parse_reply(b""),
        lambda: Request[bytes]().format_reply(b""),
    ):
        with pytest.raises(NotImplementedError):
            call()
