"""Labels of tokens from a real server through the real gateway: the tensors of the protocol, both ways in."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from enginewright_api.engine_description import EngineDescription
from tests.gateway.running_gateway import RunningGateway
from tests.gateway.triton_process import missing
from tests.required import cannot_run
from tests.serving.servers import run_cli, serving

pytestmark = pytest.mark.timeout(300)
LABELS = ["O", "B-PER", "I-PER"]
CLASSES = {"ada": 1, "lovelace": 2, "[S]": 2}


def engine(folder: Path) -> Path:
    """The smallest engine that labels tokens: a table from ids to scores."""
    import openvino as ov
    from openvino import opset13 as ops

    (folder / "engine").mkdir(parents=True)
    (folder / "tokenizer").mkdir()
    words = {"[UNK]": 0, **{word: number for number, word in enumerate(CLASSES, start=1)}}
    table = np.eye(3, dtype=np.float32)[[0, *CLASSES.values()]] * 5
    ids, mask = (ops.parameter(ov.PartialShape([-1, -1]), np.int64, name) for name in ("input_ids", "attention_mask"))
    seen = ops.unsqueeze(ops.convert(mask, "f32"), np.array([2]))
    model = ov.Model([ops.result(ops.multiply(ops.gather(table, ids, np.array(0)), seen))], [ids, mask], "tiny")
    for port, name in zip(model.inputs, ("input_ids", "attention_mask"), strict=True):
        port.get_tensor().set_names({name})
    model.outputs[0].get_tensor().set_names({"token_scores"})
    ov.save_model(model, folder / "engine" / "openvino.xml", compress_to_fp16=False)
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[S] $A [S]", special_tokens=[("[S]", words["[S]"])])
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    description = EngineDescription.model_validate(
        {
            "task": "TokenClassification",
            "backend": "OpenVINO",
            "entry": "openvino.xml",
            "inputs": ["input_ids", "attention_mask"],
            "output": "token_scores",
            "outputDimension": 3,
            "labels": LABELS,
            "limits": {"maxBatchSize": 4, "maxInputTokens": 16},
            "fastPathTokens": 8,
            "runtimePackage": "openvino",
            "runtimeVersion": "0",
        }
    )
    (folder / "engine.json").write_text(description.model_dump_json(by_alias=True))
    return folder


@pytest.fixture(scope="module")
def labelling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    if reason := missing():
        cannot_run(reason)
    scratch = tmp_path_factory.mktemp("tokens")
    done = run_cli("stage", "--engine", engine(scratch / "e"), "--dest", scratch / "models", "--model-name", "names")
    assert done.returncode == 0, done.stderr
    with serving(scratch / "models", "names", scratch) as server, RunningGateway() as running:
        running.add_model("names", task="TokenClassification", batching={"maxBatchSize": 4})
        running.add_endpoint("one", server.ports["http"], server.ports["grpc"], service="names")
        yield running


def labels(gateway: RunningGateway, library: Any, *texts: str) -> dict[str, Any]:
    address = gateway.grpc if library is tritonclient.grpc else gateway.url.removeprefix("http://")
    given = library.InferInput("text", [len(texts), 1], "BYTES")
    given.set_data_from_numpy(np.array([[text.encode()] for text in texts], np.object_))
    with library.InferenceServerClient(address) as client:
        answer = client.infer("names", [given])
    return {name: answer.as_numpy(name) for name in ("token_scores", "token_spans", "token_labels", "tokens")}


@pytest.mark.parametrize("library", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def test_a_batch_of_texts_of_different_lengths(labelling: RunningGateway, library: Any) -> None:
    told = labels(labelling, library, "here Ada met ada lovelace", "", "ada")
    assert told["token_labels"].tolist() == [
        [b"O", b"O", b"O", b"B-PER", b"I-PER"],
        [b""] * 5,
        [b"B-PER", b"", b"", b"", b""],
    ]
    assert told["token_spans"][0].tolist() == [[0, 4], [5, 8], [9, 12], [13, 16], [17, 25]]
    assert told["token_spans"][2].tolist() == [[0, 3]] + [[-1, -1]] * 4
    assert told["token_scores"].shape == (3, 5, 3)
    assert told["token_scores"][2, 0].tolist() == [0, 5, 0]
    assert not told["token_scores"][2, 1:].any()
    assert told["tokens"].tolist() == [[7], [2], [3]]


def test_requests_that_share_an_execution_are_padded_each_for_itself(labelling: RunningGateway) -> None:
    texts = ["ada", "ada lovelace", "who is ada lovelace then", "x"] * 4
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: labels(labelling, tritonclient.http, text), texts))
    for text, told in zip(texts, found, strict=True):
        expected = [LABELS[CLASSES.get(word, 0)].encode() for word in text.split()]
        assert told["token_labels"].tolist() == [expected]


def test_metadata_says_what_has_no_fixed_length(labelling: RunningGateway) -> None:
    status, told, _ = labelling.ask("GET", "/v2/models/names")
    assert status == 200
    assert {one["name"]: (one["datatype"], one["shape"]) for one in told["outputs"]} == {
        "token_scores": ("FP32", [-1, -1, 3]),
        "token_spans": ("INT32", [-1, -1, 2]),
        "token_labels": ("BYTES", [-1, -1]),
        "tokens": ("INT32", [-1, 1]),
    }


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/v1/completions"])
def test_the_openai_surface_has_nothing_for_it_and_says_where_its_tensors_are(
    labelling: RunningGateway, path: str
) -> None:
    body = {"model": "names", "input": "a", "query": "a", "documents": ["b"], "prompt": "a"}
    wanted = {"/v1/embeddings": ["input"], "/v1/rerank": ["query", "documents"], "/v1/completions": ["prompt"]}[path]
    status, answer, _ = labelling.ask("POST", path, {name: body[name] for name in ("model", *wanted)})
    assert status == 400
    assert "names has task TokenClassification and " in answer["error"]["message"]
    assert answer["error"]["message"].endswith("; its tensors are at /v2/models/names/infer")
