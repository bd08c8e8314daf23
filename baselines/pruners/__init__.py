"""Pruners, one file each. Adding one is its file, its import and one line here."""

from __future__ import annotations

from corobench.baselines.pruners.base import PruneContext, Pruner, ScorePruner
from corobench.baselines.pruners.filter_l1 import FilterL1
from corobench.baselines.pruners.group_l2 import GroupL2
from corobench.baselines.pruners.harp import Harp
from corobench.baselines.pruners.hydra import Hydra
from corobench.baselines.pruners.lamp import Lamp
from corobench.baselines.pruners.lwm import Lwm
from corobench.baselines.pruners.lwm_global import LwmGlobal
from corobench.baselines.pruners.random import Random
from corobench.baselines.pruners.s2ap import S2ap
from corobench.baselines.pruners.snip import Snip

__all__ = ["PRUNERS", "PruneContext", "Pruner", "ScorePruner"]

#: Name in a recipe -> pruner.
PRUNERS: dict[str, type[Pruner]] = {
    cls.name: cls
    for cls in (
        FilterL1,
        GroupL2,
        Harp,
        Hydra,
        Lamp,
        Lwm,
        LwmGlobal,
        Random,
        S2ap,
        Snip,
    )
}
