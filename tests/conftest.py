"""Shared fixtures; no test reaches a network, and none depends on the data of its machine.

Torch is imported by the fixtures that need it: many tests need none.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COROBENCH_OFFLINE", "1")
    monkeypatch.delenv("COROBENCH_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """The first 100 digits of the published order."""
    import numpy as np
    import torch

    from corobench.benchmark.data import load_test, subset

    images, labels, _ = subset(load_test("digits"), 100)
    return torch.from_numpy(images), torch.from_numpy(np.asarray(labels))


@pytest.fixture(scope="session")
def linear() -> nn.Module:
    """A linear classifier of digits, whose worst case in a ball is known exactly."""
    from models import linear_digits

    return linear_digits()
