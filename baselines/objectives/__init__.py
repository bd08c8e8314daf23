"""Training objectives, one file each. Adding one is its file, its import and one line here."""

from __future__ import annotations

from corobench.baselines.objectives.ad_cert import AdCert
from corobench.baselines.objectives.base import AdversarialObjective, Moment, Objective
from corobench.baselines.objectives.crown_ibp import CrownIbp
from corobench.baselines.objectives.fast_at import FastAt
from corobench.baselines.objectives.feature_cert import FeatureCert
from corobench.baselines.objectives.ibp import Ibp
from corobench.baselines.objectives.mixtrain import MixTrain
from corobench.baselines.objectives.mtl_ibp import MtlIbp
from corobench.baselines.objectives.n_fgsm import NFgsm
from corobench.baselines.objectives.natural import Natural
from corobench.baselines.objectives.pgd_at import PgdAt
from corobench.baselines.objectives.rslad import Rslad
from corobench.baselines.objectives.sabr import Sabr
from corobench.baselines.objectives.trades import Trades

__all__ = ["OBJECTIVES", "AdversarialObjective", "Moment", "Objective"]

#: Name in a recipe -> objective.
OBJECTIVES: dict[str, type[Objective]] = {
    cls.name: cls
    for cls in (
        AdCert,
        CrownIbp,
        FastAt,
        FeatureCert,
        Ibp,
        MixTrain,
        MtlIbp,
        NFgsm,
        Natural,
        PgdAt,
        Rslad,
        Sabr,
        Trades,
    )
}
