"""From the reader to a handler: at once, later, or not at all, and never with a gap."""

import time

import pytest
from rigs.waiting import eventually

from xenmesh.bus.delivery import MOST_BYTES, MOST_MESSAGES, Delivery
from xenmesh.bus.message import Message


def numbered(number: int, size: int = 0) -> Message:
    return Message(str(number), bytes(size))


async def test_a_quick_handler_is_called_at_once() -> None:
    heard: list[Message] = []
    delivery = Delivery(heard.append, lambda: pytest.fail("it was cut"))
    delivery.take(numbered(1))
    assert heard == [numbered(1)]
    assert not delivery.waiting


async def test_a_slow_handler_gets_the_rest_in_later_turns_in_order() -> None:
    heard: list[str] = []

    def slow(message: Message) -> None:
        time.sleep(0.0026)
        heard.append(message.subject)

    delivery = Delivery(slow, lambda: pytest.fail("it was cut"))
    for number in range(10):
        delivery.take(numbered(number))
    assert delivery.waiting  # the loop was not held up for all ten
    await eventually(lambda: len(heard) == 10, "all ten")
    assert heard == [str(number) for number in range(10)]
    assert not delivery.waiting


@pytest.mark.parametrize(("size", "most"), [(0, MOST_MESSAGES), (1 << 20, MOST_BYTES >> 20)])
async def test_whoever_falls_behind_is_cut_once_and_hears_nothing_more(size: int, most: int) -> None:
    heard: list[str] = []
    cuts: list[bool] = []

    def slow(message: Message) -> None:
        if not heard:
            time.sleep(0.01)
        heard.append(message.subject)

    delivery = Delivery(slow, lambda: cuts.append(True))
    for number in range(most + 1):
        delivery.take(numbered(number, size))
    assert cuts == []
    for number in range(most + 1, most + 10):
        delivery.take(numbered(number, size))
    assert cuts == [True]
    await eventually(lambda: heard, "what came before")
    delivery.take(numbered(0))
    assert heard == [str(number) for number in range(len(heard))]
    assert not delivery.waiting


async def test_a_failing_handler_is_reported_and_hears_the_next(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    def failing(message: Message) -> None:
        heard.append(message.subject)
        raise ValueError("no")

    delivery = Delivery(failing, lambda: pytest.fail("it was cut"))
    delivery.take(numbered(1))
    delivery.take(numbered(2))
    await eventually(lambda: heard == ["1", "2"], "the second")
    assert caplog.text.count("the handler of") == 2


async def test_the_handler_itself_may_end_it() -> None:
    heard: list[str] = []

    def once(message: Message) -> None:
        heard.append(message.subject)
        delivery.end()

    delivery = Delivery(once, lambda: pytest.fail("it was cut"))
    delivery.take(numbered(1))
    delivery.take(numbered(2))
    delivery.end()
    assert heard == ["1"]
