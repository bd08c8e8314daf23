"""Checks that the attacks themselves are believable, as named flags.

A larger ball and more steps can only help an attack. Where they do not, gradients mislead it, and
robustness that rests on it is doubtful (Carlini et al., "On Evaluating Adversarial Robustness",
2019; Athalye et al., ICML 2018). What the checks break on the way counts like any attack's find.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from corobench.benchmark.attacks import gradients
from corobench.benchmark.attacks.base import Attack
from corobench.benchmark.attacks.guard import GRADIENT, LOGITS
from corobench.benchmark.evaluation import attacking
from corobench.benchmark.evaluation.attacking import AttackedChunk
from corobench.benchmark.evaluation.stages import Stages
from corobench.benchmark.files.steps import StepEndedError

#: Images that each check looks at, the first ones in published order.
NUM_IMAGES = 64
#: Share of them that may contradict, and how many always may.
TOLERATED_RATE = 0.05
TOLERATED = 1
NON_MONOTONE_EPSILON = "non-monotone-epsilon"
NON_MONOTONE_STEPS = "non-monotone-steps"


def run_health_checks(evaluation: Stages) -> None:
    """Run all checks at every epsilon and raise their flags; after the attacks.

    Args:
        evaluation: after its attacks.
    """
    _logits(evaluation)
    found: dict[str, dict[int, NDArray[np.float32]]] = {}
    for epsilon in evaluation.epsilons:
        found[epsilon] = _fewer_steps(evaluation, epsilon)
    evaluation.facts.record_broken(evaluation.fewer_steps().name, found)
    for smaller, larger in pairwise(evaluation.epsilons):
        _larger_epsilon(evaluation, smaller, larger)
    for epsilon in evaluation.epsilons:
        _gradients(evaluation, epsilon)


def _logits(evaluation: Stages) -> None:
    """Whether the network answered every image with finite logits."""
    is_finite = torch.isfinite(evaluation.logits).all(dim=1).cpu().numpy()
    rows = np.flatnonzero(~is_finite & ~evaluation.facts.unpredicted)
    for facts in evaluation.facts.epsilons.values():
        facts.doubt(LOGITS, rows)


def is_suspicious(num_contradicting: int, num_images: int) -> bool:
    """Whether so many contradictions are more than chance.

    >>> is_suspicious(1, 4), is_suspicious(3, 64), is_suspicious(4, 64)
    (False, False, True)
    """
    return num_contradicting > max(TOLERATED, TOLERATED_RATE * num_images)


def _fewer_steps(evaluation: Stages, epsilon: str) -> dict[int, NDArray[np.float32]]:
    """Ten larger steps on what fifty small ones left right; what they break, by row."""
    facts = evaluation.facts.epsilons[epsilon]
    survived = evaluation.facts.correct & ~facts.proven & ~facts.broken[evaluation.pgd().name]
    rows = np.flatnonzero(survived)[:NUM_IMAGES]
    chunk = _attacked(evaluation, evaluation.fewer_steps(), rows, epsilon, "steps")
    if is_suspicious(int(chunk.broken.sum()), len(rows)):
        facts.flags.add(NON_MONOTONE_STEPS)
    return {int(rows[place]): image for place, image in sorted(chunk.images.items())}


def _larger_epsilon(evaluation: Stages, smaller: str, larger: str) -> None:
    """PGD-50 in the larger ball on what it broke in the smaller one."""
    attack = evaluation.pgd()
    rows = np.flatnonzero(evaluation.facts.epsilons[smaller].broken[attack.name])[:NUM_IMAGES]
    chunk = _attacked(evaluation, attack, rows, larger, "epsilon")
    if not chunk.failed and is_suspicious(int((~chunk.broken).sum()), len(rows)):
        evaluation.facts.epsilons[larger].flags.add(NON_MONOTONE_EPSILON)


def _gradients(evaluation: Stages, epsilon: str) -> None:
    """Whether gradients say anything about images that neither side decided."""
    facts = evaluation.facts.epsilons[epsilon]
    open_ = evaluation.facts.correct & ~facts.proven & ~facts.attacked
    rows = np.flatnonzero(open_)[:NUM_IMAGES]
    try:
        evaluation.steps.begin(f"gradients-{epsilon}")
        counts, unusable = gradients.doubtful(
            evaluation.model,
            evaluation.x[rows],
            evaluation.y[rows],
            Fraction(epsilon),
            evaluation.seed,
        )
    except (StepEndedError, RuntimeError) as error:
        evaluation.report.say(f"gradients {epsilon}: no answer ({error})")
        return
    facts.doubt(GRADIENT, rows[unusable])
    facts.flags.update(
        flag
        for flag, number in counts.items()
        if number > max(TOLERATED, gradients.MIN_RATE * len(rows))
    )


def _attacked(
    evaluation: Stages, attack: Attack, rows: NDArray[np.int64], epsilon: str, what: str
) -> AttackedChunk:
    evaluation.report.stage(f"health ({what}) {epsilon}", len(rows))
    chunk = AttackedChunk.of(0, rows, np.arange(len(rows)))
    attacking.run(evaluation, attack, epsilon, [chunk], f"health-{what}", may_round=False)
    evaluation.report.finish(f"{int(chunk.broken.sum())} of {len(rows)} broken")
    return chunk
