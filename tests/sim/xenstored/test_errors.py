import pytest

from xenmesh.sim.xenstored.errors import Refused
from xenmesh.sim.xenstored.session import Session
from xenmesh.sim.xenstored.store import Store


def test_a_refusal_bears_the_servers_code() -> None:
    with pytest.raises(Refused) as caught:
        Session(Store()).read("/nothing")
    assert caught.value.code == str(caught.value) == "ENOENT"
