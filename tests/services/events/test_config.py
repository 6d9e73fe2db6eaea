import msgspec
import pytest

from xenmesh.services.events.config import EventsConfig


def test_a_page_has_bounds() -> None:
    assert EventsConfig().page == 500
    for page in (0, 1001, "many"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"page": page}, EventsConfig)
