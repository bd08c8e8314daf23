"""What moved between two evaluations of the same weights under other library versions.

Two outcome tables are compared image by image and stage by stage; no torch. The second one comes
from a result file, or from evaluating a sample of the images again (`benchmark.review.replay`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.result import CERTIFIER_COLUMNS, Outcome, Result
from corobench.benchmark.scoring.scored import read_scored, require_join
from corobench.benchmark.scoring.statistics import clopper_pearson

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "corobench.drift/1"
ATTACKS = ("pgd50", "autoattack")
BOUNDS = ("IBP", "CROWN-IBP", "CROWN")


@dataclass(frozen=True)
class Stage:
    """One question that both evaluations answered.

    Attributes:
        name: "clean", a certifier, an attack, or "outcome".
        epsilon: radius, or empty for "clean".
        num_compared: images that both answered.
        lost: image indices that were right, proven or kept, and are no more.
        won: the other way round; for "clean" and "outcome" every other change.
        num_unanswered: images that only one of the two answered.
    """

    name: str
    epsilon: str
    num_compared: int
    lost: tuple[int, ...]
    won: tuple[int, ...]
    num_unanswered: int = 0

    @property
    def num_moved(self) -> int:
        """Images whose answer is another one."""
        return len(self.lost) + len(self.won)

    @property
    def rate(self) -> float:
        """Share of the compared images that moved, in [0, 1]; 0 for none compared."""
        return self.num_moved / self.num_compared if self.num_compared else 0.0

    @property
    def at_most_rate(self) -> float:
        """Upper end of the exact 95 % interval of that share."""
        return clopper_pearson(self.num_moved, self.num_compared).high if self.num_compared else 1.0


@dataclass(frozen=True)
class Drift:
    """Everything that was compared.

    Attributes:
        old: path of the first result file.
        new: path of the second one, or of the submission folder that was evaluated again.
        entry: its id.
        num_images: images compared.
        n: images of the first result.
        versions: name -> version then and now, of those that differ.
        stages: one per question.
        margin_change: epsilon -> largest change of the margin of an image that the same bound
            proved both times, in logits; None for no such image.
        logit_change: largest change of a clean logit since the report given as ``since``; None
            without one.
        logits: image index, as text -> clean logits now; empty for two result files.
        no_longer_wrong: stored adversarial images that do not hold now, one line each.
        contradictions: what one evaluation proved and the other broke, one line each.
        max_moved: percent that may move in a stage.
    """

    old: str
    new: str
    entry: str
    num_images: int
    n: int
    versions: Mapping[str, tuple[str, str]]
    stages: tuple[Stage, ...]
    margin_change: Mapping[str, float | None]
    logit_change: float | None = None
    logits: Mapping[str, list[float]] | None = None
    no_longer_wrong: tuple[str, ...] = ()
    contradictions: tuple[str, ...] = ()
    max_moved: float = 5.0

    @property
    def moved_too_much(self) -> tuple[str, ...]:
        """Why the drift is not harmless, one line each: the stated rule of the exit code."""
        reasons = [
            f"{stage.name} {stage.epsilon}".strip()
            + f": {stage.num_moved} of {stage.num_compared} images changed"
            for stage in self.stages
            if (stage.name == "clean" and stage.num_moved) or 100 * stage.rate > self.max_moved
        ]
        if self.no_longer_wrong:
            reasons.append(
                f"{len(self.no_longer_wrong)} stored adversarial images are not confirmed"
            )
        return tuple(reasons)


def compare(
    old: pd.DataFrame, new: pd.DataFrame
) -> tuple[tuple[Stage, ...], dict[str, float | None], tuple[str, ...]]:
    """Compare two outcome tables on the images that both hold.

    Returns:
        Stages, epsilon -> largest change of a margin, contradictions.
    """
    stages: list[Stage] = []
    margins: dict[str, float | None] = {}
    contradictions: list[str] = []
    both = old.merge(new, on=["image", "epsilon"], suffixes=("_old", "_new"), validate="1:1")
    for number, (epsilon, rows) in enumerate(both.groupby("epsilon", sort=False)):
        if number == 0:
            stages.append(_clean(rows))
        for name, column in (*CERTIFIER_COLUMNS.items(), *((one, one) for one in ATTACKS)):
            stages.append(_answers(rows, name, column, str(epsilon)))
        stages.append(_outcomes(rows, str(epsilon)))
        margins[str(epsilon)] = _margin_change(rows)
        contradictions += _contradictions(rows, str(epsilon))
    return tuple(stages), margins, tuple(contradictions)


def _clean(rows: pd.DataFrame) -> Stage:
    moved = rows["predicted_old"] != rows["predicted_new"]
    was_right = rows["outcome_old"] != Outcome.MISCLASSIFIED
    return Stage(
        "clean", "", len(rows), _images(rows, moved & was_right), _images(rows, moved & ~was_right)
    )


def _answers(rows: pd.DataFrame, name: str, column: str, epsilon: str) -> Stage:
    then, now = rows[f"{column}_old"], rows[f"{column}_new"]
    answered = then.notna() & now.notna()
    was, is_ = then.fillna(False).astype(bool), now.fillna(False).astype(bool)
    return Stage(
        name,
        epsilon,
        int(answered.sum()),
        _images(rows, answered & was & ~is_),
        _images(rows, answered & ~was & is_),
        int((then.notna() != now.notna()).sum()),
    )


def _outcomes(rows: pd.DataFrame, epsilon: str) -> Stage:
    moved = rows["outcome_old"] != rows["outcome_new"]
    wrong = rows["outcome_new"].isin([Outcome.MISCLASSIFIED, Outcome.ATTACKED])
    return Stage(
        "outcome", epsilon, len(rows), _images(rows, moved & wrong), _images(rows, moved & ~wrong)
    )


def _margin_change(rows: pd.DataFrame) -> float | None:
    """Over images that the same single bound decided; a search's margin depends on its group."""
    known = rows[
        rows["decided_by_old"].isin(BOUNDS)
        & (rows["decided_by_old"] == rows["decided_by_new"])
        & rows["margin_old"].notna()
        & rows["margin_new"].notna()
    ]
    change = (known["margin_new"] - known["margin_old"]).abs()
    return float(change.max()) if len(known) else None


