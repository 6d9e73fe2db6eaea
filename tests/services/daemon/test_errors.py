import pytest

from xenmesh.services.daemon import errors
from xenmesh.services.daemon.errors import BusAway, ConfigError, CredentialError, DaemonError, HostIdError, ServiceFailed


@pytest.mark.parametrize(
    ("error", "sentence", "status"),
    [
        (ConfigError("/etc/x.toml", "bus.url", "must be a URL"), "/etc/x.toml: bus.url: must be a URL", 78),
        (ConfigError("/etc/x.toml", "", "is no TOML"), "/etc/x.toml: is no TOML", 78),
        (
            CredentialError("$CREDENTIALS_DIRECTORY", "store.nk", "is missing"),
            "$CREDENTIALS_DIRECTORY: store.nk: is missing",
            78,
        ),
        (HostIdError("no id"), "no id", 73),
        (BusAway("no bus"), "no bus", 69),
        (ServiceFailed("store", "ended"), "the service store ended", 70),
    ],
)
def test_each_says_a_sentence_and_ends_with_a_status_of_its_own(error: DaemonError, sentence: str, status: int) -> None:
    assert str(error) == error.sentence == sentence
    assert error.status == status


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name != "DaemonError"])
def test_the_tree_in_the_docstring_is_whole(name: str) -> None:
    assert f" {name} " in (errors.__doc__ or "")
    assert issubclass(getattr(errors, name), DaemonError)
