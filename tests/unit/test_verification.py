"""The verification of handed-in results: the chance to miss a forger, luck, and lies."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from corobench.benchmark.errors import ResultError
from corobench.benchmark.review.verification import attacks, proofs
from corobench.benchmark.review.verification.chance import (
    MIN_DRAWN,
    chance_to_miss,
    num_drawn,
    num_hidden,
)
from corobench.benchmark.review.verification.claims import Claims
from corobench.benchmark.review.verification.mismatch import Mismatch, refuse

EPSILONS = ("1/16", "2/16")


def make_claims(n: int, **columns: Any) -> Claims:
    """Claims of n correct images that are undecided everywhere, save for what `columns` says."""
    rows: dict[str, Any] = {
        "image": np.arange(n) + 1000,
        "position": np.arange(n),
        "label": 3,
        "predicted": 3,
        "outcome": "undecided",
        "decided_by": "",
        **dict.fromkeys(("ibp", "crown_ibp", "crown", "alpha_crown", "bab"), False),
        **dict.fromkeys(("pgd50", "autoattack"), True),
        **columns,
    }
    table = pd.concat([pd.DataFrame({**rows, "epsilon": epsilon}) for epsilon in EPSILONS])
    evidence: Any = SimpleNamespace(table=table.reset_index(drop=True))
    return Claims(evidence, EPSILONS, np.arange(n) + 1000)


# ------------------------------------------------------------------------------- the chance


@pytest.mark.parametrize(
    ("population", "hidden", "drawn"), [(10, 1, 3), (40, 4, 10), (400, 10, 103), (5, 5, 0)]
)
def test_the_chance_is_that_of_a_draw_without_replacement(
    population: int, hidden: int, drawn: int
) -> None:
    exact = math.comb(population - hidden, drawn) / math.comb(population, drawn)
    assert chance_to_miss(population, hidden, drawn) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("population", [1, 30, 51, 120, 400, 999, 5000])
@pytest.mark.parametrize("hidden", [1, 5, 10, 100])
@pytest.mark.parametrize("miss_rate", [0.2, 0.05, 0.001])
def test_so_many_are_drawn_as_are_needed_and_no_more(
    population: int, hidden: int, miss_rate: float
) -> None:
    drawn = num_drawn(population, hidden, miss_rate)
    lies = min(hidden, population)
    assert chance_to_miss(population, lies, drawn) <= miss_rate
    if drawn > min(MIN_DRAWN, population):
        assert chance_to_miss(population, lies, drawn - 1) > miss_rate


def test_the_draw_finds_a_forger_as_often_as_stated() -> None:
    """The lies are fixed, as a forger fixes them, and the seed is drawn afterwards."""
    n, repeats = 300, 600
    claims = make_claims(n)
    lies = np.zeros(n, dtype=bool)
    lies[:3] = True
    missed, size = 0, 0
    for seed in range(repeats):
        sample = attacks.draw(claims, seed, 0.01, 0.05)
        missed += not (sample.chosen & lies).any()
        size = int(sample.chosen.sum())
    assert (sample.population, sample.hidden) == (n, num_hidden(n, 0.01)) == (n, 3)
    expected = chance_to_miss(n, 3, size)
    assert expected <= 0.05
    assert abs(missed / repeats - expected) < 4 * math.sqrt(expected / repeats)


def test_the_draw_follows_from_the_seed_alone() -> None:
    claims = make_claims(400)
    one, same, other = (attacks.draw(claims, seed, 0.01, 0.05).chosen for seed in (7, 7, 8))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_only_what_is_said_to_stand_without_a_proof_is_attacked() -> None:
    proven = np.arange(10) < 3
    broken = np.arange(10) == 9
    claims = make_claims(
        10,
        ibp=proven,
        pgd50=~broken,
        autoattack=pd.array([True] * 8 + [None, False], dtype="boolean"),
        decided_by=np.where(np.arange(10) == 5, "contest", ""),
    )
    sample = attacks.draw(claims, 0, 1.0, 0.05)
    assert np.flatnonzero(sample.chosen).tolist() == [3, 4, 5, 6, 7, 8]
    for epsilon in EPSILONS:  # an attack without an answer is asked again, too
        assert np.flatnonzero(sample.targets["autoattack"][epsilon]).tolist() == [3, 4, 5, 6, 7, 8]


# ----------------------------------------------------------------------------- lies and luck


def _hits(n: int, rows: list[int], by: str = "apgd-t") -> attacks.Hits:
    broken = np.isin(np.arange(n), rows)
    hits = attacks.Hits()
    for attack in ("pgd50", "autoattack"):
        here = broken if attack == "autoattack" else np.zeros(n, dtype=bool)
        hits.broken[attack] = {"1/16": np.zeros(n, dtype=bool), "2/16": here}
        hits.by[attack] = {e: np.full(n, by, dtype=object) for e in EPSILONS}
    return hits


def _judge(rows: list[int], hidden: list[int], **columns: Any) -> tuple[list[Mismatch], list[str]]:
    n = 100
    claims = make_claims(n, **columns)
    sample = attacks.draw(claims, 0, 0.01, 0.05)
    hits = _hits(n, rows)
    again = {
        attack: {e: at[e] & np.isin(np.arange(n), hidden) for e in EPSILONS}
        for attack, at in hits.broken.items()
    }
    return attacks.judge(claims, sample, hits, again, np.isin(np.arange(n), rows))


def test_what_breaks_under_both_seeds_was_hidden() -> None:
    (lie,), lucky = _judge([4, 8], hidden=[8])
    assert str(lie) == (
        "autoattack at 2/16, image 1008: claimed still right, but measured broken by apgd-t"
    )
    assert lucky == ["image 1004 at 2/16: apgd-t"]


def test_luck_is_not_refused_and_much_luck_is() -> None:
    few, more = list(range(attacks.LUCKY)), list(range(40))
    lies, lucky = _judge(few, hidden=[])
    assert lies == [] and len(lucky) == len(few)
    (lie,), lucky = _judge(more, hidden=[])
    assert "are explained by chance" in str(lie) and lie.images == tuple(row + 1000 for row in more)


def test_luck_on_an_image_that_is_said_to_be_broken_counts_for_nothing() -> None:
    assert _judge(list(range(40)), hidden=[], outcome="attacked") == ([], [])


def test_what_autoattack_missed_on_broken_images_may_be_chance_on_a_few() -> None:
    few, many = list(range(attacks.LUCKY)), list(range(40))
    assert _judge(few, hidden=few, outcome="attacked") == ([], [])
    (lie,), _ = _judge(many, hidden=many, outcome="attacked")
    assert "are explained by chance" in str(lie)


def test_an_attack_that_a_contest_is_said_to_have_outdone_did_break_the_image() -> None:
    """It breaks in its old seat, so that the credit was taken from it; luck is no lie."""
    told = {"outcome": "attacked", "decided_by": "contest"}
    (lie,), _ = _judge([4, 8], hidden=[8], **told)
    assert "autoattack at 2/16, image 1008: claimed still right" in str(lie)
    assert _judge(list(range(40)), hidden=[], **told) == ([], [])


def test_every_contested_image_is_attacked_whatever_the_draw() -> None:
    n = 400
    contested = np.isin(np.arange(n), [7, 399])
    claims = make_claims(n, decided_by=np.where(contested, "contest", ""))
    for seed in range(5):
        sample = attacks.draw(claims, seed, 0.05, 0.5)
        assert sample.chosen[contested].all() and not sample.chosen.all()
        hits = _hits(n, [])
        attacks.suspect_contests(claims, sample, hits)
        for attack in ("pgd50", "autoattack"):
            assert np.array_equal(hits.broken[attack]["1/16"], contested)


# ----------------------------------------------------------------------- closing certifiers


def test_whole_groups_with_a_claimed_proof_are_asked_again() -> None:
    """Of groups of four open images; proofs at the larger radius are carried to the smaller."""
    n = 14
    cheap = np.isin(np.arange(n), [0, 5])
    broken = np.arange(n) == 1
    open_ = [row for row in range(n) if row not in (0, 1, 5)]  # 2 3 4 6 | 7 8 9 10 | 11 12 13
    closed = np.isin(np.arange(n), [0, 5, 8])
    claims = make_claims(n, ibp=cheap, pgd50=~broken, alpha_crown=closed, bab=closed)
    asked = proofs.to_ask(claims, "alpha-CROWN", 4)
    assert np.flatnonzero(asked["2/16"]).tolist() == open_[4:8] == [7, 8, 9, 10]
    assert np.flatnonzero(asked["1/16"]).tolist() == [8]
    assert not any(rows.any() for rows in proofs.to_ask(claims, "BaB", 4).values())


# --------------------------------------------------------------------------------- messages


def test_a_refusal_names_file_column_images_and_both_values() -> None:
    images = tuple(range(20))
    with pytest.raises(ResultError) as caught:
        refuse(Path("x.json"), [Mismatch("ibp", "proven", "no\x1b[2J", "2/16", images)], "hint")
    assert caught.value.message == (
        "x.json: ibp at 2/16, images 0, 1, 2, 3, 4, 5, 6, 7 and 12 more: "
        "claimed proven, but measured no\\x1b[2J\nhint"
    )
    refuse(Path("x.json"), [])
