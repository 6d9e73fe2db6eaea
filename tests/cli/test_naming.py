import pytest
from cli.house import OTHER, UUID, House

from xenmesh.cli.errors import NotFound, UsageError
from xenmesh.cli.naming import all_domains, domain_called, each, list_of, path_called, read


async def test_a_domain_by_each_of_its_words(house: House) -> None:
    async with house.serve():
        await house.boot(5, "web-1")
        await house.boot(7, "web-2", OTHER)
        mesh = house.mesh()

        for word in ("web-1", "5", UUID):
            domain = await domain_called(mesh, word)
            assert (domain.domid, domain.uuid, domain.untrusted_name) == (5, UUID, "web-1")
        assert {each.label for each in (await all_domains(mesh)).by_domid.values()} == {"web-1", "web-2"}


async def test_no_such_domain_names_those_that_there_are(house: House) -> None:
    async with house.serve():
        await house.boot(5, "web-1")

        with pytest.raises(NotFound) as caught:
            await domain_called(house.mesh(), "web-9")

    assert caught.value.hint == "there are: web-1"


async def test_a_name_of_two_needs_a_domid(house: House) -> None:
    async with house.serve():
        await house.boot(5, "web")
        await house.boot(7, "web", OTHER)

        with pytest.raises(UsageError, match="2 domains are called web: 5, 7"):
            await domain_called(house.mesh(), "web")


async def test_a_name_of_digits_is_found_where_no_domid_is(house: House) -> None:
    async with house.serve():
        await house.boot(5, "42")

        assert (await domain_called(house.mesh(), "42")).domid == 5


async def test_paths_may_begin_with_a_domain(house: House) -> None:
    async with house.serve():
        await house.boot(5, "web-1")
        mesh = house.mesh()

        assert await path_called(mesh, "web-1/data/x") == "/local/domain/5/data/x"
        assert await path_called(mesh, "web-1") == "/local/domain/5"
        assert await path_called(mesh, "/vm/") == "/vm"
        assert await path_called(mesh, "/") == "/"
        with pytest.raises(UsageError, match="empty path"):
            await path_called(mesh, "")


async def test_what_is_not_there_is_none(house: House) -> None:
    async with house.serve():
        await house.boot(5, "web-1")
        mesh = house.mesh()

        assert await read(mesh, "/nope") is None
        assert await list_of(mesh, "/nope") is None
        nodes = await each(mesh, ["/nope", "/local/domain/5/name"])
        assert [node and node.value for node in nodes] == [None, "web-1"]
