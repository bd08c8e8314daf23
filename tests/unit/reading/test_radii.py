"""Rows of one image at several radii: what one says, the others must allow, for every reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.encoding import encode_outcomes
from corobench.benchmark.records.reading.table_file import read_columns, read_outcomes
from corobench.benchmark.records.result import Run
from corobench.benchmark.scoring.score import score

RESULTS = Path(__file__).parents[3] / "leaderboard" / "results"
TABLE = RESULTS / "1.1" / "digits" / "digits-ibp-random-10x.outcomes.parquet"
SMALL, LARGE = "1/16", "2/16"
Forge = Callable[[pd.DataFrame], None]


@pytest.fixture(scope="module")
def published() -> tuple[pd.DataFrame, Run]:
    return read_outcomes(TABLE)


def at(table: pd.DataFrame, epsilon: str, **columns: object) -> pd.Index:
    """Rows at a radius in which columns hold these values."""
    chosen = table["epsilon"] == epsilon
    for name, value in columns.items():
        chosen &= (table[name] == value).fillna(False).astype(bool)
    assert chosen.any(), columns
    return table.index[chosen]


def beside(table: pd.DataFrame, rows: pd.Index, epsilon: str) -> pd.Index:
    """The rows of the same images at another radius."""
    images = set(table.loc[rows, "image"])
    return table.index[table["image"].isin(images) & (table["epsilon"] == epsilon)]


def carried(epsilon: str, source: str, **columns: object) -> Forge:
    def forge(table: pd.DataFrame) -> None:
        table.loc[at(table, epsilon, **columns)[:1], "carried_from"] = source

    return forge


def carried_without_a_proof_there(table: pd.DataFrame) -> None:
    rows = at(table, SMALL, outcome="certified", carried_from="")
    unproven = [row for row in rows if not _is_proven(table, row)]
    table.loc[unproven[:1], "carried_from"] = LARGE


def _is_proven(table: pd.DataFrame, row: int) -> bool:
    (other,) = beside(table, pd.Index([row]), LARGE)
    return bool(table.loc[other, table.loc[row, "decided_by"].lower().replace("-", "_")] is True)


def carried_by_another_attack(table: pd.DataFrame) -> None:
    rows = at(table, LARGE, outcome="attacked", carried_from=SMALL)[:1]
    table.loc[rows, "decided_by"] = "contest"


def carried_with_another_image(table: pd.DataFrame) -> None:
    rows = at(table, LARGE, outcome="attacked", carried_from=SMALL)[:1]
    others = at(table, LARGE, outcome="attacked", carried_from="")
    table.loc[rows, "adversarial"] = table.loc[others[0], "adversarial"]


def broken_in_the_small_ball_only(table: pd.DataFrame) -> None:
    rows = beside(table, at(table, SMALL, outcome="attacked")[:1], LARGE)
    table.loc[rows, ["outcome", "decided_by", "carried_from"]] = ["undecided", "", ""]
    table.loc[rows, "adversarial"] = -1
    table.loc[rows, ["pgd50", "autoattack"]] = True


def right_under_an_attack_that_broke_it_before(table: pd.DataFrame) -> None:
    rows = at(table, LARGE, outcome="attacked", decided_by="pgd50", carried_from=SMALL)[:1]
    table.loc[rows, "autoattack"] = True
    table.loc[beside(table, rows, SMALL), "autoattack"] = False


def proven_in_the_large_ball_only(table: pd.DataFrame) -> None:
    rows = at(table, SMALL, crown=True, ibp=True)
    rows = [row for row in rows if table.loc[beside(table, pd.Index([row]), LARGE), "crown"].all()]
    table.loc[rows[:1], "crown"] = False


def another_prover(table: pd.DataFrame) -> None:
    table.loc[at(table, SMALL, ibp=True, crown=True, decided_by="IBP")[:1], "decided_by"] = "CROWN"


def a_denied_proof(table: pd.DataFrame) -> None:
    table.loc[at(table, SMALL, ibp=True, bab=True)[:1], "bab"] = False


def every_row(column: str, value: object, **columns: object) -> Forge:
    def forge(table: pd.DataFrame) -> None:
        table.loc[at(table, SMALL, **columns)[:1], column] = value

    return forge


def a_stored_image_left_out(table: pd.DataFrame) -> None:
    first = table["adversarial"] == 0
    table.loc[first, "adversarial"] = int(table["adversarial"].max())


FORGED: dict[str, tuple[Forge, str]] = {
    "from itself": (
        carried(SMALL, SMALL, outcome="certified"),
        f"carried_from at {SMALL}: expected a radius with such a decision, or nothing",
    ),
    "a proof from a smaller radius": (
        carried(LARGE, SMALL, outcome="certified"),
        f"carried_from at {LARGE}",
    ),
    "a break from a larger radius": (
        carried(SMALL, LARGE, outcome="attacked"),
        f"carried_from at {SMALL}",
    ),
    "of an undecided image": (
        carried(SMALL, LARGE, outcome="misclassified"),
        f"carried_from at {SMALL}",
    ),
    "no proof there": (carried_without_a_proof_there, f"carried_from at {SMALL}"),
    "another attack": (carried_by_another_attack, f"carried_from at {LARGE}"),
    "another image": (carried_with_another_image, f"carried_from at {LARGE}"),
    "broken in the small ball only": (
        broken_in_the_small_ball_only,
        f"outcome at {LARGE}: expected attacked as at {SMALL}",
    ),
    "right under a larger attack": (
        right_under_an_attack_that_broke_it_before,
        f"autoattack at {LARGE}: expected broken as at {SMALL}",
    ),
    "proven in the large ball only": (
        proven_in_the_large_ball_only,
        f"crown at {SMALL}: expected proven as at {LARGE}",
    ),
    "another prover": (another_prover, "another certifier decided"),
    "a denied proof": (a_denied_proof, "whose column holds cheaper proofs"),
    "a time below 0": (every_row("seconds", -1.0), "no time of at least 0"),
    "a time without end": (every_row("seconds", float("inf")), "no time of at least 0"),
    "a margin without end": (
        every_row("margin", float("inf"), outcome="certified"),
        "a margin that is not finite",
    ),
    "a margin of a wrong image": (
        every_row("margin", 1.0, outcome="misclassified"),
        "a margin of an image that is not right",
    ),
    "a proof without a margin": (
        every_row("margin", -0.5, outcome="certified", carried_from=""),
        "without a margin of at least 0",
    ),
    "a place of no image": (
        every_row("adversarial", -2, outcome="misclassified"),
        "a row below -1",
    ),
    "an image left out": (a_stored_image_left_out, "adversarial: expected a row that names image"),
}


@pytest.mark.parametrize("how", FORGED)
def test_a_table_that_cannot_be_true_is_refused(
    how: str, published: tuple[pd.DataFrame, Run], tmp_path: Path
) -> None:
    """By the reader of files, and where a table is scored that never was one."""
    forge, message = FORGED[how]
    table, run = published[0].copy(), published[1]
    forge(table)
    assert not table.equals(published[0])
    path = tmp_path / "forged.outcomes.parquet"
    path.write_bytes(encode_outcomes(table, run))
    for read in (read_outcomes, read_columns):
        with pytest.raises(ResultError, match=r"forged\.outcomes\.parquet") as caught:
            read(path)
        assert message in caught.value.message
    with pytest.raises(ResultError) as caught:
        score(table, run)
    assert message in caught.value.message


def test_contradictions_of_the_audit_are_the_rows_that_are_proven_and_broken(
    published: tuple[pd.DataFrame, Run], tmp_path: Path
) -> None:
    table, run = published
    audit = run.audit.model_copy(update={"contradictions": ("image 1 at 1/16: proven by IBP",)})
    path = tmp_path / "forged.outcomes.parquet"
    path.write_bytes(encode_outcomes(table, run.model_copy(update={"audit": audit})))
    with pytest.raises(ResultError, match=r"audit\.contradictions: expected the 0 rows"):
        read_outcomes(path)


def test_radii_stand_in_order(published: tuple[pd.DataFrame, Run], tmp_path: Path) -> None:
    """A run with its radii the other way round would turn every rule round."""
    table, run = published
    turned = pd.concat([table[table["epsilon"] == one] for one in (LARGE, SMALL)])
    path = tmp_path / "forged.outcomes.parquet"
    run = run.model_copy(update={"epsilons": (LARGE, SMALL)})
    path.write_bytes(encode_outcomes(turned.reset_index(drop=True), run))
    with pytest.raises(ResultError, match="expected ascending radii"):
        read_outcomes(path)
