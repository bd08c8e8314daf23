"""Attacks on a part of the images that nobody could predict, with starts that nobody could.

What a result claims to be unbroken and does not prove can be shown to be false only by breaking it.
So a random part is attacked again. An image that breaks here and breaks again in its old seat with
the public seed was hidden. One that breaks under the new starts alone may be luck; many of them
are not. The later parts of AutoAttack draw numbers for neighbours that are not known any more, so
what they break in the old seat must break under more new starts as well. Proven images are attacked
too: those that the run's own audit attacked, and as many that are drawn anew. One that breaks is a
contradiction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.attacks.base import Attack
from corobench.benchmark.evaluation import attacking
from corobench.benchmark.evaluation.attacking import AttackedChunk
from corobench.benchmark.evaluation.pipeline import Evaluation
from corobench.benchmark.records.reading.rows import ATTACKS
from corobench.benchmark.records.result import Outcome, contradiction
from corobench.benchmark.review.verification.chance import num_drawn, num_hidden
from corobench.benchmark.review.verification.claims import Claims
from corobench.benchmark.review.verification.mismatch import Mismatch

if TYPE_CHECKING:
    from corobench.benchmark.evaluation.facts import BoolArray

#: Images that may break under new starts alone: a share of those attacked, and so many always.
LUCKY_RATE = 0.05
LUCKY = 2
#: More starts under which AutoAttack must break what was hidden: an honest image that breaks every
#: second time does so in all of them once in 32 times.
MORE_STARTS = 5

#: Attacks that do in an old seat exactly what they did then, under the same versions. What another
#: one missed on an image that is said to be broken anyway may be chance, and changes no bracket.
EXACT = ("pgd50",)

Rows = dict[str, dict[str, "BoolArray"]]


@dataclass(frozen=True)
class Sample:
    """What is attacked.

    Attributes:
        population: images that are claimed to be unbroken somewhere without a proof.
        hidden: lies among them that are to be found.
        chosen: bool (n,), those that are attacked.
        targets: attack -> epsilon -> bool (n,), rows that claim to have survived it.
    """

    population: int
    hidden: int
    chosen: BoolArray
    targets: Mapping[str, Mapping[str, BoolArray]]


@dataclass
class Hits:
    """What broke.

    Attributes:
        broken: attack -> epsilon -> bool (n,).
        by: attack -> epsilon -> text (n,), the part of the attack.
        failed: why an attack gave no answer, one line each.
        flags: that attacks raised.
        images: float32 images that fool the network, and the rows they belong to.
    """

    broken: dict[str, dict[str, BoolArray]] = field(default_factory=dict)
    by: dict[str, dict[str, NDArray[np.object_]]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)
    images: list[tuple[int, NDArray[np.float32]]] = field(default_factory=list)


def draw(claims: Claims, seed: int, hidden_rate: float, miss_rate: float) -> Sample:
    """Choose the part that is attacked.

    Args:
        claims: of the result.
        seed: of the draw; drawn when the result is handed in, and not known before.
        hidden_rate: share of the n images that a forger hides.
        miss_rate: largest chance to draw none of them.
    """
    claimed: dict[str, dict[str, BoolArray]] = {attack: {} for attack in ATTACKS}
    anywhere = np.zeros(len(claims.images), dtype=bool)
    for epsilon in claims.epsilons:
        without_proof = claims.correct & ~claims.proven(epsilon)
        for attack in ATTACKS:
            stands = claims.yes(attack, epsilon) | ~claims.answered(attack, epsilon)
            claimed[attack][epsilon] = without_proof & stands
            anywhere = anywhere | claimed[attack][epsilon]
    population = np.flatnonzero(anywhere)
    hidden = num_hidden(len(claims.images), hidden_rate)
    size = num_drawn(len(population), hidden, miss_rate)
    chosen = np.zeros(len(claims.images), dtype=bool)
    chosen[np.random.default_rng([seed, 0]).permutation(population)[:size]] = True
    for epsilon in claims.epsilons:  # what is said to have survived all but somebody's image
        chosen |= claims.contested(epsilon) & anywhere
    targets = {
        attack: {epsilon: rows & chosen for epsilon, rows in at.items()}
        for attack, at in claimed.items()
    }
    return Sample(len(population), min(hidden, len(population)), chosen, targets)


def add_audited(sample: Sample, evaluation: Evaluation) -> int:
    """Attack audited images as well; how many rows they are.

    Args:
        sample: gets them as targets.
        evaluation: whose facts say which images are audited.
    """
    number = 0
    for epsilon, known in evaluation.facts.epsilons.items():
        number += int(known.audited.sum())
        for attack in ATTACKS:
            rows = sample.targets[attack][epsilon]
            rows |= known.audited
    return number


def run(evaluation: Evaluation, sample: Sample) -> Hits:
    """Attack all targets, the smallest radius first.

    Args:
        evaluation: with a seed that nobody knew, and clean predictions.
        sample: what is attacked.
    """
    hits = Hits()
    for attack in (evaluation.pgd(), evaluation.autoattack()):
        _attack(evaluation, attack, sample.targets[attack.name], hits)
    return hits


def _attack(
    evaluation: Evaluation, attack: Attack, targets: Mapping[str, BoolArray], hits: Hits
) -> None:
    n = len(evaluation.x)
    so_far = np.zeros(n, dtype=bool)
    hits.broken[attack.name], hits.by[attack.name] = {}, {}
    for epsilon in evaluation.epsilons:
        todo = np.flatnonzero(targets[epsilon] & ~so_far)
        broken, by = so_far & targets[epsilon], np.full(n, attack.name, dtype=object)
        evaluation.report.stage(f"intake {attack.name} {epsilon}", len(todo))
        chunks = [
            AttackedChunk.of(number, rows, np.arange(len(rows)))
            for number, rows in evaluation.chunked(todo)
        ]
        attacking.run(evaluation, attack, epsilon, chunks, work="intake")
        for chunk in chunks:
            hits.flags |= chunk.flags
            hits.failed += [
                f"{len(places)} images at {epsilon}: {ended.reason}"
                for places, ended in chunk.failed
            ]
            found = chunk.rows[chunk.broken]
            broken[found], by[found] = True, chunk.names[chunk.broken]
            hits.images += [
                (int(chunk.rows[place]), image) for place, image in sorted(chunk.images.items())
            ]
        so_far = so_far | broken
        hits.broken[attack.name][epsilon], hits.by[attack.name][epsilon] = broken, by
        evaluation.report.finish(f"{int(broken.sum())} of {int(targets[epsilon].sum())} broken")


def suspect_contests(claims: Claims, sample: Sample, hits: Hits) -> None:
    """Count what a contest is said to have broken as broken by the attacks before it, for now.

    Whether an attack really left it alone follows from the same attack in the old seats.
    """
    for attack, at in hits.broken.items():
        for epsilon, broken in at.items():
            broken |= claims.contested(epsilon) & sample.targets[attack][epsilon]


def contradictions(evaluation: Evaluation, claims: Claims, hits: Hits) -> list[str]:
    """Proven images that broke, one line each."""
    lines = {
        contradiction(
            int(claims.images[row]),
            epsilon,
            evaluation.facts.epsilons[epsilon].proven_by[row],
            hits.by[attack][epsilon][row],
        )
        for attack, at in hits.broken.items()
        for epsilon, broken in at.items()
        for row in np.flatnonzero(broken & evaluation.facts.epsilons[epsilon].proven)
    }
    return sorted(lines)


def refuted(evaluation: Evaluation, hits: Hits) -> BoolArray:
    """Bool (n,), images without a proof that broke somewhere."""
    anywhere = np.zeros(len(evaluation.x), dtype=bool)
    for at in hits.broken.values():
        for epsilon, broken in at.items():
            anywhere |= broken & ~evaluation.facts.epsilons[epsilon].proven
    return anywhere


def confirm(evaluations: Iterable[Evaluation], attack: str, suspects: Rows) -> None:
    """Keep as suspects only rows that an attack breaks in each of some evaluations.

    Args:
        evaluations: each with a seed of its own.
        attack: its name.
        suspects: attack -> epsilon -> bool (n,); changed in place.
    """
    for evaluation in evaluations:
        left = suspects[attack]
        if not any(rows.any() for rows in left.values()):
            return
        hits = Hits()
        (tool,) = (one for one in (evaluation.pgd(), evaluation.autoattack()) if one.name == attack)
        _attack(evaluation, tool, left, hits)
        suspects[attack] = hits.broken[attack]


def judge(
    claims: Claims, sample: Sample, hits: Hits, hidden: Rows, new: BoolArray
) -> tuple[list[Mismatch], list[str]]:
    """Tell lies from luck.

    Args:
        claims: of the result.
        sample: what was attacked.
        hits: what broke under new starts.
        hidden: attack -> epsilon -> bool (n,), rows that break under the public seed, too.
        new: bool (n,), images that broke without a proof.

    Returns:
        What is refused, and lines about images that broke by luck and were said to stand.
    """
    lies: list[Mismatch] = []
    lucky: list[str] = []
    n = len(new)
    told, by_luck, more = (np.zeros(n, dtype=bool) for _ in range(3))
    for attack, at in hits.broken.items():
        for epsilon, broken in at.items():
            by = hits.by[attack][epsilon]
            again = broken & new & hidden[attack][epsilon]
            stood = ~claims.is_outcome(epsilon, Outcome.ATTACKED) | claims.contested(epsilon)
            rows = again if attack in EXACT else again & stood
            lies += claims.differ(
                attack, rows, "still right", f"broken by {by[np.argmax(rows)]}", epsilon
            )
            told |= rows
            more |= again & ~rows
    for attack, at in hits.broken.items():
        for epsilon, broken in at.items():
            stood = ~claims.is_outcome(epsilon, Outcome.ATTACKED)
            rows = broken & new & ~told & stood & ~claims.contested(epsilon)
            by_luck |= rows
            lucky += [
                f"image {int(claims.images[row])} at {epsilon}: {hits.by[attack][epsilon][row]}"
                for row in np.flatnonzero(rows)
            ]
    most = max(LUCKY, int(LUCKY_RATE * int(sample.chosen.sum())))
    for rows in (by_luck, more & ~told):
        if int(rows.sum()) > most:
            text = f"broken under new random starts; at most {most} are explained by chance"
            lies += claims.differ("autoattack", rows, "still right", text)
    return lies, lucky


def save(hits: Hits, claims: Claims) -> dict[str, NDArray[np.generic]]:
    """The images found, as `corobench contest` reads them."""
    rows = np.array([row for row, _ in hits.images], dtype=np.int64)
    images = np.stack([image for _, image in hits.images]).astype(np.float32)
    return {"images": images, "indices": claims.images[rows]}
