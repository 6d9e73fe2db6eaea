from xenmesh.guest.facts import Os
from xenmesh.guest.model import keys


def test_keys_have_the_names_that_are_read() -> None:
    assert keys(Os(name="Debian GNU/Linux 12 (bookworm)", distro="debian", version="12.9", kernel="6.1.0-amd64")) == {
        "data/os_name": b"Debian GNU/Linux 12 (bookworm)",
        "data/os_distro": b"debian",
        "data/os_majorver": b"12",
        "data/os_minorver": b"9",
        "data/os_uname": b"6.1.0-amd64",
    }


def test_what_is_not_known_has_no_key() -> None:
    assert keys(Os(version="rolling")) == {}


def test_values_are_short_ascii() -> None:
    value = keys(Os(name="é" * 300))["data/os_name"]

    assert value == b"?" * 256
