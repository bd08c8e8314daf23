"""The outcome table against the images beside it.

What rows must keep by themselves and against each other is in `benchmark.records.reading.rows` and
`radii`, which every reader of a table applies.
"""

from __future__ import annotations

from collections.abc import Iterator

from corobench.benchmark.data import subset
from corobench.benchmark.evaluation.evidence import Evidence
from corobench.benchmark.review.verification.claims import Claims
from corobench.benchmark.review.verification.mismatch import Mismatch


def claims_of(evidence: Evidence) -> Claims:
    """The claims of a result; that its rows are the published images was asked by its readers."""
    images = subset(evidence.dataset, evidence.run.n)[2]
    return Claims(evidence, evidence.run.epsilons, images)


def compare_rows(claims: Claims) -> Iterator[Mismatch]:
    """Each stored image is of a row; that each attacked row has one was asked before."""
    stored = len(claims.evidence.adversarial)
    table = claims.evidence.table
    used = set(table.loc[table["adversarial"] >= 0, "adversarial"].tolist())
    if used != set(range(stored)):
        yield Mismatch("adversarial", f"{len(used)} images that rows name", f"{stored} stored")
