"""The best rule for weights per layer is found among those that know magnitudes alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from corobench.leaderboard.budget_rules import GOALS, best_rules, is_magnitude_alone
from corobench.leaderboard.families import Family, find_families
from corobench.leaderboard.reproduction import compare, markdown

RESULTS = Path(__file__).parents[3] / "leaderboard" / "results"


@pytest.fixture(scope="module")
def families() -> list[Family]:
    return find_families([RESULTS])


def test_an_average_is_that_of_the_counts(families: list[Family]) -> None:
    (rule, *_) = best_rules(families)
    assert rule.times == 10 and rule.goals == GOALS[10]
    rates = []
    for name in rule.families:
        named = [one for one in families if one.name == name]
        family = max(
            (one for one in named if any(has(one, rule.average.method))),
            key=lambda one: one.parent.n,
        )
        (child,) = (one for one in family.children if one.method == rule.average.method)
        flags = child.flags["autoattack"].sum() / family.flags["autoattack"].sum()
        rates.append(flags)
    assert len(rates) >= 3
    assert rule.average.kept["autoattack"].rate == pytest.approx(np.mean(rates))


def has(family: Family, method: str) -> list[bool]:
    return [child.method == method for child in family.children]


def test_no_other_rule_in_as_many_families_keeps_more(families: list[Family]) -> None:
    (rule, *_) = best_rules(families)
    without = [
        replace(
            family,
            children=tuple(one for one in family.children if one.method != rule.average.method),
        )
        for family in families
    ]
    second = next(one for one in best_rules(without) if one.times == 10)
    assert second.average.method != rule.average.method
    assert second.average.kept["autoattack"].rate <= rule.average.kept["autoattack"].rate


def test_a_rule_needs_three_families(families: list[Family]) -> None:
    two = [one for one in families if one.name in ("fashion-mnist-adv-dense", "cifar10-mtl-dense")]
    assert len(two) >= 2
    for rule in best_rules(two):
        assert rule.average is None and rule.families == () and rule.goals == GOALS[rule.times]


def test_the_papers_method_is_told_on_the_same_families(families: list[Family]) -> None:
    (rule, *_) = best_rules(families)
    assert rule.papers is not None and rule.papers.method == "LWM 10x"
    rates = []
    for name in rule.families:
        family = max(
            (one for one in families if one.name == name and any(has(one, rule.average.method))),
            key=lambda one: one.parent.n,
        )
        (child,) = (one for one in family.children if one.method == "LWM 10x")
        rates.append(child.flags["clean"].sum() / family.flags["clean"].sum())
    assert rule.papers.kept["clean"].rate == pytest.approx(np.mean(rates))


def test_what_is_not_measured_is_not_called_missed(families: list[Family]) -> None:
    """A report over one family, of which nothing is known at twenty times."""
    one = [family for family in families if family.name == "fashion-mnist-adv-dense"]
    text = markdown(one, compare(one), [])
    assert "the goals are not measured" in text
    assert "known, **missed**" not in text and "not known, goal" not in text


def test_what_knows_the_objective_is_no_such_rule(families: list[Family]) -> None:
    """Trained scores, natural fine-tuning, distillation; masks at random, early or changing."""
    names = {
        child.method: is_magnitude_alone(child) for family in families for child in family.children
    }
    assert names["LWM 10x"] and names["LAMP 10x"] and names["LWM 10x, ERK"]
    for other in ("HYDRA 10x", "LWM 10x, natural fine-tuning", "LWM 10x, RSLAD", "random 10x"):
        assert not names[other]
    for other in ("SNIP 10x", "LWM 10x, int8", "filter L1 10x", "LWM 10x, regrown"):
        assert not names[other]
