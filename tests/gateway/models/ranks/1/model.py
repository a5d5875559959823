"""A tiny reranker with the interface of a served one: a text's score is how many words it shares with the query."""

import numpy as np
import triton_python_backend_utils as pb


def _column(request, name: str) -> list[bytes]:
    return list(pb.get_input_tensor_by_name(request, name).as_numpy().reshape(-1))


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            pairs = [
                (set(query.split()), set(text.split()))
                for query, text in zip(_column(request, "text"), _column(request, "text_pair"), strict=True)
            ]
            scores = np.array([[len(query & text)] for query, text in pairs], dtype=np.float32)
            tokens = np.array([[len(query) + len(text)] for query, text in pairs], dtype=np.int32)
            responses.append(pb.InferenceResponse([pb.Tensor("scores", scores), pb.Tensor("tokens", tokens)]))
        return responses
