"""The evaluation of a few images after another: what the gate asks of a candidate.

Each slice is a whole evaluation of its own, by the protocol's stages. Random numbers depend on the
slice, so that an outcome may differ by chance from that of ``corobench evaluate`` on all images, as
it may between two seeds.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from corobench.benchmark.data import load_test, subset
from corobench.benchmark.errors import ContradictionError, ResultError
from corobench.benchmark.evaluation.outcomes import audit, errors, outcome_table
from corobench.benchmark.evaluation.pipeline import Evaluation
from corobench.benchmark.evaluation.prepared import check_images, prepare
from corobench.benchmark.files.chunks import ChunkStore
from corobench.benchmark.gate.run import CandidateRun
from corobench.benchmark.network.device import exact_float32, resolve_device
from corobench.benchmark.records.result import Result
from corobench.benchmark.submission import Submission
from corobench.benchmark.tracks import Protocol, parse_epsilon, round_of

AUDIT_IMAGES = 10
"""Certified images attacked all the same, per slice and group of certifiers."""

SMALL_MACS = 1_000_000
"""Multiply-adds per image up to which a second thread costs more than it gains: docs/ci.md."""


@contextlib.contextmanager
def threads_for(macs: int) -> Iterator[None]:
    """One thread within the block for a small network, and as many as before otherwise.

    Args:
        macs: multiply-adds per image.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if macs <= SMALL_MACS else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def outcomes_in_slices(
    submission: Submission,
    folder: Path,
    reference: Result,
    baseline: Path,
    sizes: tuple[int, ...],
    run: CandidateRun,
) -> Iterator[tuple[int, pd.DataFrame, tuple[str, ...]]]:
    """Evaluate up to the first size, then up to the second, and so on.

    Args:
        submission: the candidate.
        folder: its folder or file, for messages.
        reference: the baseline's result, whose images, radii and seed are used.
        baseline: its path, for messages.
        sizes: ascending numbers of images.
        run: device, data, progress and steps.

    Yields:
        How many images are evaluated by now, the outcome table of the new ones, and what has no
        answer, one line each.

    Raises:
        ResultError: other images or another protocol than the baseline's.
        ContradictionError: a certified image was broken.
    """
    track, protocol = submission.track, replace(Protocol(), audit_images=AUDIT_IMAGES)
    if round_of(reference.protocol) != round_of(protocol.version):
        raise ResultError(
            f"{baseline}: protocol: expected {protocol.version}, but found {reference.protocol}; "
            "evaluate the baseline again"
        )
    dataset = load_test(track.name, run.data_root)
    if dataset.fingerprint != reference.data.fingerprint:
        raise ResultError(f"{baseline}: does not belong to the images of {dataset.source}")
    device = resolve_device(run.device)
    images, labels, indices = subset(dataset, reference.n)
    with exact_float32():
        checked = check_images(
            submission, images, labels, device, run.steps, folder, indices.tolist()
        )
        prepared = prepare(checked, protocol, run.steps)
    begin = 0
    for end in sizes:
        rows = slice(begin, end)
        with (
            exact_float32(),
            threads_for(reference.compactness.macs_dense),
            _chunks(run.chunks) as chunks,
            run.reporter(f"{folder.name} {begin}-{end}") as progress,
        ):
            facts = Evaluation(
                prepared.part(rows),
                epsilons=tuple(sorted(reference.epsilons, key=parse_epsilon)),
                seed=reference.seed,
                chunks=ChunkStore(chunks, {"slice": [begin, end]}),
                report=progress,
                steps=run.steps,
            ).run()
        contradictions = audit(facts, indices[rows]).contradictions
        if contradictions:
            raise ContradictionError(
                f"{folder}: certified images were broken, so a certifier or an attack is wrong:\n"
                + "\n".join(contradictions)
            )
        unasked = [
            f"{certifier} was asked about the baseline, but not here: {reason}"
            for certifier, reason in facts.not_asked.items()
            if certifier not in reference.not_asked
        ]
        table = outcome_table(facts, indices[rows], labels[rows])
        yield end, table, (*unasked, *(f"no answer: {line}" for line in errors(facts)))
        begin = end


def _chunks(kept: Path | None) -> AbstractContextManager[Path]:
    """A folder for finished chunks: the one that is kept, or one that goes away."""
    return contextlib.nullcontext(kept) if kept is not None else _temporary()


@contextlib.contextmanager
def _temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
