"""Linear modules that compute as their INT8 engine will, with scales that learn.

A product is quantised as NNCF and ONNX Runtime do it: activations to 8 bits without sign by one scale and zero point,
weights to 8 bits with sign by a scale for each output (or one), both by rounding to the nearest level. Gradients pass
through the rounding (straight-through estimator, Bengio 2013); scales and zero points learn along with the weights
(LSQ+, Bhalgat 2020). Before that, activations are divided by a factor for each input and weights multiplied by it
(SmoothQuant, Xiao 2023), so that channels with outliers do not take the levels of all others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

LOWEST, HIGHEST = -127, 127
"""Levels of weights; symmetric, so that zero is one of them."""
LEVELS = 255
"""Highest level of activations; the lowest is 0."""
_TINY = 1e-8
_GAIN = 30.0
"""A learning rate r moves a scale by the factor exp(30 r) a step: weights and scales can share one rate."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """What the inputs of a module were on calibration rows; float32."""

    low: float
    high: float
    """Mean over the rows' batches of the least and greatest value, after smoothing."""


class ActivationGrid(nn.Module):  # type: ignore[misc]  # torch has no types here
    """Scale and zero point of activations; modules that read the same tensor share it."""

    base_scale: torch.Tensor
    base_zero: torch.Tensor
    smoothing: torch.Tensor

    def __init__(self, ranges: Ranges, smoothing: torch.Tensor) -> None:
        super().__init__()
        low, high = min(ranges.low, 0.0), max(ranges.high, 0.0)
        scale = max(high - low, _TINY) / LEVELS
        self.register_buffer("base_scale", torch.tensor(scale))
        self.register_buffer("base_zero", torch.tensor(-low / scale))
        self.register_buffer("smoothing", smoothing)
        self.scale_offset = nn.Parameter(torch.zeros(()))
        self.zero_offset = nn.Parameter(torch.zeros(()))

    def scale(self) -> torch.Tensor:
        """Positive, float32 []."""
        return self.base_scale * torch.exp(_GAIN * self.scale_offset)

    def zero(self) -> torch.Tensor:
        """Level of the value 0: whole, 0..255, float32 []."""
        return _rounded(self.base_zero + _GAIN * LEVELS * self.zero_offset).clamp(0, LEVELS)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        scale, zero = self.scale(), self.zero()
        levels = (_rounded(values / self.smoothing / scale) + zero).clamp(0, LEVELS)
        return (levels - zero) * scale


class TrainedLinear(nn.Linear):  # type: ignore[misc]  # torch has no types here
    """A linear module while it learns: y = grid(x / s) · grid(W · s)ᵀ + b. Pruned weights, which are zero, stay so."""

    base_scale: torch.Tensor
    kept: torch.Tensor

    def __init__(self, linear: nn.Linear, grid: ActivationGrid, *, per_channel: bool) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias, self.grid = linear.weight, linear.bias, grid
        smoothed = (linear.weight.detach() * grid.smoothing).abs()
        largest = smoothed.amax(1, keepdim=True) if per_channel else smoothed.amax().reshape(1, 1)
        self.register_buffer("base_scale", largest.clamp(min=_TINY) / HIGHEST)
        self.register_buffer("kept", linear.weight.detach() != 0)
        self.scale_offset = nn.Parameter(torch.zeros_like(largest))

    def scale(self) -> torch.Tensor:
        """Positive, float32 [outputs, 1] or [1, 1]."""
        return self.base_scale * torch.exp(_GAIN * self.scale_offset)

    def levels(self) -> torch.Tensor:
        """The weights as they will be stored: whole numbers, float32 [outputs, inputs]."""
        return _rounded(self.weight * self.kept * self.grid.smoothing / self.scale()).clamp(LOWEST, HIGHEST)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
        return nn.functional.linear(self.grid(input), self.levels() * self.scale(), self.bias)


class ExportedLinear(nn.Module):  # type: ignore[misc]  # torch has no types here
    """The same with scales that are constants, in operators that exporters know as quantisation.

    `levels`: int8 [outputs, inputs]; `scales`: float32 [outputs] or [1].
    """

    def __init__(
        self,
        levels: torch.Tensor,
        scales: torch.Tensor,
        *,
        smoothing: torch.Tensor,
        scale: torch.Tensor,
        zero: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> None:
        super().__init__()
        # Inputs first, as a matrix product wants them: runtimes see the stored weights without a transposition.
        self.weight = nn.Parameter((levels.float() * scales.reshape(-1, 1)).T.contiguous(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", torch.zeros(scales.numel(), dtype=torch.int32))
        self.register_buffer("factor", 1.0 / smoothing)
        self.smooths = bool((smoothing != 1.0).any())
        self.scale, self.zero = float(scale), int(zero)
        # A number, not a tensor: it is a constant of the graph.
        self.one_scale = float(scales) if scales.numel() == 1 else None

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if self.smooths:
            values = values * self.factor
        values = torch.fake_quantize_per_tensor_affine(values, self.scale, self.zero, 0, LEVELS)
        if self.one_scale is not None:
            weight = torch.fake_quantize_per_tensor_affine(self.weight, self.one_scale, 0, LOWEST - 1, HIGHEST)
        else:
            weight = torch.fake_quantize_per_channel_affine(
                self.weight, self.scales, self.zeros, 1, LOWEST - 1, HIGHEST
            )
        found = torch.matmul(values, weight)
        return found if self.bias is None else found + self.bias


def _rounded(values: torch.Tensor) -> torch.Tensor:
    """To the nearest whole number; the gradient passes as if nothing were rounded."""
    return values + (values.round() - values).detach()
