"""The static leaderboard, rendered from result files alone; imports no torch.

The package itself can be called, so that ``corobench.leaderboard("cifar10", "8/255")`` is the
function of `corobench.leaderboard.frames`, whatever was imported before.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fractions import Fraction
    from pathlib import Path

    import pandas as pd


class _Leaderboard(ModuleType):
    """This package, and the function of its name."""

    def __call__(
        self,
        track: str,
        epsilon: str | Fraction | None = None,
        *,
        n: int | None = None,
        results: str | Path | None = None,
    ) -> pd.DataFrame:
        """See `corobench.leaderboard.frames.leaderboard`."""
        from corobench.leaderboard.frames import leaderboard

        return leaderboard(track, epsilon, n=n, results=results)


sys.modules[__name__].__class__ = _Leaderboard
