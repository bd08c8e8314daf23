"""The Pareto front with intervals, against a brute-force reading of its definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corobench.leaderboard.pareto import Known, beaten, front

RATES = st.integers(0, 20).map(lambda step: step / 20)
ENTRIES = st.lists(
    st.tuples(st.integers(1, 6), RATES, RATES).map(
        lambda item: Known(item[0], min(item[1:]), max(item[1:]))
    ),
    min_size=1,
    max_size=8,
)


@given(ENTRIES)
def test_beaten_is_what_its_definition_says(entries: list[Known]) -> None:
    expected = [
        any(other.size <= entry.size and other.low > entry.high for other in entries)
        for entry in entries
    ]
    assert beaten(entries) == expected


@given(ENTRIES)
def test_the_band_is_the_best_known_at_each_size(entries: list[Known]) -> None:
    steps = front(entries)
    for size in range(min(entry.size for entry in entries), 7):
        here = [step for step in steps if step.size <= size][-1]
        reached = [entry for entry in entries if entry.size <= size]
        assert here.low == max(entry.low for entry in reached)
        assert here.high == max(entry.high for entry in reached)
