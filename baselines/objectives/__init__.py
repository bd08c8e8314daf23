"""Training objectives, one file each. Adding one is its file, its import and one line here."""

from __future__ import annotations

from baselines.objectives.base import Moment, Objective
from baselines.objectives.crown_ibp import CrownIbp
from baselines.objectives.fast_at import FastAt
from baselines.objectives.ibp import Ibp
from baselines.objectives.mixtrain import MixTrain
from baselines.objectives.natural import Natural
from baselines.objectives.pgd_at import PgdAt
from baselines.objectives.trades import Trades

__all__ = ["OBJECTIVES", "Moment", "Objective"]

#: Name in a recipe -> objective.
OBJECTIVES: dict[str, type[Objective]] = {
    cls.name: cls
    for cls in (
        CrownIbp,
        FastAt,
        Ibp,
        MixTrain,
        Natural,
        PgdAt,
        Trades,
    )
}
