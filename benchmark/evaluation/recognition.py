"""Does a network know the published images, or change between calls? Named flags, no outcome.

A network that recognises the published test images can be right on them without being any good. It
gives itself away on images that it cannot have stored: the same ones shifted by less than one grey
level, and a part of the training set that no page publishes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corobench.benchmark.evaluation.pipeline import Evaluation
from corobench.benchmark.records.result import Recognition
from corobench.benchmark.referee.judge import is_wrong, predict_one_by_one
from corobench.benchmark.submission.rounding import rounding
from corobench.benchmark.tracks import derive_seed

#: Largest change of a value by the shift: one of 255 grey levels.
SHIFT = 1 / 255
#: A gap is a flag where chance explains it with less than this probability, one-sided, ...
MAX_CHANCE = 0.001
#: ... and where it is larger than this share of the images.
MIN_GAP = 0.02
#: Training images that are looked at, and published ones that are asked again at the end.
NUM_UNSEEN = 1000
NUM_AGAIN = 64
#: Share of images whose largest (or smallest) logit may be one and the same number.
CLIPPED_RATE = 0.05

RECOGNISES = "recognises-images"
BETTER = "better-than-on-training"
CHANGES = "changes-between-calls"
CLIPPED = "clipped-logits"


def run_recognition_checks(
    evaluation: Evaluation, unseen: tuple[Tensor, Tensor] | None
) -> Recognition:
    """Raise the flags at every epsilon; after all stages.

    Args:
        evaluation: after its stages.
        unseen: float32 (m, C, H, W) and int64 (m,), a part of the training set; None where it is
            not at hand, and then the comparison with it is not made.
    """
    facts, model, x, y = evaluation.facts, evaluation.model, evaluation.x, evaluation.y
    flags = set()
    asked = ~facts.unpredicted
    right = facts.correct[asked]
    shifted = right_on(evaluation, shift(x[torch.from_numpy(asked)], evaluation.seed), y[asked])
    lost, won = int((right & ~shifted).sum()), int((~right & shifted).sum())
    if lost - won > MIN_GAP * len(right) and chance_of_losing(lost, won) <= MAX_CHANCE:
        flags.add(RECOGNISES)
    found = Recognition(num_images=len(right), right=int(right.sum()), shifted=int(shifted.sum()))
    if unseen is not None:
        known = int(right_on(evaluation, *unseen).sum())
        found = found.model_copy(update={"num_unseen": len(unseen[1]), "unseen": known})
        gap = found.right / max(len(right), 1) - known / len(unseen[1])
        chance = chance_of_more(found.right, len(right), known, len(unseen[1]))
        if gap > MIN_GAP and chance <= MAX_CHANCE:
            flags.add(BETTER)
    if changes(predict_one_by_one(model, x[:NUM_AGAIN]), evaluation.logits[:NUM_AGAIN]):
        flags.add(CHANGES)
    if is_clipped(evaluation.logits.cpu().numpy()):
        flags.add(CLIPPED)
    for known_at in facts.epsilons.values():
        known_at.flags.update(flags)
    return found


def shift(x_BCHW: Tensor, seed: int) -> Tensor:
    """Every value moved by less than one grey level, at random, within [0, 1]."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "shift", "recognition"))
    noise = (torch.rand(x_BCHW.shape, generator=generator) * 2 - 1) * SHIFT
    return (x_BCHW + noise.to(x_BCHW.device)).clamp(0.0, 1.0)


@torch.no_grad()
def right_on(evaluation: Evaluation, x_BCHW: Tensor, y_B: Tensor) -> NDArray[np.bool_]:
    """Bool (B,), whether each image is right, in batches of the track's attacks."""
    size = evaluation.track.attack_batch
    parts = [
        ~is_wrong(evaluation.model(x_BCHW[start : start + size]), y_B[start : start + size])
        for start in range(0, len(x_BCHW), size)
    ]
    if not parts:
        return np.zeros(0, dtype=bool)
    return np.asarray(torch.cat(parts).cpu().numpy(), dtype=bool)


def chance_of_losing(lost: int, won: int) -> float:
    """Exact one-sided McNemar test: so many or more lost, where either is as likely.

    >>> chance_of_losing(10, 0) == 0.5**10, chance_of_losing(0, 0)
    (True, 1.0)
    """
    total = lost + won
    return float(sum(math.comb(total, count) for count in range(lost, total + 1)) / 2**total)


def chance_of_more(right: int, n: int, other: int, m: int) -> float:
    """Fisher's exact test, one-sided: so many or more of the right ones among the first n.

    >>> round(chance_of_more(3, 3, 0, 3), 4)
    0.05
    """
    total = right + other
    ways = sum(
        math.comb(n, count) * math.comb(m, total - count)
        for count in range(right, min(n, total) + 1)
    )
    return ways / math.comb(n + m, total)


def changes(now_BK: Tensor, before_BK: Tensor) -> bool:
    """Whether logits differ beyond rounding from those of the same images at the start."""
    known = torch.isfinite(before_BK).all(dim=1)
    if not bool(known.any()):
        return False
    before, now = before_BK[known], now_BK[known]
    return not bool(((now - before).abs().amax(dim=1) <= rounding(before)).all())


def is_clipped(logits_BK: NDArray[np.float32]) -> bool:
    """Whether one number is the largest, or the smallest, logit of too many images.

    >>> is_clipped(np.array([[5, 1], [5, 2], [5, 3], [1, 4]], dtype=np.float32))
    True
    >>> is_clipped(np.arange(8, dtype=np.float32).reshape(4, 2))
    False
    """
    for ends in (logits_BK.max(axis=1), -logits_BK.min(axis=1)):
        finite = ends[np.isfinite(ends)]
        if len(finite) < 2:
            continue
        num_equal = int((finite == finite.max()).sum())
        if num_equal > max(1, CLIPPED_RATE * len(finite)):
            return True
    return False
