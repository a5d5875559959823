"""POST /v1/rerank through a real gateway and a real tritonserver."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway.running_gateway import RunningGateway
from tests.gateway.triton_process import TritonProcess, missing
from tests.required import cannot_run

DOCUMENTS = ["a hen", "a red fox ran", "nothing", "fox", "a red hen", "red fox"]


@pytest.fixture(scope="module")
def ranking() -> Iterator[RunningGateway]:
    if reason := missing():
        cannot_run(reason)
    server = TritonProcess("ranks")
    try:
        server.start()
        with RunningGateway() as running:
            running.add_model("ranks", task="Reranking", batching={"maxBatchSize": 4})
            running.add_endpoint("one", server.http_port, server.grpc_port, service="ranks")
            running.add_model("words")
            yield running
    finally:
        server.close()


def rerank(gateway: RunningGateway, **body: Any) -> tuple[int, Any]:
    status, answer, _ = gateway.ask("POST", "/v1/rerank", {"model": "ranks", "query": "red fox"} | body)
    return status, answer


def test_documents_come_best_first_over_several_batches(ranking: RunningGateway) -> None:
    status, answer = rerank(ranking, documents=DOCUMENTS)
    assert status == 200
    assert [result["index"] for result in answer["results"]] == [1, 5, 3, 4, 0, 2]
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores[0] == pytest.approx(1 / (1 + math.exp(-2)))
    assert scores[-1] == 0.5
    assert answer["usage"]["total_tokens"] == 6 * 2 + sum(len(set(text.split())) for text in DOCUMENTS)
    assert answer["model"] == "ranks"


def test_the_best_alone_with_their_texts(ranking: RunningGateway) -> None:
    documents = [{"text": text} for text in DOCUMENTS]
    status, answer = rerank(ranking, documents=documents, top_n=1, return_documents=True)
    assert status == 200
    assert [result["document"] for result in answer["results"]] == [{"text": "a red fox ran"}]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "documents"),
        ({"documents": []}, "documents"),
        ({"documents": ["a", 3]}, "documents: must be a list of 1 to 1000 texts"),
        ({"documents": ["a"], "query": ""}, "query"),
        ({"documents": ["a"], "top_n": 0}, "top_n"),
        ({"documents": ["a"], "rank_fields": ["x"]}, "rank_fields: is not a field"),
        ({"documents": ["a"], "model": "words"}, "task Embedding and ranks nothing"),
    ],
)
def test_what_is_wrong_is_named(ranking: RunningGateway, body: dict[str, Any], says: str) -> None:
    status, answer = rerank(ranking, **body)
    assert status == 400
    assert says in answer["error"]["message"]


def test_a_reranker_gives_no_embeddings(ranking: RunningGateway) -> None:
    status, answer, _ = ranking.ask("POST", "/v1/embeddings", {"model": "ranks", "input": "a"})
    assert status == 400
    assert "Reranking" in answer["error"]["message"]
