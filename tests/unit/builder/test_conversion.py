"""What is told of a model that the converter refuses."""

from __future__ import annotations

from enginewright_builder.toolchain.conversion import reason

TRACING = """Couldn't get TorchScript module by tracing.
Exception:
shape '[-1, 4, 4, 16, 8]' is invalid for input of size 1024
Please check correctness of provided 'example_input'."""


def test_the_line_that_says_something_is_told() -> None:
    assert reason(RuntimeError(TRACING)) == "shape '[-1, 4, 4, 16, 8]' is invalid for input of size 1024"
    assert reason(ValueError("\nunknown operator aten::x\nmore")) == "unknown operator aten::x"


def test_an_error_without_words_still_has_a_reason() -> None:
    assert reason(NotImplementedError()) == "NotImplementedError"
