"""Shared fixtures; no test reaches a network, and none depends on the data of its machine."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from models import linear_digits

from corobench.benchmark.data import load_test, subset


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COROBENCH_OFFLINE", "1")
    monkeypatch.delenv("COROBENCH_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(scope="session")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """The first 100 digits of the published order."""
    images, labels, _ = subset(load_test("digits"), 100)
    return torch.from_numpy(images), torch.from_numpy(np.asarray(labels))


@pytest.fixture(scope="session")
def linear() -> torch.nn.Module:
    """A linear classifier of digits, whose worst case in a ball is known exactly."""
    return linear_digits()
