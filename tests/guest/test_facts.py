from pathlib import Path

from xenmesh.guest.facts import Os, collect, parse_os_release


def test_quotes_comments_and_nonsense() -> None:
    assert parse_os_release("NAME=\"Debian GNU/Linux\"\n# c=d\nID='debian'\nnonsense\nEMPTY=\n") == {
        "NAME": "Debian GNU/Linux",
        "ID": "debian",
        "EMPTY": "",
    }


def test_the_second_place_serves_where_the_first_is_missing(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/os-release").write_text("NAME=Alpine\nID=alpine\nVERSION_ID=3.20.1\n")

    got = collect(tmp_path)

    assert got[:3] == ("Alpine", "alpine", "3.20.1")


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    assert collect(tmp_path)[:3] == Os()[:3]
