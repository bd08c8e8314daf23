"""What JSON holds of a task's arguments -> the arguments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def settings_of(told: Mapping[str, Any]) -> Any:
    """How an evaluation is to be made, as :class:`Settings`."""
    from corobench.benchmark.evaluation.settings import Settings

    given = dict(told)
    if given["epsilons"] is not None:
        given["epsilons"] = tuple(given["epsilons"])
    for key in ("data_root", "out", "earlier"):
        given[key] = None if given[key] is None else Path(given[key])
    return Settings(**given)


def rule_of(told: Mapping[str, Any]) -> Any:
    """What a gate holds a candidate to, as :class:`Rule`."""
    from corobench.benchmark.gate.rule import Rule

    return Rule(**told)
