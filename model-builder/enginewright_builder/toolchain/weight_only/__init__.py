"""Weights in few bits, activations as they are: one implementation for every runtime on a CPU.

Both runtimes' own quantisers were measured first, on encoders. NNCF finds no pattern for AWQ, takes no calibration
rows for INT8 and needs half a minute of GPTQ for six layers; ONNX Runtime has no AWQ, takes GPTQ only for four bits and
visits tensors in the order of a set. What stays theirs is storing and computing: `u4` constants, `MatMulNBits`.
"""

from enginewright_builder.toolchain.weight_only.compress import compress
from enginewright_builder.toolchain.weight_only.graph import Matrix, Moments, WeightGraph
from enginewright_builder.toolchain.weight_only.grid import Codes, Grid

__all__ = ["Codes", "Grid", "Matrix", "Moments", "WeightGraph", "compress"]
