"""A ReLU net on one box, written with its unstable neurons only.

Over a box, a neuron whose input keeps its sign is linear: it passes its input or it gives 0. What
is left are the unstable neurons, and between them everything is affine. With x the image, z_k the
inputs and r_k = relu(z_k) the outputs of the unstable neurons of ReLU layer k,

    z_k = M_k [x; r_1; ...; r_(k-1)] + b_k,        margins = M_s [x; r_1; ...; r_K] + b_s.

That is the whole net on that box, whatever its architecture: convolutions, skips and batch-norms
are gone, and many subdomains of one image are bounded at once by a few matrix products.

Shape suffixes: B columns (images or subdomains), N unstable neurons, X input values, S margins.
States are stored with one column per image or subdomain, so that a layer is a block of rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from corobench.benchmark.certify.bab.coupling import Coupling
from corobench.benchmark.errors import NotCertifiable

LayerBounds = list[tuple[Tensor, Tensor]]
"""Per ReLU layer in the order of the forward pass: lower and upper bounds (features,)."""

ROWS_AT_ONCE = 128
"""Rows of the coupling matrices computed by one forward and backward pass."""

_RELU_CALLS = frozenset({F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})


@dataclass(frozen=True)
class ReducedNet:
    """The net on one box; all tensors float32.

    Attributes:
        layers: one slice of the N neurons per ReLU layer that has unstable neurons, in order.
        neurons: per entry of `layers`: index of the ReLU layer, positions (long) in its features.
        couplings: per entry of `layers`: M_k, of shape (neurons of it, X + neurons before it).
        bias_N: all b_k.
        lower_N: lower bounds of z, at most 0.
        upper_N: upper bounds of z, at least 0.
        spec: M_s, of shape (S, X + N).
        spec_bias_S: b_s.
        mid_X: centre of the box.
        rad_X: half its side lengths, at least 0.
    """

    layers: tuple[slice, ...]
    neurons: tuple[tuple[int, Tensor], ...]
    couplings: tuple[Coupling, ...]
    bias_N: Tensor
    lower_N: Tensor
    upper_N: Tensor
    spec: Tensor
    spec_bias_S: Tensor
    mid_X: Tensor
    rad_X: Tensor

    @property
    def num_inputs(self) -> int:
        """X, the number of input values."""
        return len(self.mid_X)

    @property
    def num_unstable(self) -> int:
        """N, the number of neurons that can be split."""
        return len(self.bias_N)

    def forward(self, x_XB: Tensor) -> Tensor:
        """Margins (S, B) of images (X, B) in the box."""
        start = self.num_inputs
        state = torch.cat([x_XB, x_XB.new_zeros(self.num_unstable, x_XB.shape[1])])
        for layer, coupling in zip(self.layers, self.couplings, strict=True):
            z = coupling.times(state[: start + layer.start]) + self.bias_N[layer, None]
            state[start + layer.start : start + layer.stop] = z.clamp(min=0)
        return self.spec @ state + self.spec_bias_S[:, None]


def num_unstable(bounds: LayerBounds) -> int:
    """Neurons whose input may have either sign.

    >>> num_unstable([(torch.tensor([-1.0, 0.0, -2.0]), torch.tensor([1.0, 3.0, 0.0]))])
    1
    """
    return sum(int(((low < 0) & (high > 0)).sum()) for low, high in bounds)


def reduce_net(
    model: nn.Module,
    x_L: Tensor,
    x_U: Tensor,
    bounds: LayerBounds,
    spec_SC: Tensor,
) -> ReducedNet:
    """Write a net on one box with its unstable neurons only.

    The rows of the matrices are gradients of the net with every ReLU replaced: by the identity or
    zero where it is stable, by a variable of its own where it is not. That net is affine, so that
    its gradients are exact everywhere.

    Args:
        model: frozen classifier in eval mode that consists of affine operators and ReLUs.
        x_L: float32 (C, H, W), lower corner of the box.
        x_U: float32 like `x_L`, upper corner.
        bounds: sound bounds of the inputs of every ReLU layer over the box.
        spec_SC: float32 (S, num_classes), margins as combinations of logits.

    Raises:
        NotCertifiable: "relu-order" where the ReLUs met in a forward pass are not those bounded.
    """
    positions = [((low < 0) & (high > 0)).nonzero().flatten() for low, high in bounds]
    kept = [index for index, where in enumerate(positions) if len(where)]
    layers, start = [], 0
    for index in kept:
        layers.append(slice(start, start + len(positions[index])))
        start = layers[-1].stop
    affine = _AffineNet(model, x_L, bounds, positions)
    couplings, biases = [], [torch.zeros(0).to(x_L)]
    for index, layer in zip(kept, layers, strict=True):
        rows, bias = affine.hidden_rows(index)
        couplings.append(Coupling(rows[:, : x_L.numel() + layer.start]))
        biases.append(bias)
    spec, spec_bias = affine.spec_rows(spec_SC)
    lower, upper = (
        torch.cat([biases[0], *(bounds[index][side][positions[index]] for index in kept)])
        for side in (0, 1)
    )
    return ReducedNet(
        layers=tuple(layers),
        neurons=tuple((index, positions[index]) for index in kept),
        couplings=tuple(couplings),
        bias_N=torch.cat(biases),
        lower_N=lower,
        upper_N=upper,
        spec=spec,
        spec_bias_S=spec_bias,
        mid_X=((x_L + x_U) / 2).flatten(),
        rad_X=((x_U - x_L) / 2).flatten(),
    )


class _AffineNet:
    """The net with its ReLUs replaced, whose gradients are the rows of a `ReducedNet`."""

    def __init__(
        self, model: nn.Module, like: Tensor, bounds: LayerBounds, positions: list[Tensor]
    ) -> None:
        self._model = model
        self._like = like
        self._positions = positions
        self._active = [(low >= 0).to(like) for low, _ in bounds]

    def hidden_rows(self, layer: int) -> tuple[Tensor, Tensor]:
        """M_k, over all neurons, and b_k for one ReLU layer."""
        where = self._positions[layer]
        return self._rows(
            len(where),
            lambda inputs, logits, part: inputs[layer].gather(1, where[part, None])[:, 0],
            until=layer,
        )

    def spec_rows(self, spec_SC: Tensor) -> tuple[Tensor, Tensor]:
        """M_s and b_s."""
        return self._rows(
            len(spec_SC), lambda inputs, logits, part: (logits * spec_SC[part]).sum(dim=1), None
        )

    def _rows(
        self,
        num_rows: int,
        select: Callable[[list[Tensor], Tensor, slice], Tensor],
        until: int | None,
    ) -> tuple[Tensor, Tensor]:
        """Gradients and values at 0, one image of a batch per row.

        A forward pass ends at the ReLU numbered `until`, without logits, or at the end of the net.
        """
        sizes = [len(where) for where in self._positions]
        num_inputs = self._like.numel()
        rows = self._like.new_zeros(num_rows, num_inputs + sum(sizes))
        values = self._like.new_zeros(num_rows)
        for start in range(0, num_rows, ROWS_AT_ONCE):
            part = slice(start, min(start + ROWS_AT_ONCE, num_rows))
            state = torch.zeros_like(rows[part]).requires_grad_()
            with torch.enable_grad():
                variables = list(state[:, num_inputs:].split(sizes, dim=1))
                replaced = _ReplacedRelus(self._active, self._positions, variables, until)
                logits = state
                with contextlib.suppress(_Reached), replaced:
                    logits = self._model(state[:, :num_inputs].view(-1, *self._like.shape))
                replaced.check_complete()
                found = select(replaced.inputs, logits, part)
                (rows[part],) = torch.autograd.grad(found.sum(), state)
            values[part] = found.detach()
        return rows, values


class _Relus(TorchFunctionMode):
    """While it is active, the inputs of every ReLU are noted; what it returns may be replaced.

    Attributes:
        inputs: (B, features) per ReLU, in the order of the forward pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _RELU_CALLS:
            return func(*args, **kwargs)
        z: Tensor = args[0] if args else kwargs["input"]
        self.inputs.append(z.flatten(1))
        return self.output(len(self.inputs) - 1, self.inputs[-1]).view(z.shape)

    def output(self, number: int, z: Tensor) -> Tensor:
        """What ReLU `number` makes of its inputs (B, features)."""
        return z.clamp(min=0)


