"""corobench scores image classifiers that must be compact and robust at once.

    import corobench
    result = corobench.evaluate(model, track="cifar10", n=100)
    result.brackets, result.to_frame(), result

What `__all__` lists is stable and documented in docs/python.md. Importing corobench imports no
torch; each function imports what it needs when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from corobench.benchmark import __version__

if TYPE_CHECKING:
    from corobench.benchmark.errors import ContractError, CorobenchError
    from corobench.benchmark.interactive.attack import attack
    from corobench.benchmark.interactive.certify import certify
    from corobench.benchmark.interactive.check import check
    from corobench.benchmark.interactive.evaluate import evaluate
    from corobench.benchmark.interactive.export import export
    from corobench.benchmark.interactive.loading import load_model, load_result
    from corobench.benchmark.interactive.measure import measure
    from corobench.benchmark.interactive.result import EvaluationInterrupted, EvaluationResult
    from corobench.leaderboard.frames import entries, leaderboard
    from corobench.packed_reader import load_packed

_PLACES = {
    "ContractError": "corobench.benchmark.errors",
    "CorobenchError": "corobench.benchmark.errors",
    "EvaluationInterrupted": "corobench.benchmark.interactive.result",
    "EvaluationResult": "corobench.benchmark.interactive.result",
    "attack": "corobench.benchmark.interactive.attack",
    "certify": "corobench.benchmark.interactive.certify",
    "check": "corobench.benchmark.interactive.check",
    "entries": "corobench.leaderboard.frames",
    "evaluate": "corobench.benchmark.interactive.evaluate",
    "export": "corobench.benchmark.interactive.export",
    "load_model": "corobench.benchmark.interactive.loading",
    "load_packed": "corobench.packed_reader",
    "load_result": "corobench.benchmark.interactive.loading",
    "measure": "corobench.benchmark.interactive.measure",
}

__all__ = [
    "ContractError",
    "CorobenchError",
    "EvaluationInterrupted",
    "EvaluationResult",
    "__version__",
    "attack",
    "certify",
    "check",
    "entries",
    "evaluate",
    "export",
    "leaderboard",
    "load_model",
    "load_packed",
    "load_result",
    "measure",
]


def __getattr__(name: str) -> Any:
    """What corobench offers, imported when it is first asked for.

    `leaderboard` is the package of that name, which can be called.
    """
    if name == "leaderboard":
        return importlib.import_module("corobench.leaderboard")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
