"""journald's side is a socket of the test's own, and a parser written from its documentation."""

import array
import logging
import os
import socket
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenmesh.services.daemon import journal
from xenmesh.services.daemon.journal import SERVICE, JournalHandler, LineFormatter, datagram


def parsed(data: bytes) -> dict[str, str]:
    fields = {}
    while data:
        line, _, rest = data.partition(b"\n")
        key, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        fields[key.decode()] = value.decode()
        data = rest
    return fields


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z_0-9]{0,20}", fullmatch=True), st.text()))
def test_whatever_is_said_is_read_back(fields):
    wanted = {key: value.encode("utf-8", "backslashreplace").decode() for key, value in fields.items()}
    assert parsed(datagram(fields)) == wanted


class Journal:
    def __init__(self, directory: Path) -> None:
        self.path = directory / "socket"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.settimeout(5)

    def take(self) -> dict[str, str]:
        data, ancillary, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        if ancillary:
            descriptors = array.array("i")
            descriptors.frombytes(ancillary[0][2])
            assert data == b""
            with os.fdopen(descriptors[0], "rb") as file:
                file.seek(0)
                return parsed(file.read())
        return parsed(data)


@pytest.fixture
def receiver(short_dir):
    made = Journal(short_dir)
    with closing(made.socket):
        yield made


@pytest.fixture
def log(receiver):
    logger = logging.Logger("xenmesh.test")  # noqa: LOG001 - of this test alone
    handler = JournalHandler(receiver.path)
    logger.addHandler(handler)
    yield logger
    handler.close()


def test_fields_of_a_message(receiver, log):
    token = SERVICE.set("store")
    try:
        log.warning("%s is here", "it", extra={"domain_id": 5, "domain_uuid": "u-1", "event": "store.changed"})
    finally:
        SERVICE.reset(token)
    said = receiver.take()
    assert said["MESSAGE"] == "it is here"
    assert said["PRIORITY"] == "4"
    assert said["SYSLOG_IDENTIFIER"] == "xenmeshd"
    assert said["LOGGER"] == "xenmesh.test"
    assert said["CODE_FUNC"] == "test_fields_of_a_message"
    assert (said["DOMAIN_ID"], said["DOMAIN_UUID"], said["EVENT"], said["SERVICE"]) == ("5", "u-1", "store.changed", "store")


def test_domain_0_is_a_domain_and_nothing_is_no_field(receiver, log):
    log.info("x", extra={"domain_id": 0})
    said = receiver.take()
    assert said["DOMAIN_ID"] == "0"
    assert not {"DOMAIN_UUID", "EVENT", "SERVICE", "DROPPED"} & said.keys()


def test_a_guest_cannot_make_fields(receiver, log):
    log.info("name is %s", "a\nPRIORITY=0\nMESSAGE=forged")
    said = receiver.take()
    assert said["MESSAGE"] == "name is a\nPRIORITY=0\nMESSAGE=forged"
    assert said["PRIORITY"] == "6"


def test_a_traceback_is_one_message(receiver, log):
    error = ValueError("why")
    error.__cause__ = KeyError("deeper")
    log.error("it broke", exc_info=error)
    message = receiver.take()["MESSAGE"]
    assert message.startswith("it broke\nKeyError: 'deeper'\n")
    assert message.endswith("ValueError: why")


def test_what_is_too_long_for_a_datagram_goes_as_a_file(receiver, log):
    long = "x" * (4 << 20)
    log.error("%s", long)
    assert receiver.take()["MESSAGE"] == long


def test_a_journal_that_does_not_listen_costs_messages_and_no_time_and_they_are_counted(receiver, log):
    sent = 0
    handler = log.handlers[0]
    while not handler.dropped:
        log.info("%d", sent)
        sent += 1
        assert sent < 10_000
    log.info("lost as well")
    assert handler.dropped == 2
    for number in range(sent - 1):
        assert receiver.take()["MESSAGE"] == str(number)
    log.info("here again")
    assert receiver.take()["DROPPED"] == "2"
    log.info("and again")
    assert "DROPPED" not in receiver.take()


def test_no_journal_is_no_error(short_dir, capsys):
    handler = JournalHandler(short_dir / "none")
    handler.handle(logging.LogRecord("x", logging.INFO, "", 0, "lost", (), None))
    handler.close()
    assert handler.dropped == 1
    assert capsys.readouterr().err == ""


def test_journald_is_used_only_where_it_reads_our_stderr(monkeypatch, receiver):
    monkeypatch.setattr(journal, "SOCKET", receiver.path)
    stderr = os.fstat(2)
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    assert not journal.reads_stderr()
    monkeypatch.setenv("JOURNAL_STREAM", f"{stderr.st_dev}:{stderr.st_ino}")
    assert journal.reads_stderr()
    made = journal.handler()
    assert isinstance(made, JournalHandler)
    made.close()
    monkeypatch.setenv("JOURNAL_STREAM", f"{stderr.st_dev}:{stderr.st_ino + 1}")
    assert isinstance(journal.handler().formatter, LineFormatter)
    monkeypatch.setenv("JOURNAL_STREAM", f"{stderr.st_dev}:{stderr.st_ino}")
    monkeypatch.setattr(journal, "SOCKET", receiver.path.parent / "none")
    assert not journal.reads_stderr()


def line(message: str, level: int = logging.INFO, **extra: object) -> str:
    record = logging.LogRecord("x", level, "", 0, message, (), None)
    vars(record).update(extra)
    return LineFormatter(sys.stderr).format(record)


def test_a_line_for_people():
    text = line("it changed", logging.WARNING, service="store", domain_id=5)
    clock, rest = text[:12], text[13:]
    assert [clock[2], clock[5], clock[8]] == [":", ":", "."]
    assert rest == "warning store: it changed [DOMAIN_ID=5]"


def test_a_guest_cannot_drive_the_terminal():
    assert line("name \x1b[2J\r\n\x9b31mé日").endswith("info name \\x1b[2J\\r\\n\\x9b31mé日")
