"""The evaluation of a few images after another: what the gate asks of a candidate.

Each slice is a whole evaluation of its own, by the protocol's stages. Random numbers depend on the
slice, so that an outcome may differ by chance from that of ``corobench evaluate`` on all images, as
it may between two seeds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmark import store
from benchmark.data import load_test, subset
from benchmark.equivalent import equivalent
from benchmark.errors import ContradictionError, ResultError
from benchmark.evaluate import CONTRACT_IMAGES, prepare_certifiers, resolve_device
from benchmark.outcomes import audit, outcome_table
from benchmark.pipeline import Evaluation
from benchmark.progress import Reporter
from benchmark.records import Result
from benchmark.submission import Submission, check_contract
from benchmark.tracks import Protocol, parse_epsilon, round_of

AUDIT_IMAGES = 10
"""Certified images attacked all the same, per slice and group of certifiers."""

SMALL_MACS = 1_000_000
"""Multiply-adds per image up to which a second thread costs more than it gains: docs/ci.md."""


@contextmanager
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
    *,
    device: str = "cpu",
    data_root: Path | None = None,
    report: Reporter | None = None,
) -> Iterator[tuple[int, pd.DataFrame]]:
    """Evaluate up to the first size, then up to the second, and so on.

    Args:
        submission: the candidate.
        folder: its folder or file, for messages.
        reference: the baseline's result, whose images, radii and seed are used.
        baseline: its path, for messages.
        sizes: ascending numbers of images.
        device: for evaluating.
        data_root: folder of the dataset, or None for the usual search.
        report: progress; standard error by default.

    Yields:
        How many images are evaluated by now, and the outcome table of the new ones.

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
    dataset = load_test(track.name, data_root)
    if dataset.fingerprint != reference.data.fingerprint:
        raise ResultError(f"{baseline}: belongs to other images than {dataset.source}")
    place = resolve_device(device)
    images, labels, indices = subset(dataset, reference.n)
    model = submission.model.to(place).eval()
    x = torch.from_numpy(np.ascontiguousarray(images)).to(place)
    y = torch.from_numpy(np.ascontiguousarray(labels)).to(place)
    some, classes = x[:CONTRACT_IMAGES], track.num_classes
    check_contract(model, some, classes, folder, submission.reference)
    other = equivalent(model, track.shape, some)
    network = other.network if other else None
    bounded, not_asked = prepare_certifiers(network or model, track, protocol, place)
    begin = 0
    for end in sizes:
        rows = slice(begin, end)
        with (
            threads_for(reference.compactness.macs_dense),
            tempfile.TemporaryDirectory() as chunks,
            report or Reporter(f"{folder.name} {begin}-{end}") as progress,
        ):
            facts = Evaluation(
                model,
                x[rows],
                y[rows],
                track=track,
                epsilons=tuple(sorted(reference.epsilons, key=parse_epsilon)),
                protocol=protocol,
                seed=reference.seed,
                chunks=store.ChunkStore(Path(chunks), {"slice": [begin, end]}),
                report=progress,
                equivalent=network,
            ).run(bounded, not_asked)
        contradictions = audit(facts, indices[rows]).contradictions
        if contradictions:
            raise ContradictionError(
                f"{folder}: certified images were broken, so a certifier or an attack is wrong:\n"
                + "\n".join(contradictions)
            )
        yield end, outcome_table(facts, indices[rows], labels[rows])
        begin = end
