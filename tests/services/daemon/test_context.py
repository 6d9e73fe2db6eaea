import anyio

from xenmesh.services.daemon.context import Context


async def test_a_test_gives_only_what_it_looks_at() -> None:
    context = Context(host="h")

    context.ready()
    context.status("12 domains")
    context.prove(anyio.lowlevel.checkpoint)


async def test_nobody_is_stopped_unless_told() -> None:
    with anyio.move_on_after(0) as waited:
        await Context(host="h").stopped()

    assert waited.cancelled_caught
