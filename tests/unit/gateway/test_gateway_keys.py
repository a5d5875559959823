"""API keys: found, refused, scoped, reloaded; bad files are named."""

import hashlib
import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from enginewright_api.errors import DeterministicError
from enginewright_api.recipe import Task
from enginewright_gateway.errors import RefusedError
from enginewright_gateway.keys import KeyRing, read_keys
from enginewright_gateway.main import cli
from enginewright_gateway.routes import ServedModel
from enginewright_gateway.settings import GatewaySettings


def write_key(folder: Path, name: str, key: str, *models: str) -> None:
    digest = hashlib.sha256(key.encode()).hexdigest()
    (folder / name).write_text(json.dumps({"sha256": digest, "models": models}))


def model(model_id: str) -> ServedModel:
    namespace, _, name = model_id.partition("/")
    return ServedModel(
        namespace=namespace, name=name, task=Task.EMBEDDING, max_batch_size=1, max_queue_size=1, queue_timeout_seconds=1
    )


@pytest.mark.parametrize("header", ["Bearer secret", "bearer secret", "Bearer  secret "])
def test_a_known_key_is_its_owner(tmp_path: Path, header: str) -> None:
    write_key(tmp_path, "other", "else", "*")
    write_key(tmp_path, "team-search", "secret", "search/*")
    assert KeyRing(tmp_path).caller(header).name == "team-search"


@pytest.mark.parametrize(
    "header", [None, "", "secret", "Basic secret", "Bearer", "Bearer ", "Bearer wrong", "Bearer secre", "Bearer \udcff"]
)
def test_anything_else_is_401(tmp_path: Path, header: str | None) -> None:
    write_key(tmp_path, "team", "secret", "*")
    with pytest.raises(RefusedError) as caught:
        KeyRing(tmp_path).caller(header)
    assert caught.value.status == 401
    assert "secre" not in caught.value.message


@pytest.mark.parametrize(
    ("pattern", "may"), [("*", True), ("search/*", True), ("search/words", True), ("words", False), ("sale/*", False)]
)
def test_a_key_opens_the_models_of_its_scope(tmp_path: Path, pattern: str, may: bool) -> None:
    write_key(tmp_path, "team", "secret", pattern)
    caller = KeyRing(tmp_path).caller("Bearer secret")
    assert caller.may_use(model("search/words")) is may
    assert [m.id for m in caller.visible([model("search/words")])] == (["search/words"] if may else [])


def test_a_mounted_secret_is_read_through_its_links(tmp_path: Path) -> None:
    data = tmp_path / "..2026_01"
    data.mkdir()
    write_key(data, "team", "secret", "*")
    (tmp_path / "..data").symlink_to(data)
    (tmp_path / "team").symlink_to(Path("..data", "team"))
    assert list(read_keys(tmp_path)) == ["team"]


@pytest.mark.parametrize(
    "text",
    ["", "secret", "{}", '{"sha256": "abc", "models": ["*"]}', '{"sha256": "%s", "models": []}' % ("0" * 64)],
    ids=["empty", "the key itself", "no fields", "not a digest", "no models"],
)
def test_a_file_that_is_no_key_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "team").write_text(text)
    with pytest.raises(DeterministicError, match="team: must hold"):
        KeyRing(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeterministicError, match="no such folder"):
        KeyRing(tmp_path / "none")


def test_keys_are_reloaded_and_a_bad_file_keeps_the_former_ones(tmp_path: Path) -> None:
    now = [0.0]
    write_key(tmp_path, "first", "one", "*")
    ring = KeyRing(tmp_path, clock=lambda: now[0])
    write_key(tmp_path, "second", "two", "*")
    (tmp_path / "first").unlink()
    assert ring.caller("Bearer one").name == "first"  # not yet
    now[0] += 6
    assert ring.caller("Bearer two").name == "second"
    with pytest.raises(RefusedError):
        ring.caller("Bearer one")
    (tmp_path / "third").write_text("broken")
    now[0] += 6
    assert ring.caller("Bearer two").name == "second"


@pytest.mark.parametrize("given", [{}, {"allow_anonymous": True, "keys_dir": "/keys"}])
def test_open_or_with_keys_is_a_decision(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="allow-anonymous"):
        GatewaySettings(**given)


def test_the_key_command_makes_a_key_that_opens(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["key", "--model", "search/*"])
    assert result.exit_code == 0
    secret, file = result.stdout.strip().splitlines()
    (tmp_path / "new").write_text(file)
    assert secret not in file
    assert KeyRing(tmp_path).caller(f"Bearer {secret}").patterns == ("search/*",)


def test_the_program_refuses_to_start_without_that_decision() -> None:
    result = CliRunner().invoke(cli, ["run"])
    assert result.exit_code == 2
    assert "keys_dir" in result.output
