"""Statistics against closed forms and statsmodels; by simulation in the file beside it."""

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from corobench.benchmark.scoring.statistics import (
    Standing,
    clopper_pearson,
    holm,
    mcnemar_exact,
    rank_groups,
    retention,
    wilson,
)


def test_wilson_by_its_formula() -> None:
    z, p, n = 1.959963984540054, 0.8, 50
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert wilson(40, 50) == pytest.approx((centre - half, centre + half))


def test_wilson_never_claims_certainty() -> None:
    assert wilson(0, 10).high > 0.2
    assert wilson(10, 10).low < 0.8


def test_wilson_refuses_more_successes_than_trials() -> None:
    with pytest.raises(ValueError, match="0 <= successes <= n"):
        wilson(11, 10)


def test_mcnemar_counts_only_discordant_pairs() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(1, 9) == pytest.approx(2 * 11 / 1024)
    assert mcnemar_exact(9, 1) == mcnemar_exact(1, 9)


def test_holm_by_hand_and_its_order() -> None:
    """R's p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") gives 0.03, 0.06, 0.06, 0.02."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_the_same_as_statsmodels() -> None:
    random = np.random.default_rng(0)
    for n in (1, 10, 500, 10_000):
        k = int(random.integers(0, n + 1))
        for confidence in (0.9, 0.95):
            stated = {"nobs": n, "alpha": 1 - confidence}
            exact, score = (proportion_confint(k, method=m, **stated) for m in ("beta", "wilson"))
            assert clopper_pearson(k, n, confidence) == pytest.approx(exact)
            assert wilson(k, n, confidence) == pytest.approx(score)
    for first, second in random.integers(0, 60, size=(20, 2)).tolist():
        reference = mcnemar([[100, first], [second, 20]], exact=True).pvalue
        assert mcnemar_exact(first, second) == pytest.approx(reference)
    p_values = random.random(30) ** 3
    assert holm(p_values.tolist()) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_clopper_pearson_by_its_closed_form_at_the_ends() -> None:
    assert clopper_pearson(0, 50) == pytest.approx((0, 1 - 0.025 ** (1 / 50)))
    assert clopper_pearson(50, 50) == pytest.approx((0.025 ** (1 / 50), 1))
    with pytest.raises(ValueError, match="0 <= successes <= n"):
        clopper_pearson(1, 0)


def board(*counts: int, n: int = 200) -> list[np.ndarray]:
    """Nested entries: each is right on the first images only."""
    return [np.arange(n) < count for count in counts]


def test_ranks_by_hand() -> None:
    """Nested entries differ one way only: five lost images give p = 1/16, six 1/32, 30 2^-29."""
    standings = rank_groups(board(180, 150, 148))
    assert standings == [Standing(1, 1, 1), Standing(2, 3, 2), Standing(2, 3, 2)]
    assert rank_groups(board(180, 174)) == [Standing(1, 1, 1), Standing(2, 2, 2)]
    assert rank_groups(board(180, 175)) == [Standing(1, 2, 1), Standing(1, 2, 1)]


def test_more_entries_cost_certainty() -> None:
    """Six lost images tell two entries apart, but not among ten: the board bears one alpha."""
    many = board(180, *([174] * 9))
    assert {one.group for one in rank_groups(many)} == {1}


def test_groups_are_cut_where_a_member_is_told_apart() -> None:
    """170 and 160 are told apart, 165 from neither: it stays with the first group."""
    assert rank_groups(board(170, 165, 160)) == [
        Standing(1, 2, 1),
        Standing(1, 3, 1),
        Standing(2, 3, 2),
    ]


def test_no_member_of_a_group_is_told_apart_from_another() -> None:
    random = np.random.default_rng(0)
    rights = sorted(
        (random.random(300) < p for p in np.linspace(0.9, 0.5, 12)), key=lambda r: -r.sum()
    )
    standings = rank_groups(rights)
    groups = [one.group for one in standings]
    assert groups == sorted(groups)
    assert 1 < max(groups) < 12
    for place, one in enumerate(standings, start=1):
        assert one.best <= place <= one.worst
        members = [
            index for index, other in enumerate(standings, start=1) if other.group == one.group
        ]
        assert one.best <= members[0], "its own group is not better"
        assert one.worst >= members[-1], "its own group is not worse"


def test_one_entry_and_none() -> None:
    assert rank_groups(board(100)) == [Standing(1, 1, 1)]
    assert rank_groups([]) == []


@pytest.mark.parametrize(
    ("right", "alpha", "what"),
    [
        (board(100, 120), 0.05, "best first"),
        ([np.ones(3), np.ones(4)], 0.05, "the same n"),
        ([np.ones((2, 2))], 0.05, "bool array"),
        ([np.ones(0), np.ones(0)], 0.05, "n >= 1"),
        (board(100), 0.0, "alpha"),
    ],
)
def test_ranks_of_what_cannot_be_compared(right: list, alpha: float, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        rank_groups(right, alpha)


def test_retention_is_seeded_and_paired() -> None:
    random = np.random.default_rng(0)
    parent = random.random(300) < 0.8
    child = parent & (random.random(300) < 0.95)
    assert retention(child, parent) == retention(child, parent)
    paired, unpaired = retention(child, parent), retention(random.permutation(child), parent)
    assert paired is not None
    assert unpaired is not None
    assert paired.high - paired.low < (unpaired.high - unpaired.low) / 2


def test_retention_without_a_difference_is_no_certainty() -> None:
    """None of 300 images differs: up to 1 - 0.025^(1/300) of them could, of the parent's 240."""
    same = np.arange(300) < 240
    kept = retention(same, same)
    assert kept is not None
    assert kept.high - 1 == pytest.approx((1 - 0.025 ** (1 / 300)) * 300 / 240)
    assert 1 - kept.low == pytest.approx(kept.high - 1)


def test_no_parent_image_no_ratio() -> None:
    assert retention(np.ones(5, dtype=bool), np.zeros(5, dtype=bool)) is None
    images = np.arange(50)
    assert retention(images < 5, images < 9) is None, "of so few a ratio says nothing"
    assert retention(images < 5, images < 10) is not None
    with pytest.raises(ValueError, match="two bool arrays"):
        retention(np.ones(5, dtype=bool), np.ones(4, dtype=bool))