def _contradictions(rows: pd.DataFrame, epsilon: str) -> list[str]:
    """An image in the same ball cannot be both proven and broken."""
    lines = []
    for prover, breaker in (("old", "new"), ("new", "old")):
        proven = rows[f"outcome_{prover}"] == Outcome.CERTIFIED
        broken = rows[f"outcome_{breaker}"] == Outcome.ATTACKED
        lines += [
            f"image {int(row['image'])} at {epsilon}: proven by {row[f'decided_by_{prover}']} "
            f"({prover}), broken by {row[f'decided_by_{breaker}']} ({breaker})"
            for _, row in rows[proven & broken].iterrows()
        ]
    return lines


def _images(rows: pd.DataFrame, which: Any) -> tuple[int, ...]:
    return tuple(int(image) for image in rows.loc[which, "image"])


def require_comparable(old: Result, new: Result, old_path: Path, new_path: Path) -> None:
    """Refuse results of other weights, images or radii.

    Raises:
        ResultError: names the key.
    """
    for key, then, now in (
        ("weights_sha256", old.weights_sha256, new.weights_sha256),
        ("track", old.track, new.track),
        ("data.fingerprint", old.data.fingerprint, new.data.fingerprint),
        ("epsilons", list(old.epsilons), list(new.epsilons)),
        ("seed", old.seed, new.seed),
        ("settings", old.settings, new.settings),
    ):
        if then != now:
            if isinstance(then, dict) and isinstance(now, dict):
                then, now = _only_differing(then, now)
            raise ResultError(
                f"{new_path}: {key}: expected {then!r} as in {old_path}, but found {now!r}; drift "
                "compares the same evaluation under other versions (`corobench check` compares "
                "models)"
            )


def _only_differing(
    then: Mapping[str, Any], now: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keys of two records that differ, with each record's values."""
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    old, new = ({key: one[key] for key in keys if key in one} for one in (then, now))
    return old, new


def between(old_path: Path, new_path: Path, max_moved: float) -> Drift:
    """Compare two result files on the images that both hold.

    Args:
        old_path: result file, with its outcome table beside it.
        new_path: likewise.
        max_moved: percent that may move in a stage.

    Raises:
        ResultError: unreadable, or not the same evaluation.
    """
    (old, then, _), (new, now, _) = read_scored(old_path), read_scored(new_path)
    require_comparable(old, new, old_path, new_path)
    require_join(then, now, old_path, new_path)
    stages, margins, contradictions = compare(then, now)
    return Drift(
        old=str(old_path),
        new=str(new_path),
        entry=old.entry,
        num_images=stages[0].num_compared,
        n=old.n,
        versions=changed_versions(old.versions, new.versions),
        stages=stages,
        margin_change=margins,
        contradictions=contradictions,
        max_moved=max_moved,
    )


def changed_versions(then: Mapping[str, str], now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Names whose versions differ, with both.

    >>> changed_versions({"a": "1", "b": "2"}, {"a": "1", "b": "3"})
    {'b': ('2', '3')}
    """
    pairs = {name: (then.get(name, "none"), now.get(name, "none")) for name in {*then, *now}}
    return {name: pair for name, pair in sorted(pairs.items()) if pair[0] != pair[1]}


def logit_change(since: Mapping[str, list[float]], now: Mapping[str, list[float]]) -> float | None:
    """Largest change of a logit over the images that both hold; None for none.

    >>> logit_change({"3": [1.0, 2.0], "4": [0.0, 0.0]}, {"3": [1.0, 2.5]})
    0.5
    """
    shared = sorted({*since} & {*now})
    if not shared:
        return None
    return max(float(np.max(np.abs(np.subtract(since[i], now[i])))) for i in shared)
