"""corobench scores image classifiers that must be compact and robust at once."""

from __future__ import annotations

from corobench.benchmark import __version__

__all__ = ["__version__"]
