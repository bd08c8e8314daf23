"""Closing the bracket: costly certifiers on what is neither proven nor broken.

They come after PGD-50, because on an image that an attack breaks a search spends its whole budget
in vain, and before AutoAttack, which need not attack what they prove. So every image they prove has
survived PGD-50, and some of them are attacked by the whole suite as an audit.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.evaluation.facts import BoolArray, EpsilonFacts
from corobench.benchmark.evaluation.jobs import Job
from corobench.benchmark.evaluation.stages import Stages
from corobench.benchmark.files.chunks import chunk_name
from corobench.benchmark.files.steps import StepEndedError
from corobench.benchmark.tracks import Protocol

IMAGES_OF_A_JOB = 4
"""A search may take minutes: groups are handed out in parts, so that workers share their end."""


@dataclass
class _Found:
    """What one certifier found at one epsilon; nothing counts until it passed all its checks."""

    proven: BoolArray
    margin: NDArray[np.float32]
    stopped: BoolArray
    unanswered: BoolArray
    too_costly: BoolArray
    refuted: dict[int, NDArray[np.float32]]

    @classmethod
    def empty(cls, n: int) -> _Found:
        def none() -> BoolArray:
            return np.zeros(n, dtype=bool)

        margin = np.full(n, np.nan, dtype=np.float32)
        return cls(none(), margin, none(), none(), none(), {})


def close(evaluation: Stages, certifier: str) -> None:
    """Ask one certifier about every open image, largest epsilon first.

    At each epsilon the images are asked in groups, in published order. A group in which not one
    image is decided ends the certifier there; the images behind it stay unanswered. So do images
    that CROWN alone would take too much arithmetic for, and where it does for all, the certifier
    counts as not asked.

    Args:
        evaluation: after PGD-50.
        certifier: "alpha-CROWN" or "BaB", or "CROWN" of a large network.
    """
    from corobench.benchmark.errors import NotCertifiable

    facts, n = evaluation.facts, len(evaluation.x)
    found: dict[str, _Found] = {}
    carried = np.zeros(n, dtype=bool)
    try:
        for epsilon in reversed(evaluation.epsilons):
            here = found[epsilon] = _Found.empty(n)
            here.proven |= carried & _open(facts.correct, facts.epsilons[epsilon])
            _ask(evaluation, certifier, epsilon, here)
            carried = carried | here.proven
    except (NotCertifiable, MemoryError, StepEndedError) as refusal:
        evaluation.note_refusal(refusal)
        facts.not_asked[certifier] = str(refusal)
        evaluation.report.finish(f"not certifiable ({refusal})")
        return
    if _is_never_asked(found.values()):
        facts.not_asked[certifier] = too_large(evaluation.protocol, certifier)
        return
    _record_proofs(evaluation, certifier, found)
    refuted = {epsilon: found[epsilon].refuted for epsilon in evaluation.epsilons}
    facts.record_broken(certifier, refuted)


def too_large(protocol: Protocol, certifier: str) -> str:
    """Why a certifier is not asked about a network whose every image costs too much."""
    return (
        f"too-large: CROWN would take more than {protocol.crown_max_macs:,} multiply-adds for each "
        f"image, and protocol {protocol.version} asks {certifier} up to that"
    )


def _is_never_asked(found: Iterable[_Found]) -> bool:
    """Whether there were images to ask about, and every one would have cost too much."""
    parts = list(found)
    is_asked = any(not np.isnan(here.margin).all() for here in parts)
    return not is_asked and any(here.too_costly.any() for here in parts)


def _open(correct: BoolArray, facts: EpsilonFacts) -> BoolArray:
    """Neither proven nor broken."""
    return np.asarray(correct & ~facts.proven & ~facts.attacked, dtype=bool)


def _ask(evaluation: Stages, certifier: str, epsilon: str, found: _Found) -> None:
    """Fill what one certifier finds at one epsilon.

    Groups behind one without a decision may have been asked already; they count for nothing.
    """
    facts, report = evaluation.facts.epsilons[epsilon], evaluation.report
    todo = np.flatnonzero(_open(evaluation.facts.correct, facts) & ~found.proven)
    size = evaluation.protocol.closing_group
    groups = [todo[start : start + size] for start in range(0, len(todo), size)]
    report.stage(f"{certifier} {epsilon}", len(todo))
    jobs, ends = [], []
    for number, rows in enumerate(groups):
        name = chunk_name(f"certify-{certifier}", epsilon, number)
        for start in range(0, len(rows), IMAGES_OF_A_JOB):
            part = tuple(rows[start : start + IMAGES_OF_A_JOB].tolist())
            told = {"certifier": certifier}
            jobs.append(Job(f"{name}.{start:02d}", "close", part, epsilon, told))
        ends.append(len(jobs))
    is_decided, group = False, 0
    with closing(evaluation.proofs(jobs)) as answers:
        for number, (job, answer) in enumerate(answers, start=1):
            rows = job.places
            evaluation.spend("certify", facts, rows, float(answer["seconds"]))
            found.proven[rows] = answer["certified"]
            found.margin[rows] = np.where(answer["unasked"], np.nan, answer["margin"])
            found.stopped[rows] = answer["stopped"]
            found.too_costly[rows] = found.unanswered[rows] = answer["unasked"]
            refuted = rows[answer["refuted"]].tolist()
            found.refuted.update(zip(refuted, answer["adversarial"], strict=True))
            report.advance(len(rows), _bracket(evaluation, epsilon, found))
            is_decided |= bool(answer["certified"].any()) or bool(refuted)
            if number < ends[group]:
                continue
            if not is_decided and group + 1 < len(groups):
                behind = np.concatenate(groups[group + 1 :])
                found.unanswered[behind] = True
                left = len(behind)
                report.finish(f"gave up, {left} not asked; {_note(evaluation, epsilon, found)}")
                return
            is_decided, group = False, group + 1
    report.finish(_note(evaluation, epsilon, found))


def _note(evaluation: Stages, epsilon: str, found: _Found) -> str:
    bracket = _bracket(evaluation, epsilon, found)
    return f"{int(found.proven.sum())} more proven, {len(found.refuted)} broken; {bracket}"


def _bracket(evaluation: Stages, epsilon: str, found: _Found) -> str:
    broken = np.zeros_like(found.proven)
    broken[list(found.refuted)] = True
    return evaluation.facts.bracket_note(epsilon, found.proven, broken)


def _record_proofs(evaluation: Stages, certifier: str, found: dict[str, _Found]) -> None:
    proven_at = np.full(len(evaluation.x), "", dtype=object)
    for epsilon in reversed(evaluation.epsilons):
        facts, here = evaluation.facts.epsilons[epsilon], found[epsilon]
        facts.proven_by[here.proven] = certifier
        facts.proven_from[here.proven] = proven_at[here.proven]
        proven_at[here.proven & (proven_at == "")] = epsilon
        facts.margin = np.fmax(facts.margin, here.margin)
        facts.stopped |= here.stopped
        facts.stopped &= ~facts.proven
        facts.certified[certifier] = facts.proven.copy()
        facts.unanswered[certifier] = here.unanswered
