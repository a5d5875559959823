"""Servers of a build: taken ports are no fault of the engine, a broken engine is."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_builder.processes import Children
from enginewright_builder.servers import server as server_module
from enginewright_builder.servers.asking import Client
from enginewright_builder.servers.server import Ports, Server

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def children() -> Iterator[Children]:
    made = Children()
    yield made
    made.close()


def engine(folder: Path) -> Path:
    """The smallest OpenVINO embedding: a mask-weighted mean of the ids, as two numbers."""
    import numpy as np
    import openvino as ov
    from openvino import opset13 as ops

    (folder / "engine").mkdir(parents=True)
    (folder / "tokenizer").mkdir()
    shape = ov.PartialShape([-1, -1])
    ids, mask = ops.parameter(shape, np.int64, "input_ids"), ops.parameter(shape, np.int64, "attention_mask")
    numbers = ops.convert(ops.multiply(ids, mask), "f32")
    total = ops.reduce_sum(numbers, np.array([1]), keep_dims=True)
    found = ops.concat([total, ops.negative(total)], 1)
    model = ov.Model([ops.result(found)], [ids, mask], "tiny")
    for port, name in zip(model.inputs, ("input_ids", "attention_mask"), strict=True):
        port.get_tensor().set_names({name})
    model.outputs[0].get_tensor().set_names({"embedding"})
    ov.save_model(model, folder / "engine" / "openvino.xml", compress_to_fp16=False)
    tokenizer = Tokenizer(WordLevel({"[UNK]": 1, "two": 2, "five": 5}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    description = EngineDescription.model_validate(
        {
            "task": "Embedding",
            "backend": "OpenVINO",
            "entry": "openvino.xml",
            "inputs": ["input_ids", "attention_mask"],
            "output": "embedding",
            "outputDimension": 2,
            "limits": {"maxBatchSize": 4, "maxInputTokens": 16},
            "runtimePackage": "openvino",
            "runtimeVersion": "0",
        }
    )
    (folder / "engine.json").write_text(description.model_dump_json(by_alias=True))
    return folder


def test_answers_come_back_in_the_order_of_the_texts(tmp_path: Path, children: Children) -> None:
    started = Server.start(engine(tmp_path / "e"), name="tiny", scratch=tmp_path, threads=1, children=children)
    started.wait_ready()
    with Client(started, "embedding") as client:
        texts = ["two two two", "five", "two five", "two", "five five five five", "other"]
        answers = client.ask_all(texts, batch=2)
        assert answers.vectors[:, 0].tolist() == [6.0, 5.0, 7.0, 2.0, 20.0, 1.0]
        assert answers.tokens.tolist() == [3, 1, 2, 1, 4, 1]
        with pytest.raises(DeterministicError, match="batch-size"):
            client.ask(["two"] * 5)
    assert started.resident_bytes() > 2**20


def test_a_port_that_was_taken_meanwhile_is_no_fault_of_the_engine(
    tmp_path: Path, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = Ports.free
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        given: list[Any] = [Ports(taken.getsockname()[1], *(free().grpc for _ in range(3)))]
        monkeypatch.setattr(server_module.Ports, "free", lambda: given.pop() if given else free())
        started = Server.start(engine(tmp_path / "e"), name="tiny", scratch=tmp_path, threads=1, children=children)
        started.wait_ready()
        assert started.ports.http != taken.getsockname()[1]


def test_an_engine_that_cannot_be_loaded_is_refused_for_good(tmp_path: Path, children: Children) -> None:
    folder = engine(tmp_path / "e")
    (folder / "engine" / "openvino.xml").write_text("<net")
    started = Server.start(folder, name="tiny", scratch=tmp_path, threads=1, children=children)
    with pytest.raises(DeterministicError) as caught:
        started.wait_ready()
    assert caught.value.reason == "EngineLoadFailed"
    with pytest.raises(DeterministicError) as missing:
        Server.start(tmp_path / "none", name="tiny", scratch=tmp_path, threads=1, children=children)
    assert "none" in missing.value.message
