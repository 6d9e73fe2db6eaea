from cli.house import HOST, House

from xenmesh.cli.discovery import discover


async def test_services_tell_who_they_are(house: House) -> None:
    async with house.serve():
        (found,) = await discover(house.mesh().bus, more=0.05)

    assert (found.name, found.host, found.version) == ("store", HOST, "1.2.3")


async def test_nobody_answers(house: House) -> None:
    assert await discover(house.mesh().bus, first=0.05) == []


async def test_what_is_no_answer_is_passed_over(house: House) -> None:
    mesh = house.mesh()

    def answer(message: object) -> None:
        replies.append(message.reply)  # type: ignore[attr-defined]

    replies: list[str] = []
    await mesh.bus.subscribe("$SRV.INFO", answer)
    async with house.serve():
        found = await discover(mesh.bus, more=0.05)
        await mesh.bus.publish(replies[0], b"not json")

    assert len(found) == 1
