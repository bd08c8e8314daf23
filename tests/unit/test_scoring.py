"""Scorecards by hand, and tables that lie."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
from leaderboard_factory import published_images
from tables import make_run, make_table

from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.result import Outcome
from corobench.benchmark.scoring import ranking
from corobench.benchmark.scoring import score as scoring


def test_counts_by_hand() -> None:
    run = make_run()
    result = scoring.score(make_table(run), run)
    score = result.epsilons["1/16"]
    assert score.counts == {
        Outcome.MISCLASSIFIED: 1,
        Outcome.ATTACKED: 2,
        Outcome.CERTIFIED: 3,
        Outcome.UNDECIDED: 2,
        Outcome.TIMEOUT: 0,
        Outcome.ERROR: 0,
    }
    assert (result.clean, score.pgd50, score.autoattack) == (7, 6, 5)
    assert score.certified_by == {
        "IBP": 1,
        "CROWN-IBP": 2,
        "CROWN": 3,
        "alpha-CROWN": 3,
        "BaB": 3,
        "cascade": 3,
    }
    assert ranking.bracket(score) == (3, 5)
    assert score.decided_by == {"CROWN": 1, "CROWN-IBP": 1, "IBP": 1, "clean": 1, "apgd-ce": 2}


def test_a_certifier_that_was_not_asked_is_null_and_not_zero() -> None:
    run = make_run(not_asked={"CROWN": "too-large: planted"})
    table = make_table(run)
    table["crown"] = pd.array([None] * len(table), dtype="boolean")
    table.loc[table["decided_by"] == "CROWN", ["alpha_crown", "bab"]] = False
    table.loc[table["decided_by"] == "CROWN", ["outcome", "decided_by"]] = ["undecided", ""]
    table.loc[table["outcome"] == "undecided", ["pgd50", "autoattack"]] = True
    score = scoring.score(table, run).epsilons["1/16"]
    assert score.certified_by["CROWN"] is None
    assert score.certified_by["cascade"] == 2


def test_error_and_timeout_are_never_proven_and_widen_the_bracket() -> None:
    run = make_run()
    table = make_table(run)
    rows = table.index[table["outcome"] == "undecided"]
    table.loc[rows, "outcome"] = ["error", "timeout"]
    table.loc[rows, "autoattack"] = pd.NA
    score = scoring.score(table, run).epsilons["1/16"]
    assert ranking.bracket(score) == (3, 5)
    assert score.autoattack == 3
    assert sum(score.counts.values()) == run.n


def _drop_a_row(table: pd.DataFrame) -> pd.DataFrame:
    return table.iloc[1:]


def _set(column: str, outcome: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        row = table.index[table["outcome"] == outcome][0]
        table.loc[row, column] = value
        return table

    return change


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (_drop_a_row, "one row for each of 8 images"),
        (_set("outcome", "undecided", "robust"), "unknown outcome"),
        (_set("outcome", "misclassified", "undecided"), "misclassified image with another"),
        (_set("outcome", "undecided", "certified"), "no certifier proved"),
        (_set("ibp", "undecided", True), "proven image that is not certified"),
        (_set("adversarial", "attacked", -1), "without an adversarial image"),
        (_set("autoattack", "undecided", False), "that an attack broke"),
        (_set("autoattack", "undecided", pd.NA), "has no answer on"),
        (_set("pgd50", "certified", pd.NA), "has no answer on"),
        (_set("autoattack", "misclassified", pd.NA), "an image without an answer of an attack"),
        (_set("pgd50", "misclassified", True), "not right and that an attack left right"),
        (_set("ibp", "misclassified", True), "proven image that is not certified"),
        (_set("adversarial", "certified", 3), "adversarial image of an image that is not attacked"),
        (_set("decided_by", "certified", ""), "certified image that no certifier decided"),
        (_set("decided_by", "attacked", "pgd50"), "whose own column says otherwise"),
        (_set("decided_by", "attacked", "clean"), "nothing decided that can break one"),
        (_set("decided_by", "undecided", "IBP"), "an undecided image"),
        (_set("decided_by", "misclassified", "IBP"), "something else decided"),
        (_set("image", "certified", 7), "the published order of digits"),
        (_set("label", "undecided", 3), "label: expected"),
        (_set("position", "undecided", 3), "position: expected 0 to 7"),
        (_set("epsilon", "undecided", "2/16"), "epsilon: expected rows 0 to 7 at 1/16"),
        (_set("predicted", "certified", 10), "predicted: expected classes from 0 to 9"),
    ],
)
def test_a_table_that_lies_is_refused(
    lie: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    run = make_run()
    with pytest.raises(ResultError, match=message):
        scoring.score(lie(make_table(run)), run)


@pytest.mark.parametrize(("num", "is_raised"), [(0, False), (1, False), (2, True)])
@pytest.mark.parametrize("said", [(), ("square-helps",)], ids=["silent", "warned"])
def test_square_is_counted_over_all_images_and_not_over_those_left_open(
    num: int, is_raised: bool, said: tuple[str, ...]
) -> None:
    """One of 500 images is 0.2 %, which the library lets pass; of 20 open ones it would warn."""
    few = make_run()
    table = make_table(few)
    one = table[table["epsilon"] == "1/16"]
    right = one[one["outcome"] == "undecided"].iloc[:1]
    hit = one[one["outcome"] == "attacked"].iloc[:1].assign(decided_by="square")
    images, labels = published_images("digits", 500)
    rows = pd.concat([hit] * num + [right] * (500 - num)).assign(
        image=images, position=range(500), label=labels, predicted=labels
    )
    run = few.model_copy(
        update={"n": 500, "epsilons": ("1/16",), "flags": {"1/16": ("randomized", *said)}}
    )
    expected = ("randomized", "square-helps") if is_raised else ("randomized",)
    assert scoring.score(rows, run).epsilons["1/16"].flags == expected
