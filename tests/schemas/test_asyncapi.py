import json
from importlib.resources import files
from pathlib import Path

import pytest

from xenmesh.schemas import asyncapi
from xenmesh.schemas.subjects import DECLARATIONS

GENERATED = Path(str(files("xenmesh.schemas"))) / "generated"


def test_what_is_committed_is_current() -> None:
    assert asyncapi.main(["--check", str(GENERATED)]) == 0


def test_a_stale_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asyncapi.main(["--write", str(tmp_path)]) == 0
    (tmp_path / "asyncapi.json").write_text("{}")

    assert asyncapi.main(["--check", str(tmp_path)]) == 1
    assert "asyncapi.json is not current" in capsys.readouterr().err


def references(value: object) -> list[str]:
    if isinstance(value, dict):
        return [v for k, v in value.items() if k == "$ref"] + [r for v in value.values() for r in references(v)]
    if isinstance(value, list):
        return [r for v in value for r in references(v)]
    return []


@pytest.mark.parametrize("make", asyncapi.FILES.values(), ids=asyncapi.FILES)
def test_every_reference_leads_somewhere(make) -> None:
    document = make()
    for reference in references(document):
        place = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_each_verb_of_each_service_is_an_operation() -> None:
    operations = asyncapi.asyncapi()["operations"]
    for given in DECLARATIONS.values():
        for verb in given.answers:
            assert f"{given.name}.answers.{verb.name}" in operations


def test_docstrings_are_the_public_documentation() -> None:
    schema = asyncapi.json_schema()["$defs"]

    assert "A node is gone" in json.dumps(schema["Removed"])
