"""Texts to answers through KServe v2 over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from enginewright_api.errors import DeterministicError, TransientError
from enginewright_builder.datasets.rows import Text
from enginewright_builder.servers.server import Server

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Answers:
    """What an engine said: one row a text."""

    vectors: NDArray[np.float32]
    tokens: NDArray[np.int32]


class Answering(Protocol):
    """What the gate needs of a connection, whatever the engine does."""

    def ask_all(self, texts: Sequence[Text], *, batch: int) -> Answers:
        """One row a text, in the order of the texts; one row a word where words are labelled."""

    def __enter__(self) -> Answering: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Client:
    """One connection to one server."""

    def __init__(self, server: Server, output: str, *others: str) -> None:
        """Each request asks for `output`, one row a text, for `others` and for the number of tokens."""
        from tritonclient import http as triton

        self._triton = triton
        self._server = server
        self._output = output
        self.outputs = (output, *others, "tokens")
        self.name = server.name
        self._client = triton.InferenceServerClient(
            f"127.0.0.1:{server.ports.http}", connection_timeout=_TIMEOUT_SECONDS, network_timeout=_TIMEOUT_SECONDS
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def ask(self, texts: Sequence[Text]) -> Answers:
        """One request, one row a text. Raises as `infer`."""
        told = self.infer(texts)
        return Answers(told[self._output], told["tokens"].reshape(-1))

    def infer(self, texts: Sequence[Text]) -> dict[str, Any]:
        """Tensors of one request, by name.

        Raises DeterministicError EngineFailed (it refuses, or leaves texts out) or TransientError (it is gone).
        """
        first = [text if isinstance(text, str) else text[0] for text in texts]
        second = [text[1] for text in texts if not isinstance(text, str)]
        given = [self._input("text", first), *([self._input("text_pair", second)] if second else [])]
        wanted = [self._triton.InferRequestedOutput(name) for name in self.outputs]
        try:
            result = self._client.infer(self._server.name, given, outputs=wanted)
        except self._triton.InferenceServerException as error:
            raise DeterministicError(
                "EngineFailed", f"engine {self._server.name} failed on a request: {error.message()}"[:500]
            ) from error
        except (OSError, HTTPException) as error:
            raise TransientError("ServerGone", f"engine {self._server.name}: connection lost ({error})") from error
        told = {name: result.as_numpy(name) for name in self.outputs}
        for values in told.values():
            if values is None or values.shape[0] != len(texts):
                raise DeterministicError(
                    "EngineFailed",
                    f"engine {self.name} gave {None if values is None else values.shape} for {len(texts)} texts",
                )
        return told

    def ask_all(self, texts: Sequence[Text], *, batch: int) -> Answers:
        """All texts, `batch` a request, answers in the order of the texts.

        Requests are made of texts of similar length: less padding, and the same for every engine.
        """
        import numpy as np

        chunks = self.chunks(texts, batch)
        parts = [self.ask([texts[index] for index in chunk]) for chunk in chunks]
        back = np.argsort(np.array([index for chunk in chunks for index in chunk], dtype=np.int64), kind="stable")
        return Answers(
            np.concatenate([part.vectors for part in parts])[back],
            np.concatenate([part.tokens for part in parts])[back],
        )

    def chunks(self, texts: Sequence[Text], batch: int) -> list[list[int]]:
        """Numbers of the texts of each request."""
        order = sorted(range(len(texts)), key=lambda index: _length(texts[index]))
        return [order[start : start + batch] for start in range(0, len(order), batch)]

    def _input(self, name: str, texts: Sequence[str]) -> Any:
        import numpy as np

        values = np.array([[text.encode()] for text in texts], dtype=np.object_)
        given = self._triton.InferInput(name, list(values.shape), "BYTES")
        given.set_data_from_numpy(values)
        return given


def _length(text: Text) -> int:
    return len(text) if isinstance(text, str) else len(text[0]) + len(text[1])
