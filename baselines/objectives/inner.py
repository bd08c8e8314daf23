"""The inner maximisation of adversarial training: projected gradient ascent in the ball."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from corobench.baselines.objectives.base import box


@contextmanager
def fixed_statistics(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block: an attack must not move batch-norm statistics."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def random_start(x_BCHW: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    """Images drawn uniformly from the ball around `x_BCHW`, within [0, 1]."""
    noise = torch.rand(x_BCHW.shape, generator=generator, device=x_BCHW.device)
    return (x_BCHW + epsilon * (2.0 * noise - 1.0)).clamp(0.0, 1.0)


def beside(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Images a little beside `x_BCHW`: at x itself a distance from it has no gradient."""
    noise = torch.randn(x_BCHW.shape, generator=generator, device=x_BCHW.device)
    return (x_BCHW + 1e-3 * noise).clamp(0.0, 1.0)


def ascend(
    model: nn.Module,
    x_BCHW: Tensor,
    start_BCHW: Tensor,
    loss_of_logits: Callable[[Tensor], Tensor],
    epsilon: float,
    num_steps: int,
    step_size: float,
    keeps_best: bool = False,
) -> Tensor:
    """Signed gradient ascent that stays in the ball (Madry et al. 2018).

    Args:
        model: images to logits; its weights get no gradient.
        x_BCHW: centres of the balls, in [0, 1].
        start_BCHW: first iterate, in the ball.
        loss_of_logits: what to maximise, (B,) or summed over the batch: images stay independent.
        epsilon: l-infinity radius.
        num_steps: gradient steps.
        step_size: absolute.
        keeps_best: give of each image the iterate of the largest loss, the start among them, for
            one more pass forward; `loss_of_logits` must give (B,).

    Returns:
        float32 (B, C, H, W), the last iterate unless told otherwise, detached.
    """
    lower_BCHW, upper_BCHW = box(x_BCHW, epsilon)
    adversarial_BCHW = start_BCHW.detach()
    best_BCHW, highest_B = adversarial_BCHW, x_BCHW.new_full((len(x_BCHW),), -torch.inf)

    def keep_better(losses_B: Tensor) -> None:
        nonlocal best_BCHW, highest_B
        is_better_B = losses_B.detach() >= highest_B
        highest_B = torch.where(is_better_B, losses_B.detach().to(highest_B), highest_B)
        best_BCHW = torch.where(is_better_B[:, None, None, None], adversarial_BCHW, best_BCHW)

    with fixed_statistics(model), torch.enable_grad():
        for _ in range(num_steps):
            adversarial_BCHW.requires_grad_(True)
            losses = loss_of_logits(model(adversarial_BCHW))
            (gradient_BCHW,) = torch.autograd.grad(losses.sum(), adversarial_BCHW)
            if keeps_best:
                keep_better(losses)
            stepped = adversarial_BCHW.detach() + step_size * gradient_BCHW.sign()
            adversarial_BCHW = torch.minimum(torch.maximum(stepped, lower_BCHW), upper_BCHW)
        if keeps_best:
            with torch.no_grad():
                keep_better(loss_of_logits(model(adversarial_BCHW)))
            return best_BCHW.detach()
    return adversarial_BCHW.detach()


def attacked(
    model: nn.Module,
    x_BCHW: Tensor,
    labels_B: Tensor,
    epsilon: float,
    num_steps: int,
    step_rate: float,
    generator: torch.Generator,
    keeps_best: bool = False,
) -> Tensor:
    """Adversarial images: ascent of the cross-entropy from a random start.

    Args:
        model: images to logits.
        x_BCHW: images in [0, 1].
        labels_B: int64 classes.
        epsilon: l-infinity radius.
        num_steps: gradient steps.
        step_rate: step size as a share of `epsilon`.
        generator: of the start.
        keeps_best: see :func:`ascend`.
    """
    return ascend(
        model,
        x_BCHW,
        random_start(x_BCHW, epsilon, generator),
        lambda logits: F.cross_entropy(logits, labels_B, reduction="none"),
        epsilon,
        num_steps,
        step_rate * epsilon,
        keeps_best,
    )


def farthest(
    model: nn.Module,
    x_BCHW: Tensor,
    log_p_BC: Tensor,
    epsilon: float,
    num_steps: int,
    step_rate: float,
    generator: torch.Generator,
) -> Tensor:
    """Images of the ball where the model's answer is farthest from a given one.

    Args:
        model: images to logits.
        x_BCHW: images in [0, 1].
        log_p_BC: log-probabilities of the given answers; what is maximised is their divergence.
        epsilon: l-infinity radius.
        num_steps: gradient steps.
        step_rate: step size as a share of `epsilon`.
        generator: of the start.
    """
    return ascend(
        model,
        x_BCHW,
        beside(x_BCHW, generator),
        lambda logits: divergence(log_p_BC, F.log_softmax(logits, dim=1)),
        epsilon,
        num_steps,
        step_rate * epsilon,
    )


def divergence(log_p_BC: Tensor, log_q_BC: Tensor) -> Tensor:
    """KL(p || q) per image from log-probabilities.

    >>> divergence(torch.zeros(1, 1), torch.zeros(1, 1))
    tensor([0.])
    """
    return (log_p_BC.exp() * (log_p_BC - log_q_BC)).sum(dim=1)
