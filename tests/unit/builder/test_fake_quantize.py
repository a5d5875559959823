"""Linear modules that compute quantised while they learn, and the ones that exporters write."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from enginewright_builder.compression.fake_quantize import ActivationGrid, ExportedLinear, Ranges, TrainedLinear

INPUTS, OUTPUTS = 12, 5


def trained(*, per_channel: bool, smooth: bool = True) -> tuple[TrainedLinear, torch.Tensor]:
    """A module and inputs within its range; one output is a hundred times as large as the others."""
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(INPUTS, OUTPUTS)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(OUTPUTS, INPUTS, generator=generator))
        linear.weight[0] *= 100
        linear.bias.copy_(torch.randn(OUTPUTS, generator=generator))
    values = torch.randn(64, INPUTS, generator=generator)
    smoothing = torch.linspace(0.5, 2.0, INPUTS) if smooth else torch.ones(INPUTS)
    ranges = Ranges(float((values / smoothing).min()), float((values / smoothing).max()))
    return TrainedLinear(linear, ActivationGrid(ranges, smoothing), per_channel=per_channel), values


def exported(module: TrainedLinear) -> ExportedLinear:
    with torch.no_grad():
        return ExportedLinear(
            module.levels().to(torch.int8),
            module.scale().flatten(),
            smoothing=module.grid.smoothing,
            scale=module.grid.scale(),
            zero=module.grid.zero(),
            bias=module.bias,
        )


@pytest.mark.parametrize("per_channel", [True, False])
def test_quantised_products_are_near_and_a_scale_for_each_output_is_nearer(per_channel: bool) -> None:
    module, values = trained(per_channel=per_channel)
    plain = nn.functional.linear(values, module.weight, module.bias)
    error = (module(values) - plain).detach().abs().amax(0)
    spread = plain.detach().std(0)
    # With one scale the small outputs have a hundredth of the levels.
    assert (error[1:] < 0.1 * spread[1:]).all() == per_channel
    assert error[0] < 0.1 * spread[0]


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("smooth", [True, False])
def test_what_is_exported_computes_what_learnt(per_channel: bool, smooth: bool) -> None:
    module, values = trained(per_channel=per_channel, smooth=smooth)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.003)  # as if it had learnt: scales, zero point, weights and bias
    assert not torch.equal(module.scale(), module.base_scale)
    torch.testing.assert_close(exported(module)(values), module(values).detach(), atol=1e-4, rtol=1e-4)


def test_every_part_learns() -> None:
    module, values = trained(per_channel=True)
    # The zero point learns from values beyond the range only: within it, it cancels out.
    module(2 * values).square().sum().backward()
    learning = dict(module.named_parameters())
    assert set(learning) == {"weight", "bias", "scale_offset", "grid.scale_offset", "grid.zero_offset"}
    for name, parameter in learning.items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_values_beyond_the_range_are_cut_and_teach_the_scale() -> None:
    module, _ = trained(per_channel=True, smooth=False)
    far = torch.full((1, INPUTS), 1000.0)
    highest = (255 - module.grid.zero()) * module.grid.scale()
    assert torch.equal(module.grid(far), highest.expand(1, INPUTS))
    module.grid(far).sum().backward()
    assert module.grid.scale_offset.grad is not None
    assert module.grid.scale_offset.grad > 0


def test_pruned_weights_stay_zero() -> None:
    module, _ = trained(per_channel=True)
    linear = nn.Linear(INPUTS, OUTPUTS)
    with torch.no_grad():
        linear.weight.copy_(module.weight)
        linear.weight[:, ::2] = 0.0
    pruned = TrainedLinear(linear, module.grid, per_channel=True)
    with torch.no_grad():
        pruned.weight.sub_(1.0)  # more than any step moves a weight
    levels = pruned.levels()
    assert (levels[:, ::2] == 0).all()
    assert (levels[:, 1::2] != 0).any()
