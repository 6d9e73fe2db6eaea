import msgspec
import pytest

from xenmesh.schemas.store import AREAS
from xenmesh.services.store.budget import Pace
from xenmesh.services.store.config import Caps, StoreConfig


def test_the_defaults_watch_everything_and_hide_passwords() -> None:
    config = StoreConfig()

    assert config.areas == AREAS
    assert config.trees == ("/vm", "/libxl", "/tool")
    assert "*/vncpasswd" in config.secrets


def test_limits_are_handed_out_by_whose_tree_it_is() -> None:
    config = StoreConfig(guest_nodes=7, flood_interval=1.0, flood_quiet=2.0, flood_changes=3)

    assert config.guest == Caps(7, 64 << 10, 256, 16, 2048, 256 << 10)
    assert config.host.nodes == config.host.all_nodes == 200_000
    assert config.pace == Pace(1.0, 2.0, 3)


@pytest.mark.parametrize(
    "given",
    [
        {"areas": ["words"]},
        {"trees": ["vm"]},
        {"trees": ["/vm/"]},
        {"guest_nodes": 0},
        {"value": 1 << 20},
        {"flood_interval": 0},
        {"no_such_key": 1},
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(given, StoreConfig)


@pytest.mark.parametrize("tree", ["/local", "/local/domain", "/local/domain/5"])
def test_a_tree_that_domains_lie_in_is_refused(tree: str) -> None:
    with pytest.raises(ValueError, match="domains are watched"):
        StoreConfig(trees=(tree,))


def test_trees_may_not_lie_in_each_other() -> None:
    with pytest.raises(ValueError, match="within"):
        StoreConfig(trees=("/vm", "/vm/x"))
