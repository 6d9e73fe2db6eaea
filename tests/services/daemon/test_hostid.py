import threading
import uuid

import pytest
from rigs.nobody import nobody_special

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


def test_a_directory_that_is_not_writable_is_named(short_dir):
    short_dir.chmod(0o555)
    with nobody_special(), pytest.raises(HostIdError, match=r"Permission denied\. Make the directory writable for uid"):
        host_id(short_dir)


def test_a_file_that_is_a_directory_is_named(tmp_path):
    (tmp_path / FILE).mkdir()
    with pytest.raises(HostIdError, match="cannot be read: Is a directory"):
        host_id(tmp_path)
