"""Attention that reads what it compares in floating point, in graphs whose other products read 8 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino

_ATTENTION = "ScaledDotProductAttention"
_QUERIES_AND_KEYS = (0, 1)
_MOVES = frozenset({"Reshape", "Transpose", "Unsqueeze", "Squeeze"})
"""Operations that only arrange values: the quantiser of a projection stands before them."""


def unquantize_attention(model: openvino.Model) -> int:
    """Let attention compare queries and keys as they are. Returns how many quantisers went.

    In bf16 OpenVINO's attention over 8 bits (2026.4, AMX) answers wrongly for rows of exactly 32 tokens where heads are
    32 wide, as MiniLM's are: its logits are off by up to 7 there, by .1 everywhere else. And it is no faster than bf16.
    """
    gone = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != _ATTENTION:
            continue
        for number in _QUERIES_AND_KEYS:
            quantizer = _quantizer(node.input_value(number).get_node())
            if quantizer is None:
                continue
            for reader in list(quantizer.output(0).get_target_inputs()):
                reader.replace_source_output(quantizer.input_value(0))
            gone += 1
    return gone


def _quantizer(node: openvino.Node) -> openvino.Node | None:
    while node.get_type_name() in _MOVES:
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "FakeQuantize" else None
