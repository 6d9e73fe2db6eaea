import os
import threading
import uuid

import pytest

from xenmesh.services.daemon.errors import HostIdError
from xenmesh.services.daemon.hostid import FILE, host_id, kept_id


def test_it_is_made_once_and_kept(tmp_path):
    assert kept_id(tmp_path) is None
    made = host_id(tmp_path)
    assert uuid.UUID(made).version == 4
    assert host_id(tmp_path) == kept_id(tmp_path) == made
    assert [file.name for file in tmp_path.iterdir()] == [FILE]
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o644


def test_those_that_start_together_agree(tmp_path):
    gate = threading.Barrier(8)
    found: list[str] = []

    def start() -> None:
        gate.wait()
        found.append(host_id(tmp_path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("garbage", ["", "two words\n", "dots.are.no.token\n", "\x00" * 36, "é\n", "a\nb\n", "x" * 65])
def test_garbage_is_named_and_left_alone(tmp_path, garbage):
    (tmp_path / FILE).write_text(garbage)
    with pytest.raises(HostIdError, match="does not hold a host's id but") as caught:
        host_id(tmp_path)
    assert str(tmp_path / FILE) in caught.value.sentence
    assert caught.value.status == 73
    assert (tmp_path / FILE).read_text() == garbage


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        HostIdError, match=r"none can be kept in .*/no: No such file or directory\. Make the directory writable for uid"
    ):
        host_id(tmp_path / "no")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere; the next test drops root where it is there")
def test_a_directory_that_is_not_writable_is_named(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(HostIdError, match="Permission denied"):
        host_id(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else; the test before covers the rest")
def test_a_directory_of_somebody_else_is_named(tmp_path):
    tmp_path.chmod(0o755)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        try:
            host_id(tmp_path)
        except HostIdError as error:
            os.write(writer, error.sentence.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as said:
        sentence = said.read().decode()
    # pytest's own folders may hide the path from the stranger: then reading fails before writing can.
    assert "Permission denied" in sentence


def test_a_file_that_is_a_directory_is_named(tmp_path):
    (tmp_path / FILE).mkdir()
    with pytest.raises(HostIdError, match="cannot be read: Is a directory"):
        host_id(tmp_path)
