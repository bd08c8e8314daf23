"""Versions of what computes: a worker with other ones than the command's is refused; no torch."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from functools import cache

from corobench import benchmark
from corobench.benchmark.evaluation import engine

PACKAGES = ("torch", "numpy", "pyautoattack", "auto_LiRPA")


@cache
def versions() -> Mapping[str, str]:
    """Versions of everything that a result may depend on, as they are installed here."""
    return {
        "corobench": benchmark.__version__,
        "engine": engine.version(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """What differs, for people; empty where nothing does.

    >>> differences({"torch": "2.9", "numpy": "2"}, {"torch": "2.8", "numpy": "2"})
    'torch 2.8 instead of 2.9'
    """
    return ", ".join(
        f"{name} {found.get(name, 'none')} instead of {version}"
        for name, version in expected.items()
        if found.get(name) != version
    )
