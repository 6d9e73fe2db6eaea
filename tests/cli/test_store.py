import anyio
import pytest
from cli.house import UUID, Heard, House, changed
from rigs.waiting import eventually

from xenmesh.cli import store as command
from xenmesh.cli.errors import CommandError, NotFound, UsageError
from xenmesh.schemas import store


@pytest.fixture
def house(house: House) -> House:
    for path, value in (("name", "web-1"), ("vm", f"/vm/{UUID}"), ("data/os_name", "Debian"), ("data/evil", "\x1b[2J")):
        house.nodes[f"/local/domain/5/{path}"] = value
    return house


async def test_ls(house: House, table: Heard) -> None:
    async with house.serve():
        code = await command.ls(house.mesh(), table.printer, "5", recursive=False, perms=False, full=False)

    assert code == 0
    assert table.lines == ['name = "web-1"', f'vm = "/vm/{UUID}"', 'data = ""']


async def test_ls_recursive_with_permissions_as_xenstore_ls(house: House, table: Heard) -> None:
    async with house.serve():
        await command.ls(house.mesh(), table.printer, "web-1", recursive=True, perms=True, full=False)

    assert table.lines[2:] == ['data (n0,r5) = ""', ' os_name (n0,r5) = "Debian"', ' evil (n0,r5) = "\\x1b[2J"']


async def test_ls_for_programs_and_xargs(house: House, ndjson: Heard, names: Heard) -> None:
    async with house.serve():
        await command.ls(house.mesh(), ndjson.printer, "5/data", recursive=False, perms=True, full=False)
        await command.ls(house.mesh(), names.printer, "5/data", recursive=False, perms=False, full=False)

    assert ndjson.records[0] == {
        "path": "/local/domain/5/data/os_name",
        "value": "Debian",
        "raw": None,
        "size": 6,
        "redacted": False,
        "perms": ["n0", "r5"],
    }
    assert names.lines == ["/local/domain/5/data/os_name", "/local/domain/5/data/evil"]


async def test_full_paths(house: House, table: Heard) -> None:
    async with house.serve():
        await command.ls(house.mesh(), table.printer, "5/data", recursive=True, perms=False, full=True)

    assert table.lines[0] == '/local/domain/5/data/os_name = "Debian"'


async def test_what_is_not_there(house: House, table: Heard) -> None:
    async with house.serve():
        with pytest.raises(NotFound, match="no /nope"):
            await command.ls(house.mesh(), table.printer, "/nope", recursive=False, perms=False, full=False)
        with pytest.raises(NotFound) as caught:
            await command.read(house.mesh(), table.printer, ["5/data/nope"], raw=False)

    assert caught.value.hint == "see what there is: xenmesh store ls /local/domain/5/data"


async def test_read_one_and_several(house: House, table: Heard) -> None:
    async with house.serve():
        await command.read(house.mesh(), table.printer, ["web-1/data/os_name"], raw=False)
        await command.read(house.mesh(), table.printer, ["5/name", "5/data/evil"], raw=False)

    assert table.lines == ["Debian", '/local/domain/5/name = "web-1"', '/local/domain/5/data/evil = "\\x1b[2J"']


async def test_raw_bytes(house: House, table: Heard, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    async with house.serve():
        await command.read(house.mesh(), table.printer, ["5/data/evil"], raw=True)
        with pytest.raises(UsageError):
            await command.read(house.mesh(), table.printer, ["5/name", "5/vm"], raw=True)

    assert capfdbinary.readouterr().out == b"\x1b[2J"


@pytest.mark.parametrize(
    "node",
    [store.Node(path="/x", value=None, size=8, redacted=True), store.Node(path="/x", value="ab", size=9)],
)
def test_what_is_not_told_is_not_printed_raw(node: store.Node) -> None:
    with pytest.raises(CommandError):
        command._write_raw(node)


async def test_watch_changes_below_a_path(house: House, table: Heard) -> None:
    async with house.serve(), anyio.create_task_group() as group:

        async def watch() -> None:
            await command.watch(house.mesh(), table.printer, ["web-1/data", "/vm"], snapshot=True, count=3)
            group.cancel_scope.cancel()

        await house.boot(5, "web-1")
        await house.say(changed("/local/domain/5/data/os_name", "Debian", UUID))
        group.start_soon(watch)
        await eventually(lambda: table.lines, "the snapshot")
        await house.say(
            changed("/local/domain/5/database", "no", UUID),
            changed("/local/domain/5/data/a", "1", UUID),
            changed("/vm/x", "2"),
            store.Removed(domid=5, uuid=UUID, path="/local/domain/5"),
        )

    assert table.lines[0] == '/local/domain/5/data/os_name = "Debian"'
    assert [line[14:] for line in table.lines[1:]] == ['/local/domain/5/data/a = "1"', '/vm/x = "2"', "/local/domain/5 removed"]


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("/local/domain/5/data", "store.5"),
        ("/local/domain/5", "store.5"),
        ("/local/domain", None),
        ("/", None),
        ("/vm/x", "store.host"),
        ("/tool", "store.host"),
        ("/libxl/5", None),
        ("/local", None),
    ],
)
def test_owners(path: str, owner: str | None) -> None:
    assert command._owner(path) == owner
