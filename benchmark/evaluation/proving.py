"""Verify first: the cheap certifiers, each asked about every correct image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.evaluation.facts import BoolArray
from corobench.benchmark.evaluation.jobs import Job
from corobench.benchmark.evaluation.stages import Stages
from corobench.benchmark.files.chunks import chunk_name
from corobench.benchmark.files.steps import StepEndedError


def certify(evaluation: Stages, certifier: str) -> None:
    """Ask one certifier about every correct image, largest epsilon first.

    A certifier that fails a check of its own on any image counts as not asked, and what it
    proved before is dropped: bounds that were wrong once prove nothing.
    """
    from corobench.benchmark.errors import NotCertifiable

    proven = {epsilon: np.zeros(len(evaluation.x), dtype=bool) for epsilon in evaluation.epsilons}
    margin = {
        epsilon: np.full(len(evaluation.x), np.nan, dtype=np.float32)
        for epsilon in evaluation.epsilons
    }
    carried = np.zeros(len(evaluation.x), dtype=bool)
    try:
        for epsilon in reversed(evaluation.epsilons):
            proven[epsilon] |= carried
            _at(evaluation, certifier, epsilon, proven[epsilon], margin[epsilon])
            carried = proven[epsilon]
    except (NotCertifiable, MemoryError, StepEndedError) as refusal:
        evaluation.note_refusal(refusal)
        evaluation.facts.not_asked[certifier] = str(refusal)
        evaluation.report.finish(f"not certifiable ({refusal})")
        return
    carried_from = np.full(len(evaluation.x), "", dtype=object)
    for epsilon in reversed(evaluation.epsilons):
        facts = evaluation.facts.epsilons[epsilon]
        facts.certified[certifier] = proven[epsilon]
        facts.margin = np.fmax(facts.margin, margin[epsilon])
        new = proven[epsilon] & ~facts.proven
        facts.proven_by[new] = certifier
        facts.proven_from[new] = carried_from[new]
        carried_from[proven[epsilon] & (carried_from == "")] = epsilon


def _at(
    evaluation: Stages,
    certifier: str,
    epsilon: str,
    proven: BoolArray,
    margin: NDArray[np.float32],
) -> None:
    """Fill `proven` and `margin` for the correct images that are not proven yet."""
    todo = np.flatnonzero(evaluation.facts.correct & ~proven)
    evaluation.report.stage(f"{certifier} {epsilon}", len(todo))
    jobs = []
    for number, rows in evaluation.batched(todo):
        known = evaluation.known_of_certifier(certifier, epsilon, rows)
        if known is not None:
            proven[rows] = known[0] & known[1]
            rows = rows[~known[0]]
        if not len(rows):
            continue
        name = chunk_name(f"certify-{certifier}", epsilon, number)
        told = {"certifier": certifier}
        jobs.append(Job(name, "certify", tuple(rows.tolist()), epsilon, told))
    for job, answer in evaluation.proofs(jobs):
        rows = job.places
        proven[rows], margin[rows] = answer["certified"], answer["margin"]
        seconds = float(answer["seconds"])
        evaluation.spend("certify", evaluation.facts.epsilons[epsilon], rows, seconds)
        evaluation.report.advance(len(rows), evaluation.facts.bracket_note(epsilon, proven))
    count = f"{int(proven.sum())} of {len(evaluation.x)} proven"
    evaluation.report.finish(f"{count}; {evaluation.facts.bracket_note(epsilon, proven)}")
