"""Attention, layer normalisation, and GELU with its bias as single nodes.

ONNX Runtime fuses some of it again whenever it loads a graph; done here, quantisation sees the final graph, attention
is fused too (the run-time pass does not know the pattern), and the numbers of nodes can be checked.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from enginewright_builder.toolchain.inputs import Feed

FUSED = ("MultiHeadAttention", "SkipLayerNormalization", "LayerNormalization", "BiasGelu", "Gelu")
_TOLERANCE = 1e-4
_DOMAIN = "com.microsoft"
"""Of the fused operators."""
_log = logging.getLogger(__name__)


def fuse(graph: Path, head_size: int | None, probe: Feed) -> Counter[str]:
    """Rewrite a float32 graph in place; counts of the fused nodes in it.

    `head_size`: dimension of one attention head; None leaves attention as it is. Projections stay products of their
    own (MultiHeadAttention, not Attention), so that they are quantised, excluded and measured by their module's name.
    A fused graph that answers `probe` otherwise than the plain one (an attention the optimiser mistook) is thrown away.
    """
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    # It warns that the hidden size below is not the model's.
    logging.getLogger("fusion_attention").setLevel(logging.ERROR)
    options = FusionOptions("bert")
    options.use_multi_head_attention = True
    options.enable_attention = head_size is not None
    # One node for all embeddings would hide their tables from weight compression.
    options.enable_embed_layer_norm = False
    # Slower on CPUs than the two nodes that it stands for; the server keeps ONNX Runtime from making it, too.
    options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = False
    # The node wants positions [batch, tokens]; exported graphs have [1, tokens], and it refuses to run on these.
    options.enable_rotary_embeddings = False
    # The optimiser takes one number of heads for all layers, and pruned layers differ: each node gets its own below.
    optimized = optimize_model(
        str(graph),
        model_type="bert",
        num_heads=1,
        hidden_size=head_size or 1,
        optimization_options=options,
        opt_level=0,
    )
    model = optimized.model
    if head_size is not None:
        _set_heads(model, head_size)
    plain, found = _answer(onnx.load(graph), probe), _answer(model, probe)
    if found.shape != plain.shape or np.abs(found - plain).max() > _TOLERANCE * max(np.abs(plain).max(), 1.0):
        _log.warning("the fused graph answers otherwise than the plain one; left as it was")
        return Counter()
    if all(opset.domain != _DOMAIN for opset in model.opset_import):
        # The optimiser leaves it out, and ONNX's shape inference, which the quantisers run, wants it.
        model.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    onnx.save(model, graph)
    return count(model)


def count(model: onnx.ModelProto) -> Counter[str]:
    """Fused nodes by operator."""
    return Counter(node.op_type for node in model.graph.node if node.op_type in FUSED)


def _set_heads(model: onnx.ModelProto, head_size: int) -> None:
    widths = {tensor.name: tensor.dims[-1] for tensor in model.graph.initializer if len(tensor.dims) == 2}
    products = {node.output[0]: node for node in model.graph.node if node.op_type == "MatMul"}
    for node in model.graph.node:
        if node.op_type != "MultiHeadAttention":
            continue
        width = widths[products[node.input[0]].input[1]]
        for attribute in node.attribute:
            if attribute.name == "num_heads":
                attribute.i = width // head_size


def _answer(model: onnx.ModelProto, probe: Feed) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, probe)[0]
