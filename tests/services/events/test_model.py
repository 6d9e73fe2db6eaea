from hypothesis import given
from hypothesis import strategies as st

from xenmesh.schemas.request import Since
from xenmesh.services.events.config import EventsConfig
from xenmesh.services.events.model import bounded


@given(st.integers(-5, 2000), st.integers(1, 1000))
def test_only_what_is_too_much_is_brought_down(limit: int, page: int) -> None:
    asked = Since(pattern="evt.domain.>", cursor=3, limit=limit)
    answered = bounded(asked, EventsConfig(page=page))

    assert answered.limit == min(limit, page)
    assert (answered.pattern, answered.cursor) == ("evt.domain.>", 3)
