"""The same encoder as OpenVINO's CPU plugin runs it fastest in bf16. Only the order and form of operations changes.

Plugin 2026.4, BERT-base's shape in INT8, batch 32 × 128 tokens: 397 → 349 ms with attention and pooling rewritten, in
BF16 543 → 462 ms. `tests/builder/test_bf16_encoders.py` looks at what the plugin makes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enginewright_api.engine_description import Pooling

if TYPE_CHECKING:
    import openvino

_ATTENTION = "ScaledDotProductAttention"
_QUERIES_AND_KEYS = (0, 1)
_MOVES = frozenset({"Reshape", "Transpose", "Unsqueeze", "Squeeze"})
"""Operations that only arrange values: the quantiser of a projection stands before them."""
_HIDDEN = -1e9
"""Added to the scores of tokens that are not there; finite, and still so in bf16."""


def arrange_for_bf16(model: openvino.Model, pooling: Pooling) -> None:
    """All of this module, in place. Where nothing is pooled, the head's product ends what stays in float32."""
    unquantize_attention(model)
    spell_out_attention(model)
    if pooling is not Pooling.NONE:
        pool_by_product(model)


def unquantize_attention(model: openvino.Model) -> int:
    """Let attention compare queries and keys as they are. Returns how many quantisers went.

    In bf16 OpenVINO's attention over 8 bits (2026.4, AMX) answers wrongly for rows of exactly 32 tokens where heads are
    32 wide, as MiniLM's are: its logits are off by up to 7 there, by .1 everywhere else. And it is no faster than bf16.
    """
    gone = 0
    for node in _of_type(model, _ATTENTION):
        for number in _QUERIES_AND_KEYS:
            quantizer = quantizer_before(node.input_value(number))
            if quantizer is None:
                continue
            _replace(quantizer, quantizer.input_value(0))
            gone += 1
    return gone


def spell_out_attention(model: openvino.Model) -> int:
    """softmax(q·kᵀ / √width + mask)·v instead of the one operation. Returns how many were spelled out.

    The plugin fuses both into one kernel, but of the one operation it first turns keys around number by number
    ([batch, heads, width, tokens]); of this it moves whole rows. Causal attention, and heads whose width the graph does
    not say, stay.
    """
    import numpy as np
    from openvino import opset13 as ops

    done = 0
    for node in _of_type(model, _ATTENTION):
        query, key, value = (node.input_value(number) for number in range(3))
        shape = query.get_partial_shape()
        if shape.rank.is_dynamic or shape[-1].is_dynamic or node.get_attributes()["causal"]:
            continue
        scale = (
            node.input_value(4)
            if node.get_input_size() > 4
            else ops.constant(np.float32(shape[-1].get_length() ** -0.5)).output(0)
        )
        scores = ops.matmul(ops.multiply(query, scale), key, transpose_a=False, transpose_b=True)
        if node.get_input_size() > 3:
            scores = ops.add(scores, _added(node.input_value(3)))
        answer = ops.matmul(ops.softmax(scores, axis=-1), value, transpose_a=False, transpose_b=False)
        answer.set_friendly_name(node.get_friendly_name())
        _replace(node, answer.output(0))
        done += 1
    return done


def pool_by_product(model: openvino.Model) -> int:
    """The sum over tokens as mask · states, the first token's states as [1, 0, …] · states. Returns how many.

    The plugin keeps in float32 what lies between the last matrix product and the result. Residual sums are on that way
    back to the first layer, and with them every normalisation; a product in place of the sum ends it there.
    """
    import numpy as np
    from openvino import opset13 as ops

    done = 0
    for node in [*_of_type(model, "ReduceSum"), *_of_type(model, "Gather")]:
        found = _of_sum(node) if node.get_type_name() == "ReduceSum" else _of_first(node)
        if found is None:
            continue
        states, row = found
        pooled = ops.matmul(row, states, transpose_a=False, transpose_b=False)
        _replace(node, ops.squeeze(pooled, ops.constant(np.array([1]))).output(0))
        done += 1
    return done


def _of_sum(node: openvino.Node) -> tuple[openvino.Output, Any] | None:
    """States and mask that a sum over tokens multiplies; the mask as [batch, 1, tokens]."""
    import numpy as np
    from openvino import opset13 as ops

    masked = node.input_value(0).get_node()
    if masked.get_type_name() != "Multiply" or node.get_keep_dims() or _constant(node.input_value(1)) != [1]:
        return None
    states, mask = masked.input_value(0), masked.input_value(1)
    if not (_width(states) > 1 and _width(mask) == 1):
        return None
    return states, ops.reshape(mask, ops.constant(np.array([0, 1, -1])), special_zero=True)


def _of_first(node: openvino.Node) -> tuple[openvino.Output, Any] | None:
    """States of which the first token's are taken, and a row of 1 for it and 0 for the others, [1, tokens]."""
    import numpy as np
    from openvino import opset13 as ops

    states = node.input_value(0)
    if _width(states) < 2 or _constant(node.input_value(1)) != [0] or _constant(node.input_value(2)) != [1]:
        return None
    one, zero = ops.constant(np.float32(1)), ops.constant(np.float32(0))
    tokens = ops.gather(ops.shape_of(states), ops.constant(np.int64(1)), ops.constant(np.int64(0)))
    return states, ops.one_hot(ops.constant(np.array([0])), tokens, one, zero, axis=-1)


def _of_type(model: openvino.Model, name: str) -> list[openvino.Node]:
    return [node for node in model.get_ordered_ops() if node.get_type_name() == name]


def _replace(node: openvino.Node, value: openvino.Output) -> None:
    for reader in list(node.output(0).get_target_inputs()):
        reader.replace_source_output(value)


def quantizer_before(value: openvino.Output) -> openvino.Node | None:
    """What rounds a value, before it was only moved about."""
    node = value.get_node()
    while node.get_type_name() in _MOVES:
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "FakeQuantize" else None


def _added(mask: openvino.Output) -> Any:
    import numpy as np
    from openvino import Type
    from openvino import opset13 as ops

    if mask.get_element_type() != Type.boolean:
        return mask
    return ops.select(mask, ops.constant(np.float32(0)), ops.constant(np.float32(_HIDDEN)))


def _constant(value: openvino.Output) -> list[Any] | None:
    node = value.get_node()
    return node.data.ravel().tolist() if node.get_type_name() == "Constant" else None


def _width(value: openvino.Output) -> int:
    """Of [batch, tokens, width]; 0 for everything else."""
    shape = value.get_partial_shape()
    known = shape.rank.is_static and len(shape) == 3 and shape[2].is_static
    return int(shape[2].get_length()) if known else 0
