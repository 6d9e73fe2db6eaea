"""Errors are looked at as an operator sees them: which file, which key, what may be there."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenmesh.services.daemon.config import SERVICES, BusConfig, MeshConfig, credential, find_files, load, show, well
from xenmesh.services.daemon.errors import ConfigError, CredentialError


def written(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def refused(file: Path, environment: dict[str, str] | None = None, *, whole: bool = False) -> str:
    with pytest.raises(ConfigError) as caught:
        load((), [file], environment or {}, whole=whole)
    assert caught.value.status == 78
    return caught.value.sentence


def test_defaults_need_no_file():
    config = load((), [], {})
    assert config.bus.url == "nats://127.0.0.1:4222"
    assert config.mesh.state == "/var/lib/xenmesh"
    assert config.origins == {}


def test_files_come_in_order_and_drop_ins_last(tmp_path):
    written(tmp_path / "20.toml", "[mesh]\nhost = 'b'\nlog = 'debug'\n")
    written(tmp_path / "10.toml", "[mesh]\nhost = 'a'\n[xenstore]\npath = '/x'\n")
    written(tmp_path / "conf.d" / "05.toml", "[mesh]\nhost = 'c'\n")
    written(tmp_path / "notes.txt", "not ours")
    assert [file.name for file in find_files(tmp_path)] == ["10.toml", "20.toml", "05.toml"]
    config = load((), [tmp_path], {})
    assert (config.mesh.host, config.mesh.log, config.xenstore.path) == ("c", "debug", "/x")
    assert config.origins["mesh.host"] == str(tmp_path / "conf.d" / "05.toml")
    assert config.files == tuple(find_files(tmp_path))


def test_the_environment_has_the_last_word(tmp_path):
    file = written(tmp_path / "a.toml", "[bus]\nurl = 'nats://10.0.0.1:1'\nwait = 3\n")
    config = load((), [file], {"XENMESH_BUS_URL": "nats://[::1]:4222", "XENMESH_BUS_WAIT": "7.5", "XENMESH_RIGS": "required"})
    assert config.bus == BusConfig(url="nats://[::1]:4222", wait=7.5)
    assert config.origins["bus.url"] == "$XENMESH_BUS_URL"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[bus]\nurll = 'x'", "[bus] urll: there is no such key (did you mean url?); there are: url, credentials, wait"),
        (
            "[bsu]\nurl = 'x'",
            "[bsu]: there is no such section (did you mean bus?); there are: mesh, bus, xenstore, store, events",
        ),
        ("bus = 'x'", "bus: is a section: write [bus] and keys under it"),
        ("[bus]\nurl = 5", "[bus] url: 5 cannot be; it must be nats://<address>:<port>, without user or password"),
        ("[bus]\nurl = 'nats://u:p@127.0.0.1:4222'", "it must be nats://<address>:<port>, without user or password"),
        ("[bus]\nwait = 0", "[bus] wait: 0 cannot be; it must be a number, above 0, at most 600"),
        ("[mesh]\nlog = 'loud'", '[mesh] log: \'loud\' cannot be; it must be one of "debug", "error", "info", "warning"'),
        ("[mesh]\nhost = 'dom0.example'", "it must be letters, digits, '-' and '_', at most 64 characters"),
        ("[mesh]\nhost = ", "is not TOML: Invalid value (at end of document)"),
        ("[xenstore]\npath = ['/a']", "[xenstore] path: ['/a'] cannot be; it must be a string"),
    ],
)
def test_an_error_names_the_file_the_key_and_what_may_be_there(tmp_path, text, said):
    file = written(tmp_path / "my.toml", text)
    sentence = refused(file)
    assert sentence.startswith(f"{file}: ")
    assert said in sentence


def test_of_two_files_the_one_at_fault_is_named(tmp_path):
    written(tmp_path / "1.toml", "[bus]\nwait = 1\n")
    written(tmp_path / "conf.d" / "2.toml", "[bus]\nwait = -1\n")
    assert refused(tmp_path).startswith(f"{tmp_path}/conf.d/2.toml: [bus] wait: -1 cannot be")


def test_an_error_in_the_environment_names_the_variable(tmp_path):
    assert refused(tmp_path, {"XENMESH_BUS_WAIT": "soon"}).startswith("$XENMESH_BUS_WAIT: [bus] wait: 'soon' cannot be")
    assert refused(tmp_path, {"XENMESH_MESH_HOSTNAME": "x"}).startswith(
        "$XENMESH_MESH_HOSTNAME: [mesh] hostname: there is no such key"
    )


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path):
    assert refused(tmp_path / "no.toml") == f"{tmp_path}/no.toml: cannot be read: No such file or directory"
    (tmp_path / "bad.toml").write_bytes(b"[bus]\nurl = '\xff'")
    assert refused(tmp_path / "bad.toml").startswith(f"{tmp_path}/bad.toml: is not UTF-8")


def test_only_the_services_asked_for_are_looked_at_unless_the_whole_is(tmp_path):
    file = written(tmp_path / "a.toml", "[events]\nno-such-key = 1\n")
    assert load((), [file], {}).services == {}
    assert "[events] no-such-key: there is no such key" in refused(file, whole=True)


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_has_a_config_that_stands_by_itself(name):
    section = load((name,), [], {}).services[name]
    assert isinstance(section, msgspec.Struct)
    assert section.__struct_config__.frozen
    assert section.__struct_config__.forbid_unknown_fields


def test_what_is_shown_can_be_read_again(tmp_path):
    config = load(SERVICES, [], {"XENMESH_MESH_LOG": "debug"})
    text = show(config)
    assert 'log = "debug"  # $XENMESH_MESH_LOG' in text
    again = load(SERVICES, [written(tmp_path / "a.toml", text)], {})
    assert (again.mesh, again.bus, again.xenstore, again.services) == (
        config.mesh,
        config.bus,
        config.xenstore,
        config.services,
    )


@given(
    st.dictionaries(st.text(max_size=8), st.one_of(st.integers(), st.text(max_size=8), st.booleans(), st.none()), max_size=3)
)
def test_any_section_is_taken_or_refused_with_its_key(keys):
    from xenmesh.services.daemon.config import Value, _section

    values = {key: Value(value, "file") for key, value in keys.items()}
    try:
        wanted = msgspec.convert(keys, MeshConfig)
    except msgspec.ValidationError:
        with pytest.raises(ConfigError, match=r"^file: \[mesh\] "):
            _section("mesh", MeshConfig, values)
    else:
        assert _section("mesh", MeshConfig, values) == wanted


class Many(msgspec.Struct):
    some: list[int] | None
    table: dict[str, bool]


def test_types_in_words():
    some, table = (field.type for field in msgspec.structs.fields(Many))
    assert well(some) == "a list, each item a whole number or nothing"
    assert well(table) == "a table, each value true or false"


def test_credentials_are_files_by_service(tmp_path):
    written(tmp_path / "store.nk", "seed")
    assert credential(BusConfig(), "store", {}) is None
    assert credential(BusConfig(), "store", {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == tmp_path / "store.nk"
    assert (
        credential(BusConfig(credentials=str(tmp_path)), "store", {"CREDENTIALS_DIRECTORY": "/none"}) == tmp_path / "store.nk"
    )
    with pytest.raises(
        CredentialError, match=r"events\.nk: is not there; \[bus\] credentials must hold the nkey seed of the service events"
    ):
        credential(BusConfig(credentials=str(tmp_path)), "events", {})
