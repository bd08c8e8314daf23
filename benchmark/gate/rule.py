"""The rule of the gate: paired counts in, verdicts out; no torch.

Per metric the images that only the baseline gets right are set against those that only the
candidate gets right. A metric **fails** where it lost more than is allowed beyond chance: the test
of `noninferiority`, Holm-corrected over all metrics, rejects "it truly lost no more than allowed".
It **warns** where the drop on these images is larger than allowed and may be chance. Sizes are
measured exactly and need no test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from corobench.benchmark.errors import ConfigError
from corobench.benchmark.gate.noninferiority import p_value
from corobench.benchmark.records.result import Outcome
from corobench.benchmark.scoring.statistics import holm

if TYPE_CHECKING:
    import pandas as pd


class Verdict(StrEnum):
    """What the gate says, of one metric or of all, from the lightest to the gravest.

    "still open" is said only of a metric, where the comparison stopped before it was decided.
    """

    PASS = "pass"  # noqa: S105 (a verdict, no secret)
    OPEN = "still open"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Rule:
    """What a project allows.

    Attributes:
        max_drop: percentage points that a metric may truly lose, at least 0.
        alpha: the largest chance that any metric fails that truly lost no more, in (0, 1).
        max_bytes_growth: percent that the packed weights may grow.
    """

    max_drop: float = 1.0
    alpha: float = 0.05
    max_bytes_growth: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is out of range.

        Raises:
            ConfigError: names the value.
        """
        for name, least in (("max_drop", 0.0), ("max_bytes_growth", 0.0), ("alpha", 0.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigError(f"{name}: expected a number, but found {value!r}")
            if not least <= value < math.inf:
                raise ConfigError(f"{name}: expected at least {least:g}, but found {value}")
        if not 0.0 < self.alpha < 1.0:
            raise ConfigError(f"alpha: expected a chance in (0, 1), but found {self.alpha}")

    @property
    def margin(self) -> float:
        """Share of the images that a metric may lose."""
        return self.max_drop / 100.0


@dataclass(frozen=True)
class Paired:
    """One metric on the same images.

    Attributes:
        metric: "clean", "pgd50", "autoattack" or "certified".
        epsilon: radius, or empty for "clean".
        n: images compared.
        baseline: right in the baseline.
        candidate: right in the candidate.
        only_baseline: right in the baseline alone.
        only_candidate: right in the candidate alone.
    """

    metric: str
    epsilon: str
    n: int
    baseline: int
    candidate: int
    only_baseline: int
    only_candidate: int

    @property
    def name(self) -> str:
        """For people: "autoattack 1/16"."""
        return f"{self.metric} {self.epsilon}".strip()

    @property
    def drop(self) -> float:
        """Percentage points lost; below 0 where the candidate is better."""
        return 100.0 * (self.only_baseline - self.only_candidate) / self.n


@dataclass(frozen=True)
class Judged:
    """A metric with its p-values and verdict.

    Attributes:
        paired: the counts.
        p_value: chance to lose so much where the true loss is the allowed one; 1 where no more
            than that was lost.
        p_corrected: the same for all metrics and looks together; it fails at alpha or below.
        verdict: of this metric.
    """

    paired: Paired
    p_value: float
    p_corrected: float
    verdict: Verdict


@dataclass(frozen=True)
class Size:
    """Packed bytes of both, and whether the growth is allowed."""

    baseline: int
    candidate: int
    verdict: Verdict

    @property
    def growth(self) -> float:
        """Percent."""
        return 100.0 * (self.candidate - self.baseline) / self.baseline


def pair(baseline: pd.DataFrame, candidate: pd.DataFrame) -> list[Paired]:
    """Every metric that both outcome tables answer, on the images that both hold.

    Args:
        baseline: outcome table, rows of at least the candidate's images.
        candidate: outcome table.
    """
    keys = ["image", "epsilon"]
    both = baseline.merge(candidate, on=keys, suffixes=("_b", "_c"), validate="one_to_one")
    found = []
    for number, (epsilon, rows) in enumerate(both.groupby("epsilon", sort=False)):
        if number == 0:
            right = {side: rows[f"predicted_{side}"] == rows[f"label_{side}"] for side in "bc"}
            found.append(_paired("clean", "", right))
        for metric in ("pgd50", "autoattack"):
            right = {side: rows[f"{metric}_{side}"].fillna(False) for side in "bc"}
            found.append(_paired(metric, str(epsilon), right))
        if all(_is_certified_at_all(rows, side) for side in "bc"):
            right = {side: rows[f"outcome_{side}"] == Outcome.CERTIFIED for side in "bc"}
            found.append(_paired("certified", str(epsilon), right))
    return found


def lost_proofs(baseline: pd.DataFrame, candidate: pd.DataFrame) -> list[str]:
    """Radii at which the baseline has certified images to compare and the candidate was not asked.

    Args:
        baseline: outcome table.
        candidate: outcome table.
    """
    asked = {
        str(epsilon): bool(rows["ibp"].notna().any())
        for epsilon, rows in candidate.groupby("epsilon", sort=False)
    }
    return [
        str(epsilon)
        for epsilon, rows in baseline.groupby("epsilon", sort=False)
        if not asked.get(str(epsilon), True) and (rows["outcome"] == Outcome.CERTIFIED).any()
    ]


def _is_certified_at_all(rows: pd.DataFrame, side: str) -> bool:
    return bool(rows[f"ibp_{side}"].notna().any())


def _paired(metric: str, epsilon: str, right: Mapping[str, pd.Series]) -> Paired:
    baseline, candidate = (right[side].to_numpy(dtype=bool) for side in "bc")
    return Paired(
        metric,
        epsilon,
        n=len(baseline),
        baseline=int(baseline.sum()),
        candidate=int(candidate.sum()),
        only_baseline=int((baseline & ~candidate).sum()),
        only_candidate=int((candidate & ~baseline).sum()),
    )


def judge(metrics: Sequence[Paired], rule: Rule, share: float = 1.0) -> list[Judged]:
    """Apply the rule to all metrics of one comparison.

    Args:
        metrics: counts, all on the same images.
        rule: what is allowed.
        share: of alpha that may be spent on this look at the images, in (0, 1].
    """
    p_values = [p_value(m.only_baseline, m.only_candidate, m.n, rule.margin) for m in metrics]
    judged = []
    for metric, p, for_all in zip(metrics, p_values, holm(p_values), strict=True):
        corrected = min(1.0, for_all / share)
        verdict = Verdict.WARN if metric.drop > rule.max_drop else Verdict.PASS
        if verdict == Verdict.WARN and corrected <= rule.alpha:
            verdict = Verdict.FAIL
        judged.append(Judged(metric, p, corrected, verdict))
    return judged


def judge_size(baseline: int, candidate: int, rule: Rule) -> Size:
    """Compare packed bytes.

    Args:
        baseline: bytes, at least 1.
        candidate: bytes.
    """
    allowed = baseline * (1 + rule.max_bytes_growth / 100.0)
    return Size(baseline, candidate, Verdict.FAIL if candidate > allowed else Verdict.PASS)


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The gravest of them; "pass" for none, and where early stopping left some of them open.

    >>> str(worst([Verdict.PASS, Verdict.WARN])), str(worst([Verdict.OPEN]))
    ('warn', 'pass')
    """
    order = list(Verdict)
    gravest = max(verdicts, key=order.index, default=Verdict.PASS)
    return Verdict.PASS if gravest == Verdict.OPEN else gravest
