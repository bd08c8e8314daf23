"""PGD-50 with restarts: the paper's empirical robust accuracy (ERA).

Projected gradient descent on the cross-entropy (Madry et al. 2018, eq. 2.1) from uniform random
starts. An image counts as broken at any iterate of any restart; broken images leave the batch.
"""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from corobench.benchmark.attacks.base import Attack, Proposal
from corobench.benchmark.attacks.context import AttackSearch
from corobench.benchmark.referee import threat
from corobench.benchmark.referee.judge import is_wrong


class PGD(Attack):
    """Untargeted l-infinity PGD on the cross-entropy loss.

    Args:
        steps: gradient steps per restart.
        restarts: random starts.
        step_rate: step size as a share of epsilon.
        batch_size: images attacked together; None for all of a chunk.
    """

    def __init__(
        self,
        steps: int = 50,
        restarts: int = 5,
        step_rate: float = 0.1,
        batch_size: int | None = None,
    ) -> None:
        self.name = f"pgd{steps}"
        self.steps = steps
        self.restarts = restarts
        self.step_rate = step_rate
        self.batch_size = batch_size

    def propose(
        self,
        model: nn.Module,
        x_BCHW: Tensor,
        y_B: Tensor,
        epsilon: Fraction,
        seed: int,
        search: AttackSearch,
    ) -> Proposal:
        generator = torch.Generator(device="cpu").manual_seed(seed)
        sample = partial(torch.rand, generator=generator)
        found = x_BCHW.clone()
        open_idx = torch.arange(len(x_BCHW), device=x_BCHW.device)
        names = [""] * len(x_BCHW)
        flags: set[str] = set()
        for _ in range(self.restarts):
            if not len(open_idx):
                break
            # The whole chunk is drawn each time, so that an image's start never depends on
            # which neighbours are proven or already broken.
            noise = search.seats.draw(sample, x_BCHW.shape[1:]) * 2 - 1
            noise = noise.to(x_BCHW.device)[open_idx]
            hits, images, zero_gradient = self._one_restart(
                model, x_BCHW[open_idx], y_B[open_idx], noise, epsilon
            )
            if zero_gradient:
                flags.add("zero-gradient")
            broken_idx = open_idx[hits]
            found[broken_idx] = images[hits]
            for index in broken_idx.tolist():
                names[index] = self.name
            open_idx = open_idx[~hits]
        return Proposal(found, names, flags)

    def _one_restart(
        self, model: nn.Module, x: Tensor, y: Tensor, noise: Tensor, epsilon: Fraction
    ) -> tuple[Tensor, Tensor, bool]:
        """Hits, images and whether an image that stays right had no gradient at all."""
        radius = float(epsilon)
        images = threat.project(x + radius * noise, x, epsilon)
        hits = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        no_gradient = torch.zeros_like(hits)
        active = torch.arange(len(x), device=x.device)
        for step in range(self.steps + 1):
            current = images[active].detach().requires_grad_(step < self.steps)
            logits = model(current)
            wrong = is_wrong(logits.detach(), y[active])
            hits[active[wrong]] = True
            if step == self.steps or wrong.all():
                break
            loss = functional.cross_entropy(logits, y[active], reduction="sum")
            (gradient,) = torch.autograd.grad(loss, current)
            if step == 0:
                no_gradient[active] = (gradient.flatten(1) == 0).all(dim=1)
            moved = current.detach() + self.step_rate * radius * gradient.sign()
            kept = ~wrong
            active = active[kept]
            images[active] = threat.project(moved[kept], x[active], epsilon)
        return hits, images, bool((no_gradient & ~hits).any())
