"""The network that an attack searches on, watched: what is not finite is seen and does not blind.

One NaN in a gradient stops the signs of a whole step, and a NaN among the logits is no answer that
an attack library understands. So every gradient that an attack follows is looked at, on every image
and at every step. Where one is not finite it is made again, and the image raises a flag:

1. by the same network in float64, where what overflows in float32 seldom does, with every part of
   the backward pass that is still not finite counted as zero;
2. by the network in float32 in the same way, where it does not run in float64;
3. from differences along `NUM_DIRECTIONS` directions, where nothing is left of it.

A gradient that is finite stays as it is, bit for bit. Nothing promises that a gradient made again
points anywhere useful; the flag stands in any case.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from corobench.benchmark.network.prepare import copy_detached
from corobench.benchmark.referee import threat

GRADIENT = "non-finite-gradient"
LOGITS = "non-finite-logits"
#: Both flags, in the order of the rows of `Guard.seen`.
FLAGS = (GRADIENT, LOGITS)
#: Directions of an estimated gradient, and their length as a share of epsilon.
NUM_DIRECTIONS = 128
STEP = 0.25
#: Logits below this have differences that float32 can hold.
LARGEST = 1e38
#: Largest difference of the float64 network's logits, as a share of their spread.
TOLERANCE = 0.02


class Guard(nn.Module):
    """A network that an attack searches on, and what it gave that is not finite.

    Args:
        network: in eval mode.
        x_BCHW: float32 (B, C, H, W) in [0, 1], the clean images that are attacked.
        y_B: int64 (B,), their classes.
        epsilon: exact radius.

    Attributes:
        seen_2B: bool (2, B), images with a gradient and with logits that are not finite, as far
            as a point that the attack asked about lies next to them.
        met: place of an image -> a point in its ball at which the logits are not finite.
    """

    def __init__(self, network: nn.Module, x_BCHW: Tensor, y_B: Tensor, epsilon: Fraction) -> None:
        super().__init__()
        self.network, self.epsilon = network, epsilon
        self.x_BCHW, self.y_B = x_BCHW.detach(), y_B
        self.seen_2B = torch.zeros(2, len(x_BCHW), dtype=torch.bool)
        self.met: dict[int, Tensor] = {}
        self._double: nn.Module | None = None
        self.training = network.training

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and x_BCHW.requires_grad):
            logits: Tensor = self.network(x_BCHW.clone())  # a network may write into it
            self._look(x_BCHW, logits)
            return logits
        inputs = x_BCHW.view_as(x_BCHW)
        logits = self.network(inputs.clone())
        self._look(x_BCHW.detach(), logits.detach())
        if logits.requires_grad:
            came_in: list[Tensor] = []
            logits.register_hook(partial(_keep, came_in))
            inputs.register_hook(partial(self._mend, x_BCHW.detach(), came_in))
        return logits

    # --------------------------------------------------------------------------- what was seen

    def flagged(self) -> dict[str, Tensor]:
        """Flag -> bool (B,), the images that raise it; only flags with one."""
        return {flag: row for flag, row in zip(FLAGS, self.seen_2B, strict=True) if bool(row.any())}

    # ------------------------------------------------------------------------------- logits

    def _look(self, x_BCHW: Tensor, logits_BK: Tensor) -> None:
        """Note logits that are not finite, or whose differences are not."""
        if not logits_BK.numel() or bool(logits_BK.abs().amax() < LARGEST):
            return
        spread_B = logits_BK.amax(dim=1) - logits_BK.amin(dim=1)
        is_finite = torch.isfinite(logits_BK).all(dim=1)
        rows = torch.nonzero(~(is_finite & torch.isfinite(spread_B)))[:, 0]
        if not len(rows):
            return
        places = self._places(x_BCHW[rows])
        self.seen_2B[1, places] = True
        for row, place in zip(rows.tolist(), places.tolist(), strict=True):
            if not bool(is_finite[row]) and place not in self.met:
                point, clean = x_BCHW[row : row + 1], self.x_BCHW[place : place + 1]
                if float((point - clean).abs().max()) <= float(self.epsilon) * (1 + 1e-5):
                    self.met[place] = threat.project(point, clean, self.epsilon)[0]

    def _places(self, points_BCHW: Tensor) -> Tensor:
        """The clean image next to each point, int64 on the CPU."""
        clean = self.x_BCHW.flatten(1)
        nearest = [
            (clean - point).abs().amax(dim=1).argmin()
            for point in points_BCHW.detach().flatten(1).nan_to_num(0.0)
        ]
        return torch.stack(nearest).cpu()

    # ----------------------------------------------------------------------------- gradients

    def _mend(self, x_BCHW: Tensor, came_in: list[Tensor], gradient: Tensor) -> Tensor | None:
        """The gradient with other values for images where it is not finite; None to keep it."""
        if bool(torch.isfinite(gradient.sum())):
            return None
        is_bad = ~torch.isfinite(gradient).flatten(1).all(dim=1)
        rows = torch.nonzero(is_bad)[:, 0]
        if not len(rows):
            return None
        places = self._places(x_BCHW[rows])
        self.seen_2B[0, places] = True
        labels = self.y_B[places.to(self.y_B.device)]
        mended = gradient.clone()
        mended[rows] = self._again(x_BCHW[rows], labels, came_in[-1].detach()[rows])
        return mended

    def _again(self, x_BCHW: Tensor, y_B: Tensor, weights_BK: Tensor) -> Tensor:
        """The gradient of the weighted logits, finite, made in other ways (see the module)."""
        weights = self._finite_weights(x_BCHW, y_B, weights_BK)
        found = torch.zeros_like(x_BCHW)
        for network, dtype in ((self._in_double(), torch.float64), (self.network, torch.float32)):
            rows = _without(found)
            if network is None or not len(rows):
                continue
            try:
                found[rows] = _patched(network, x_BCHW[rows].to(dtype), weights[rows].to(dtype)).to(
                    found
                )
            except (RuntimeError, TypeError):  # its code may not run in float64
                continue
        rows = _without(found)
        if len(rows):
            found[rows] = self._estimated(x_BCHW[rows], weights[rows])
        return found

    def _finite_weights(self, x_BCHW: Tensor, y_B: Tensor, weights_BK: Tensor) -> Tensor:
        """The gradient of the loss by the logits; where it is useless, of the margin instead."""
        is_bad = ~torch.isfinite(weights_BK).all(dim=1) | (weights_BK == 0).all(dim=1)
        if not bool(is_bad.any()):
            return weights_BK
        with torch.no_grad():
            logits = self.network(x_BCHW).nan_to_num(0.0)
        best = logits.scatter(1, y_B[:, None], float("-inf")).argmax(dim=1)
        margin = torch.zeros_like(weights_BK)
        margin.scatter_(1, best[:, None], 1.0).scatter_(1, y_B[:, None], -1.0)
        return torch.where(is_bad[:, None], margin, weights_BK)

    def _in_double(self) -> nn.Module | None:
        """The network in float64, made when it is first needed; None where it is another one."""
        if self._double is None:
            double = copy_detached(self.network).double().requires_grad_(False)
            self._double = double if self._is_same(double) else nn.Identity()
        return None if isinstance(self._double, nn.Identity) else self._double

    @torch.no_grad()
    def _is_same(self, double: nn.Module) -> bool:
        few = self.x_BCHW[:16]
        try:
            exact, logits = double(few.double()), self.network(few)
        except (RuntimeError, TypeError):
            return False
        spread = logits.amax(dim=1) - logits.amin(dim=1)
        return bool(((exact - logits).abs().amax(dim=1) <= TOLERANCE * spread).all())

    @torch.no_grad()
    def _estimated(self, x_BCHW: Tensor, weights_BK: Tensor) -> Tensor:
        """Central differences along each value, or of large images along random signs.

        The same point has the same directions.
        """
        found = torch.zeros_like(x_BCHW)
        length = STEP * float(self.epsilon)
        for row, (point, weights) in enumerate(zip(x_BCHW, weights_BK, strict=True)):
            directions = _directions(point)
            ahead, behind = (
                self.network((point + way * length * directions).clamp(0.0, 1.0)) for way in (1, -1)
            )
            slopes = ((ahead - behind) @ weights).nan_to_num(0.0, 0.0, 0.0)
            found[row] = torch.einsum("s,schw->chw", slopes, directions)
        return found.nan_to_num(0.0, 0.0, 0.0)


def _directions(point_CHW: Tensor) -> Tensor:
    """Float32 (S, C, H, W): each value alone, or random signs where there are too many values."""
    size = point_CHW.numel()
    if size <= NUM_DIRECTIONS:
        return torch.eye(size).view(size, *point_CHW.shape).to(point_CHW)
    digest = hashlib.sha256(point_CHW.cpu().numpy().tobytes()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    shape = (NUM_DIRECTIONS, *point_CHW.shape)
    return (torch.randint(0, 2, shape, generator=generator) * 2 - 1).to(point_CHW)


def _keep(kept: list[Tensor], gradient: Tensor) -> None:
    kept[:] = [gradient]


def _without(gradient_BCHW: Tensor) -> Tensor:
    """Rows without any gradient, int64."""
    return torch.nonzero((gradient_BCHW == 0).flatten(1).all(dim=1))[:, 0]


def _patched(network: nn.Module, x_BCHW: Tensor, weights_BK: Tensor) -> Tensor:
    """The gradient of the weighted logits, where each part that is not finite counts as zero."""
    with torch.enable_grad():
        inputs = x_BCHW.detach().clone().requires_grad_(True)
        logits = network(inputs)
        for node in _nodes(logits.grad_fn):
            node.register_hook(_zero_what_is_not_finite)
        (gradient,) = torch.autograd.grad(logits, inputs, weights_BK)
    return gradient.nan_to_num(0.0, 0.0, 0.0)


def _zero_what_is_not_finite(
    made: Sequence[Tensor | None], _came_in: object
) -> tuple[Tensor | None, ...]:
    return tuple(
        None if part is None else torch.where(torch.isfinite(part), part, torch.zeros_like(part))
        for part in made
    )


def _nodes(last: Any) -> Iterator[Any]:
    """Every step of a backward pass once."""
    waiting: list[Any] = [last]
    known = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in known:
            continue
        known.add(node)
        yield node
        waiting.extend(following for following, _ in node.next_functions)