def relu_inputs(model: nn.Module, x_BCHW: Tensor) -> list[Tensor]:
    """The inputs (B, features) of every ReLU, in the order of the forward pass."""
    relus = _Relus()
    with torch.no_grad(), relus:
        model(x_BCHW)
    return relus.inputs


class _Reached(Exception):  # noqa: N818 no error: what was asked for is there
    """The ReLU that a forward pass was made for has its inputs."""


class _ReplacedRelus(_Relus):
    """Every ReLU passes, zeroes or replaces each of its inputs; `_Reached` at the one `until`."""

    def __init__(
        self,
        active: list[Tensor],
        positions: list[Tensor],
        variables: list[Tensor],
        until: int | None,
    ) -> None:
        super().__init__()
        self._active, self._positions, self._variables = active, positions, variables
        self._until = until

    def output(self, number: int, z: Tensor) -> Tensor:
        if number >= len(self._active) or z.shape[1] != len(self._active[number]):
            raise _relu_order()
        if number == self._until:
            raise _Reached
        where = self._positions[number].expand(len(z), -1)
        return (z * self._active[number]).scatter(1, where, self._variables[number])

    def check_complete(self) -> None:
        """Refuse where fewer ReLUs were met than bounded."""
        expected = len(self._active) if self._until is None else self._until + 1
        if len(self.inputs) != expected:
            raise _relu_order()


def _relu_order() -> NotCertifiable:
    return NotCertifiable(
        "relu-order", "the ReLUs met in a forward pass are not those that were bounded"
    )
