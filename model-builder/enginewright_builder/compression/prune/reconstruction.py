"""Which pieces the others can make up for, and weights that do so.

A linear's output is known for texts that the model has read. Without some of its inputs, least squares gives the
weights of the others that come nearest to it; what is then still missing is what a piece counts for. Pieces go a few at
a time, the cheapest first, and the rest is judged anew: of two neurons that say the same only one goes.

Optimal Brain Surgeon (Hassibi and Stork 1993), of whole structures: ZipLM (Kurtic et al. 2023), Kwon et al. 2022.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from enginewright_builder.compression.anatomy import Layer, heads_of
from enginewright_builder.compression.training import Batch

_DAMPING = 1e-3
"""Added to the diagonal, as a share of its mean: keeps weights near to what they were where few tokens tell."""
_ROUNDS = 128
"""In so many rounds the pieces of a layer go; more than one a round saves time where there are many."""
_RISING = 1.0 + 1e-9
_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True, slots=True)
class Inputs:
    """Sums over the tokens of products of a linear's inputs, float32 [inputs + 1, inputs + 1]; the last input is 1.

    All that least squares needs to know; of all layers together about half of a model's own memory.
    """

    linears: dict[str, nn.Linear]
    products: dict[str, torch.Tensor]

    def scores(self, name: str, pieces: int, *, kept: int = 1) -> torch.Tensor:
        """What goes missing of the output's energy (share) when a piece is the next to go [pieces].

        Pieces are equal runs of inputs. They are scored as they go, so scores rise in the order of going; the last
        `kept` never go.
        """
        surgery = _Surgery(self._inputs(name), self.linears[name].weight.detach().double(), pieces)
        energy = float(((surgery.weight @ self._inputs(name)) * surgery.weight).sum())
        found = torch.full((pieces,), torch.inf, dtype=torch.float64)
        highest = 0.0
        at_once = max(1, pieces // _ROUNDS)
        while len(surgery.alive) > kept:
            for piece, error in surgery.remove(min(at_once, len(surgery.alive) - kept)):
                highest = max(highest * _RISING, error / max(energy, _TINY))
                found[piece] = highest
        return found

    def compensate(self, name: str, kept: Sequence[int]) -> None:
        """Change the weights (and the bias) of the kept inputs so that the others are missed least."""
        linear, products = self.linears[name], self.products[name].double()
        inputs = linear.in_features
        stay = torch.tensor([*kept, inputs] if linear.bias is not None else list(kept))
        go = torch.tensor(sorted(set(range(inputs)) - set(kept)), dtype=torch.long)
        with torch.no_grad():
            missing = products[stay][:, go] @ linear.weight.double()[:, go].T
            change = torch.linalg.solve(_damped(products[stay][:, stay]), missing).T
            linear.weight[:, stay[: len(kept)]] += change[:, : len(kept)].to(linear.weight.dtype)
            if linear.bias is not None:
                linear.bias += change[:, -1].to(linear.bias.dtype)

    def _inputs(self, name: str) -> torch.Tensor:
        return _damped(self.products[name][:-1, :-1].double())


def enough(batches: Iterable[Batch], tokens: int) -> Iterator[Batch]:
    """The first of them that hold so many real tokens."""
    for batch in batches:
        if tokens <= 0:
            return
        tokens -= int(batch.attention_mask.sum())
        yield batch


def look(model: nn.Module, names: Sequence[str], batches: Iterable[Batch]) -> Inputs:
    """Run the model over the batches and sum up what these linears are given for real tokens."""
    linears: dict[str, nn.Linear] = {}
    products: dict[str, torch.Tensor] = {}
    mask = torch.empty(0)

    def see(name: str, _: nn.Module, given: tuple[Any, ...]) -> None:
        real = given[0][mask].float()
        seen = torch.cat([real, torch.ones(len(real), 1)], dim=1)
        products[name] += seen.T @ seen

    hooks = []
    for name in names:
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)  # noqa: S101 - layouts name linears only
        linears[name] = linear
        products[name] = torch.zeros(linear.in_features + 1, linear.in_features + 1)
        hooks.append(linear.register_forward_pre_hook(partial(see, name)))
    try:
        with torch.no_grad():
            for batch in batches:
                mask = batch.attention_mask.bool()
                model(**batch.inputs())
    finally:
        for hook in hooks:
            hook.remove()
    return Inputs(linears, products)


def inputs_of_heads(model: nn.Module, layer: Layer, heads: Sequence[int]) -> list[int]:
    """Inputs of the attention's output that these key-value groups give."""
    found = heads_of(model, layer)
    width = found.group * found.size
    return [head * width + offset for head in heads for offset in range(width)]


class _Surgery:
    """Inputs of one linear while pieces of them go: the inverse of their products, and the weights as compensated.

    Both hold only what is left, so that each round costs less than the one before.
    """

    def __init__(self, products: torch.Tensor, weight: torch.Tensor, pieces: int) -> None:
        self.alive = list(range(pieces))
        self.weight = weight.clone()
        self._inverse = torch.linalg.inv(products)
        self._size = len(products) // pieces

    def remove(self, count: int) -> list[tuple[int, float]]:
        """The cheapest pieces with the error that each adds (squared, summed over tokens), cheapest first."""
        left, size = len(self.alive), self._size
        blocks = self._inverse.reshape(left, size, left, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        weights = self.weight.reshape(-1, left, size)
        errors = torch.einsum("opi,pij,opj->p", weights, torch.linalg.inv(blocks), weights)
        order = torch.argsort(errors, stable=True)
        chosen, others = order[:count], torch.sort(order[count:]).values
        where = torch.arange(left * size).reshape(left, size)
        self._cut(where[chosen].flatten(), where[others].flatten())
        gone = [(self.alive[index], float(errors[index])) for index in chosen.tolist()]
        self.alive = [self.alive[index] for index in others.tolist()]
        return gone

    def _cut(self, gone: torch.Tensor, rest: torch.Tensor) -> None:
        share = torch.linalg.solve(self._inverse[gone][:, gone], self._inverse[gone][:, rest])
        self.weight = self.weight[:, rest].addmm_(self.weight[:, gone], share, alpha=-1)
        self._inverse = self._inverse[rest][:, rest].addmm_(self._inverse[rest][:, gone], share, alpha=-1)


def _damped(products: torch.Tensor) -> torch.Tensor:
    damped = products.clone()
    damped.diagonal().add_(_DAMPING * float(products.diagonal().mean()) or 1.0)  # 1: inputs that are always 0
    return damped
