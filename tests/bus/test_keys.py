"""Seeds are made once, for their owner alone, and never overwritten."""

import builtins
import stat
from pathlib import Path
from typing import Any

import nkeys
import pytest

from xenmesh.bus.errors import KeyFileError
from xenmesh.bus.keys import ensure_keys, key_file, public_key, read_public_keys


def test_seeds_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "keys"
    public = ensure_keys(directory, (name for name in ("a", "b")))
    assert set(public) == {"a", "b"}
    assert public["a"] != public["b"]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for name in public:
        file = key_file(directory, name)
        assert stat.S_IMODE(file.stat().st_mode) == 0o400
        pair = nkeys.from_seed(bytearray(file.read_bytes().strip()))
        assert pair.public_key.decode() == public[name]
        assert pair.verify(b"nonce", pair.sign(b"nonce"))
    assert sorted(file.name for file in directory.iterdir()) == ["a.nk", "b.nk"]


def test_seeds_are_never_overwritten(tmp_path: Path) -> None:
    first = ensure_keys(tmp_path, ["a"])
    seed = key_file(tmp_path, "a").read_bytes()
    assert ensure_keys(tmp_path, ["a", "b"])["a"] == first["a"]
    assert key_file(tmp_path, "a").read_bytes() == seed


def test_an_open_directory_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    ensure_keys(tmp_path, ["a"])
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    ensure_keys(tmp_path, ["a"])
    key_file(tmp_path, "a").chmod(0o440)
    with pytest.raises(KeyFileError, match="others may read it"):
        read_public_keys(tmp_path, ["a"])


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"a\.nk: No such file"):
        read_public_keys(tmp_path, ["a"])


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyFileError, match="file"):
        ensure_keys(tmp_path / "file" / "keys", ["a"])


ACCOUNT = nkeys.encode_seed(bytes(32), nkeys.PREFIX_BYTE_ACCOUNT)


@pytest.mark.parametrize("seed", [b"", b"SU", b"nonsense" * 9, b"\xff" * 58, ACCOUNT])
def test_what_is_no_users_seed(seed: bytes) -> None:
    with pytest.raises(KeyFileError, match="here: "):
        public_key(seed, "here")


def test_without_nkeys_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def lacking(name: str, *rest: Any) -> Any:
        if name == "nkeys":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(KeyFileError, match="install the package nkeys"):
        ensure_keys(tmp_path, ["a"])
