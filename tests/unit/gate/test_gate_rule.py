"""The gate's rule and its early stopping: exact tests, invariants, simulated error rates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from benchmark.gate.rule import (
    Paired,
    Rule,
    Size,
    Verdict,
    judge,
    judge_size,
    lost_proofs,
    pair,
    worst,
)
from benchmark.gate.sequential import _failing, futures, looks, settled


def paired(lost: int, won: int, n: int = 500, metric: str = "clean") -> Paired:
    return Paired(metric, "", n, n - won, n - lost, lost, won)


@pytest.mark.parametrize(
    ("lost", "won", "verdict"),
    [
        (0, 0, Verdict.PASS),
        (0, 40, Verdict.PASS),  # better
        (5, 0, Verdict.PASS),  # 1.0 points: allowed
        (30, 24, Verdict.WARN),  # 1.2 points, and perhaps chance
        (20, 2, Verdict.FAIL),
        (6, 0, Verdict.FAIL),  # p = 2 / 2**6 = 0.031
    ],
)
def test_verdicts_of_one_metric(lost: int, won: int, verdict: Verdict) -> None:
    (judged,) = judge([paired(lost, won)], Rule())
    assert judged.verdict == verdict
    assert judged.p_value == pytest.approx(
        binomtest(lost, lost + won).pvalue if lost + won else 1.0
    )


def test_many_metrics_bear_holms_correction() -> None:
    others = [paired(0, 0) for _ in range(6)]
    assert judge([paired(6, 0)], Rule())[0].verdict == Verdict.FAIL
    assert judge([paired(6, 0), *others], Rule())[0].verdict == Verdict.WARN


def test_bytes_may_not_grow() -> None:
    assert judge_size(1000, 1000, Rule()).verdict == Verdict.PASS
    assert judge_size(1000, 1001, Rule()).verdict == Verdict.FAIL
    grown = judge_size(1000, 1050, Rule(max_bytes_growth=5.0))
    assert grown == Size(1000, 1050, Verdict.PASS) and grown.growth == 5.0


def test_the_worst_verdict_counts() -> None:
    assert worst([]) == Verdict.PASS
    assert worst([Verdict.FAIL, Verdict.PASS, Verdict.WARN]) == Verdict.FAIL


def _table(outcomes: list[str], *, certified: bool = True) -> pd.DataFrame:
    asked = [outcome == "certified" for outcome in outcomes] if certified else pd.NA
    return pd.DataFrame(
        {
            "image": range(len(outcomes)),
            "epsilon": "1/16",
            "label": 0,
            "predicted": [int(outcome == "misclassified") for outcome in outcomes],
            "outcome": outcomes,
            "pgd50": [outcome in ("certified", "undecided") for outcome in outcomes],
            "autoattack": [outcome in ("certified", "undecided") for outcome in outcomes],
            "ibp": pd.array(asked if certified else [pd.NA] * len(outcomes), dtype="boolean"),
        }
    )


def test_images_are_paired_and_counted() -> None:
    baseline = _table(["certified", "certified", "attacked", "misclassified", "undecided"])
    candidate = _table(["certified", "undecided", "attacked", "certified"])  # fewer images
    found = {metric.metric: metric for metric in pair(baseline, candidate)}
    assert found["clean"] == Paired("clean", "", 4, 3, 4, 0, 1)
    assert found["autoattack"] == Paired("autoattack", "1/16", 4, 2, 3, 0, 1)
    assert found["certified"] == Paired("certified", "1/16", 4, 2, 2, 1, 1)


def test_what_one_side_was_not_asked_is_not_compared() -> None:
    asked, not_asked = _table(["certified"]), _table(["undecided"], certified=False)
    assert "certified" not in {metric.metric for metric in pair(asked, not_asked)}
    assert lost_proofs(asked, not_asked) == ["1/16"], "the proofs of the baseline are gone"
    assert lost_proofs(not_asked, asked) == lost_proofs(asked, asked) == []
    assert lost_proofs(_table(["undecided"]), not_asked) == [], "there was no proof to lose"


def test_the_fast_test_is_the_exact_one() -> None:
    counts = np.array([(b, c) for b in range(40) for c in range(40)])
    fast = _failing(counts, 79, 0.0, 0.05)
    for (b, c), failing in zip(counts, fast, strict=True):
        exact = b > c and binomtest(int(c), int(b + c)).pvalue <= 0.05
        assert failing == exact, (b, c)


def test_futures_keep_what_is_seen() -> None:
    counts = futures(7, 3, 100, 500)
    assert (counts >= [7, 3]).all()
    assert (counts.sum(axis=1) <= 500).all()
    assert counts.mean(axis=0) == pytest.approx([36.5, 17], rel=0.15)


def test_a_clear_loss_is_settled_early_and_equals_too() -> None:
    assert settled([paired(20, 0, n=50)], 500, Rule()) == [Verdict.FAIL]
    assert settled([paired(0, 0, n=125)] * 7, 500, Rule()) == [Verdict.PASS] * 7
    assert settled([paired(4, 1, n=125)], 500, Rule()) is None


def test_looks_end_at_the_whole() -> None:
    for total in (10, 60, 500, 1000, 10_000):
        sizes = looks(total)
        assert sizes[-1] == total and list(sizes) == sorted(set(sizes))


def test_simulated_error_rates() -> None:
    """Independent metrics, the hard case: few false alarms, few misses of ten points."""
    random, rule, total = np.random.default_rng(1), Rule(), 500

    def red(rate_lost: float, rate_won: float) -> bool:
        lost = random.random((3, total)) < rate_lost
        won = ~lost & (random.random((3, total)) < rate_won)
        for n in looks(total):
            metrics = [
                paired(int(b[:n].sum()), int(c[:n].sum()), n)
                for b, c in zip(lost, won, strict=True)
            ]
            early = settled(metrics, total, rule) if n < total else None
            if early is not None:
                return Verdict.FAIL in early
        return Verdict.FAIL in [one.verdict for one in judge(metrics, rule)]

    # 200 runs each; at a true rate of 5 % more than 20 alarms have a chance below 0.1 %.
    assert sum(red(0.02, 0.02) for _ in range(200)) <= 20
    assert sum(red(0.12, 0.02) for _ in range(200)) >= 198
