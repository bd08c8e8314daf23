"""The lower end of a bracket as evidence: every certificate of a result, checked anew.

Proofs of IBP, CROWN-IBP and CROWN are the checker's own work: it needs nothing but the network and
the box. For alpha-CROWN and branch and bound a search proposes slopes and cases once more, and the
checker decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch

from corobench.benchmark.certify import BranchBudget, Prover
from corobench.benchmark.certify.checker.intervals import UncheckableError
from corobench.benchmark.certify.checker.proofs import METHODS, margins
from corobench.benchmark.certify.checker.reading import read_network
from corobench.benchmark.errors import NotCertifiable, ResultError
from corobench.benchmark.records.result import Outcome
from corobench.benchmark.referee import threat
from corobench.benchmark.tracks import Protocol, is_since, parse_epsilon

if TYPE_CHECKING:
    import pandas as pd

    from corobench.benchmark.evaluation.evidence import Evidence

#: A search that found its proof in time on another machine must not be ended by the clock here.
PATIENCE = 10


def unproven(evidence: Evidence, protocol: Protocol) -> Iterator[str]:
    """Certified rows of a result whose proof is not confirmed, one line each.

    A row that was carried from a larger radius is checked there, if there is such a proof.

    Args:
        evidence: a result with its table, weights and images.
        protocol: budget of searches.

    Raises:
        ResultError: the checker does not know the network.
    """
    rows = to_check(evidence.table)
    model, shape = evidence.submission.model, evidence.submission.track.shape
    if not len(rows):
        return
    try:
        network = read_network(model, shape)
    except UncheckableError as error:
        raise ResultError(
            f"{evidence.path}: expected a network whose certificates can be checked, but the "
            f"checker does not know {error}; {len(rows)} rows claim one"
        ) from error
    prover: Prover | None = None
    for (epsilon, method), group in rows.groupby(["epsilon", "decided_by"]):
        images = group["image"].to_numpy()
        x = torch.from_numpy(np.ascontiguousarray(evidence.dataset.take(images)))
        labels = np.ascontiguousarray(evidence.dataset.labels[images]).astype(np.int64)
        lower, upper = threat.box(x, Fraction(parse_epsilon(epsilon)))
        if method in METHODS:
            low, high = (one.numpy().astype(np.float64) for one in (lower, upper))
            is_proven = margins(network, low, high, labels, method).min(axis=1) > 0
        else:
            prover = prover or Prover(model, shape, evidence.submission.track.num_classes)
            budget = BranchBudget(
                max_subdomains=protocol.max_subdomains,
                stop_after_s=PATIENCE * protocol.certify_budget_s,
            )
            try:
                answers = prover.search(method, lower, upper, torch.from_numpy(labels), budget)
                is_proven = np.array([answer.is_certified for answer in answers])
            except NotCertifiable:
                is_proven = np.zeros(len(images), dtype=bool)
        for image in images[~is_proven].tolist():
            yield f"image {image} at {epsilon}: its proof by {method} is not confirmed"


def to_check(table: pd.DataFrame) -> pd.DataFrame:
    """Certified rows, without those whose proof is that of a row at a larger radius.

    A table may name any radius that a proof was carried from. It is believed only where that row
    is certified itself, is carried from nowhere, and so is checked.
    """
    rows = table[table["outcome"] == Outcome.CERTIFIED]
    own = rows[rows["carried_from"] == ""]
    checked = set(zip(own["image"], own["epsilon"], strict=True))
    is_carried = [
        source != ""
        and parse_epsilon(source) > parse_epsilon(epsilon)
        and (image, source) in checked
        for image, epsilon, source in zip(
            rows["image"], rows["epsilon"], rows["carried_from"], strict=True
        )
    ]
    return rows[~np.array(is_carried, dtype=bool)]


def has_checked_proofs(protocol: str) -> bool:
    """Whether results of a protocol have certificates that the checker gave.

    >>> has_checked_proofs("1.0"), has_checked_proofs("1.1")
    (False, True)
    """
    return is_since(protocol, (1, 1))


def num_proofs(evidence: Evidence) -> int:
    """Certified rows, carried ones included."""
    return int((evidence.table["outcome"] == Outcome.CERTIFIED).sum())
