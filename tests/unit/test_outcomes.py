"""What nobody recorded is missing: no image is right because nothing is there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from leaderboard_factory import published_images
from tables import make_run

from corobench.benchmark.errors import ResultError
from corobench.benchmark.evaluation.facts import EpsilonFacts, Facts
from corobench.benchmark.evaluation.outcomes import outcome_table
from corobench.benchmark.scoring.score import score

#: Wrong, proven, broken by PGD-50, open.
N = 4


def _facts() -> Facts:
    _, labels = published_images("digits", N)
    known = EpsilonFacts.empty(N)
    known.certified["IBP"] = np.array([False, True, False, False])
    known.proven_by[1], known.margin[1] = "IBP", 0.5
    known.broken = {
        "pgd50": np.array([False, False, True, False]),
        "autoattack": np.array([False, False, True, False]),
    }
    known.broken_by[2], known.adversarial[2] = "pgd50", 0
    correct = np.array([False, True, True, True])
    predicted = np.where(correct, labels, (labels + 1) % 10).astype(np.int64)
    return Facts(predicted=predicted, correct=correct, epsilons={"1/16": known})


def _table(facts: Facts) -> pd.DataFrame:
    return outcome_table(facts, *published_images("digits", N))


def _run(facts: Facts):  # type: ignore[no-untyped-def]
    unasked = ("CROWN-IBP", "CROWN", "alpha-CROWN", "BaB")
    return make_run(dict.fromkeys(unasked, "planted")).model_copy(update={"n": N})


def test_what_was_recorded_is_counted() -> None:
    facts = _facts()
    table = _table(facts)
    assert table["pgd50"].tolist() == [False, True, False, True]
    found = score(table, _run(facts)).epsilons["1/16"]
    assert (found.pgd50, found.autoattack, found.certified_by["CROWN"]) == (2, 2, None)


@pytest.mark.parametrize("attack", ["pgd50", "autoattack"])
def test_an_attack_that_was_not_recorded_leaves_nobody_right(attack: str) -> None:
    facts = _facts()
    del facts.epsilons["1/16"].broken[attack]
    table = _table(facts)
    assert table[attack].isna().tolist() == [False, True, True, True]
    assert not table[attack].iloc[0]
    with pytest.raises(ResultError, match="has no answer on"):
        score(table, _run(facts))


@pytest.mark.parametrize("attack", ["pgd50", "autoattack"])
def test_an_attack_without_an_answer_is_missing_also_where_the_other_one_broke(attack: str) -> None:
    """The reason of the later one stands in `failed`; both are without an answer."""
    facts = _facts()
    known = facts.epsilons["1/16"]
    known.broken[attack] = np.zeros(N, dtype=bool)
    known.broken_by[2] = "apgd-ce" if attack == "pgd50" else "pgd50"
    known.unanswered[attack] = np.array([False, False, True, True])
    known.failed[3] = "another attack: planted"
    table = _table(facts)
    assert table[attack].isna().tolist() == [False, False, True, True]
    assert table["outcome"].tolist() == ["misclassified", "certified", "attacked", "error"]
    found = score(table, _run(facts)).epsilons["1/16"]
    assert getattr(found, attack) == 1
