"""From the bounds of a model on one box to the answer of branch and bound, with its own checks."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from corobench.benchmark.certify.bab.branching import BranchAndBound
from corobench.benchmark.certify.bab.budget import BranchBudget, BranchResult
from corobench.benchmark.certify.bab.reduced import (
    LayerBounds,
    ReducedNet,
    num_unstable,
    reduce_net,
    relu_inputs,
)
from corobench.benchmark.certify.bab.refinement import refined
from corobench.benchmark.certify.lirpa.checks import POINT_TOLERANCE
from corobench.benchmark.certify.margin_spec import margin_spec, margins_of
from corobench.benchmark.errors import NotCertifiable

_NUM_CHECK_POINTS = 8


def search_box(
    model: nn.Module,
    low: Tensor,
    high: Tensor,
    label: Tensor,
    bounds: LayerBounds,
    known_S: Tensor,
    enough: float,
    budget: BranchBudget,
) -> BranchResult:
    """Branch and bound on one box.

    Args:
        model: frozen copy from `prepare`, of affine operators and ReLUs only.
        low: float32 (1, C, H, W), lower corner.
        high: float32 (1, C, H, W), upper corner.
        label: long (1,).
        bounds: of the inputs of every ReLU layer, sound over the box.
        known_S: float32 (num_classes - 1,), lower bounds of the margins known so far.
        enough: bounds must exceed it; see `benchmark.certify.prover`.
        budget: what it may cost.

    Raises:
        NotCertifiable: "relu-order" or "bounds-disagree-with-forward" where the reduced net is not
            the model.
    """
    start = time.perf_counter()
    num = num_unstable(bounds)
    if num > budget.max_unstable:
        return BranchResult("too-wide", known_S.cpu(), num_unstable=num)
    num_classes = len(known_S) + 1
    net = reduce_net(model, low[0], high[0], bounds, margin_spec(label, num_classes)[0])
    _check(model, net, bounds, low, high, label)

    def images(x_XB: Tensor) -> Tensor:
        return torch.maximum(torch.minimum(x_XB.T.reshape(-1, *low.shape[1:]), high), low)

    def is_broken(x_X: Tensor) -> bool:
        return bool((margins_of(model(images(x_X[:, None])), label) < 0).any())

    def nearby(x_XB: Tensor) -> Tensor:
        return refined(model, label, low, high, images(x_XB)).flatten(1).T

    found = BranchAndBound(net, known_S, enough, budget, is_broken, nearby).run()
    candidate = found.candidate_X
    proposal = None if candidate is None else images(candidate[:, None])[0].cpu()
    seconds = time.perf_counter() - start
    return BranchResult(
        found.status,
        found.bound_S.cpu(),
        found.num_subdomains,
        num,
        proposal,
        seconds,
        found.proof,
        found.slopes,
        net.neurons,
        found.expected,
        found.splits_left,
        found.dive_splits_left,
    )


def _check(
    model: nn.Module,
    net: ReducedNet,
    bounds: LayerBounds,
    low: Tensor,
    high: Tensor,
    label: Tensor,
) -> None:
    """Refuse where an image of the box contradicts the reduced net or the bounds it is made of.

    Both are float32: they may differ by the rounding of the largest value on the way, which may
    cancel before the logits. No proof leans on either, for the checker computes all of it again.
    """
    generator = torch.Generator().manual_seed(2)
    share = torch.rand(_NUM_CHECK_POINTS, *low.shape[1:], generator=generator).to(low)
    share[0], share[1], share[2] = 0.0, 1.0, 0.5
    share[3:6] = share[3:6].round()
    points = low + (high - low) * share
    inner = relu_inputs(model, points)
    for z, (bottom, top) in zip(inner, bounds, strict=True):
        slack = POINT_TOLERANCE * max(1.0, float(z.abs().max()))
        if bool(((z < bottom - slack) | (z > top + slack)).any()):
            raise NotCertifiable(
                "bounds-disagree-with-forward",
                "BaB: an image inside the box drives a ReLU beyond its bounds",
            )
    logits = model(points)
    expected = margins_of(logits, label.expand(len(points)))
    difference = float((net.forward(points.flatten(1).T.contiguous()).T - expected).abs().max())
    largest = max(float(one.abs().max()) for one in (logits, *inner))
    if not difference <= POINT_TOLERANCE * max(1.0, largest):
        raise NotCertifiable(
            "bounds-disagree-with-forward",
            f"BaB: the net of unstable neurons differs from the model by {difference:.1e}",
        )
