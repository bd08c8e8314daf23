"""What the tests of the Python functions share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def _short_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten steps in the place of both attacks, for time; every other stage is the real one."""
    from corobench.benchmark.attacks.pgd import PGD

    def short(name: str) -> Callable[[object], PGD]:
        def make(self: object) -> PGD:
            attack = PGD(10, 1, 0.25)
            attack.name = name
            return attack

        return make

    where = "corobench.benchmark.evaluation.pipeline.Evaluation"
    monkeypatch.setattr(f"{where}.pgd", short("pgd50"))
    monkeypatch.setattr(f"{where}.autoattack", short("autoattack"))


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees unfinished work of another, nor the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
