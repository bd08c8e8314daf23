"""Measure the security curve of a result: cheap proofs and a cheap attack at more radii.

The network, the images and the seed are those of the result. IBP, CROWN-IBP and, where it is cheap,
CROWN are asked about every right image; PGD-50 attacks what they leave open. The result stays as
it is, and nothing is ranked by its curve.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from corobench.benchmark.data import subset
from corobench.benchmark.errors import ResultError
from corobench.benchmark.evaluation.evidence import Evidence, load_evidence
from corobench.benchmark.evaluation.facts import Facts
from corobench.benchmark.evaluation.identity import name_of, versions
from corobench.benchmark.evaluation.pipeline import Evaluation
from corobench.benchmark.evaluation.prepared import check_images, prepare
from corobench.benchmark.evaluation.proving import certify
from corobench.benchmark.files.atomic import canonical_json, prepare_folder, write_atomic
from corobench.benchmark.files.chunks import CHUNKS, ChunkStore
from corobench.benchmark.files.progress import Reporter
from corobench.benchmark.files.steps import Steps
from corobench.benchmark.network.device import exact_float32, one_thread, resolve_device
from corobench.benchmark.records.aside import SCHEMA, owner
from corobench.benchmark.records.curve import (
    Curve,
    CurvePoint,
    curve_path,
    faults_of_curve,
    grid,
)
from corobench.benchmark.records.reading.curve_file import read_curve
from corobench.benchmark.tracks import Protocol, parse_epsilon

if TYPE_CHECKING:
    from corobench.benchmark.certify import Prover


class CurveEvaluation(Evaluation):
    """Clean, the cheap certifiers and PGD-50, and nothing else."""

    def _run(self, prover: Prover | None, not_asked: dict[str, str]) -> Facts:
        self.facts.not_asked = dict(not_asked)
        self.clean()
        for certifier in self.prepared.early:
            if prover is not None and certifier not in not_asked:
                certify(self, certifier)
        self.attack(self.pgd())
        return self.facts


@one_thread()
@exact_float32()
def measure_curve(
    result_path: Path,
    submission: Path,
    *,
    device: str = "cpu",
    data_root: Path | None = None,
    report: Reporter | None = None,
    steps: Steps | None = None,
    force: bool = False,
) -> Path:
    """Measure the curve of a result and write it; one that is there already stays.

    A stopped run goes on from its finished chunks.

    Args:
        result_path: the result file; its outcome table and adversarial images lie beside it.
        submission: folder of the entry.
        device: for evaluating.
        data_root: folder of the dataset, or None for the usual search.
        report: progress; standard error by default.
        steps: told of each step.
        force: measure it anew although one is there.

    Returns:
        Path of the curve.

    Raises:
        CorobenchError: a file is missing or broken, or belongs to other weights or images.
    """
    steps = steps or Steps()
    evidence = load_evidence(result_path, submission, data_root)
    result, path = evidence.result, curve_path(result_path)
    if not force and _is_there(path, evidence):
        return path
    at = resolve_device(device)
    identity = {
        "curve": result.identity,
        "epsilons": grid(tuple(result.epsilons)),
        "versions": versions(),
        "device": name_of(at, False),
    }
    about = {"entry": result.entry, "track": result.track, "n": result.n}
    chunks = ChunkStore(result_path.parent.parent.parent / CHUNKS, identity, about)
    prepare_folder(path.parent)
    with report or Reporter(f"{result.entry}, curve") as progress:
        curve = _measure(evidence, at, chunks, progress, steps)
    text = canonical_json(curve.model_dump(mode="json", by_alias=True))
    write_atomic(path, f"{text}\n".encode())
    chunks.discard()
    return path


@one_thread()
@exact_float32()
def recheck_curve(
    evidence: Evidence, report: Reporter, device: str = "cpu", steps: Steps | None = None
) -> tuple[str, ...] | None:
    """Measure the curve beside a result again.

    Args:
        evidence: of the result.
        report: progress.
        device: for evaluating.
        steps: told of each step.

    Returns:
        Where its file differs from what is measured here, one line each; None without a file. With
        other libraries or another device an image near an edge may differ without a fault.

    Raises:
        ResultError: the curve cannot be read, or is not that of the result.
    """
    stored = read_curve(curve_path(evidence.path), evidence.result)
    if stored is None:
        return None
    at = resolve_device(device)
    with tempfile.TemporaryDirectory(prefix="corobench-") as room:
        chunks = ChunkStore(Path(room), {"curve": evidence.result.identity}, {})
        found = _measure(evidence, at, chunks, report, steps or Steps())
    lines = []
    for key in ("certifiers", "attack"):
        said, here = getattr(stored, key), getattr(found, key)
        if said != here:
            lines.append(f"{key}: claimed {said}, measured {here}")
    for epsilon in sorted(stored.points, key=parse_epsilon):
        for key in CurvePoint.model_fields:
            said, here = (getattr(one.points[epsilon], key) for one in (stored, found))
            if said != here:
                lines.append(f"{epsilon}: claimed {said} {key}, measured {here}")
    if lines and (stored.versions, stored.device) != (found.versions, found.device):
        lines.append(
            f"it was measured on {stored.device} with {_told(stored)}, here on {found.device} with "
            f"{_told(found)}"
        )
    return tuple(lines)


def _told(curve: Curve) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(curve.versions.items()))


def _measure(
    evidence: Evidence,
    at: torch.device,
    chunks: ChunkStore,
    report: Reporter,
    steps: Steps,
) -> Curve:
    """The curve of a result.

    Raises:
        ResultError: it contradicts the result, or a step of it gave no answer.
    """
    result = evidence.result
    images, labels, _ = subset(evidence.dataset, result.n)
    folder = evidence.submission.folder
    checked = check_images(evidence.submission, images, labels, at, steps, folder)
    evaluation = CurveEvaluation(
        prepare(checked, Protocol(), steps),
        epsilons=grid(tuple(result.epsilons)),
        seed=result.seed,
        chunks=chunks,
        report=report,
        steps=steps,
    )
    facts = evaluation.run()
    _require_answers(facts, steps, evidence.path)
    asked = tuple(
        name
        for name in evaluation.prepared.early
        if any(name in known.certified for known in facts.epsilons.values())
    )
    curve = Curve(
        schema=SCHEMA,
        **owner(result),
        seed=result.seed,
        certifiers=asked,
        attack=evaluation.pgd().name,
        device=name_of(at, False),
        versions=versions(),
        points=_points(facts, bool(asked)),
    )
    faults = faults_of_curve(curve, result)
    if faults:
        raise ResultError("\n".join([f"{evidence.path}: its curve contradicts it", *faults]))
    return curve


def _require_answers(facts: Facts, steps: Steps, path: Path) -> None:
    """Refuse where an attack or a proof gave no answer: its images would count as unbroken.

    Raises:
        ResultError: with the first reason.
    """
    reasons = [f"{name}: {ended.reason}" for name, ended in steps.ended.items()]
    for known in facts.epsilons.values():
        reasons += [str(reason) for reason in known.failed if reason]
    if reasons:
        raise ResultError(
            f"{path}: no curve, because a step of it gave no answer ({reasons[0]}); give it more "
            "time or memory, see `corobench evaluate --help`"
        )


def _is_there(path: Path, evidence: Evidence) -> bool:
    """Whether the curve of this result is there whole; one of another result is measured anew."""
    try:
        return read_curve(path, evidence.result) is not None
    except ResultError:
        return False


def _points(facts: Facts, is_asked: bool) -> dict[str, CurvePoint]:
    """Counts at each radius, ascending."""
    points = {}
    for epsilon, known in facts.epsilons.items():
        unbroken = facts.correct & ~known.attacked
        proven = int(np.sum(known.proven & facts.correct)) if is_asked else None
        points[epsilon] = CurvePoint(proven=proven, unbroken=int(np.sum(unbroken)))
    return points
