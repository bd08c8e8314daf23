"""No canary gets a certificate from an evaluation, whatever engine certifies.

The image of each canary is broken inside the ball, so that a certificate for it is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from canaries import MAKERS, Canary, Maker, write
from canaries.canary import first_digit, with_pixels
from canaries.parts import ZEROS, chain, linear, logits
from numpy.typing import NDArray
from reissue import unchecked
from torch import nn

import corobench.benchmark.evaluation.evaluate
from corobench.benchmark.attacks.autoattack import AutoAttackStandard
from corobench.benchmark.data import Dataset, load_test
from corobench.benchmark.errors import ContractError
from corobench.benchmark.evaluation.settings import Settings
from corobench.benchmark.tracks import Protocol


class Weak(Settings):
    """All certifiers, attacks of a few steps, and no audit, which would hide a certificate."""

    @property
    def protocol(self) -> Protocol:
        return replace(Protocol(), pgd_steps=2, pgd_restarts=1, square_queries=10, audit_images=0)


@pytest.fixture(scope="module", autouse=True)
def _short_attacks() -> Iterator[None]:
    build = AutoAttackStandard.build

    def short(self: AutoAttackStandard, *args: object) -> Any:
        suite = build(self, *args)  # type: ignore[arg-type]
        for attack in (suite.apgd, suite.apgd_targeted, suite.fab):
            attack.n_iter = 2
        suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = 1
        return suite

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoAttackStandard, "build", short)
        yield


def _fields(dataset: Dataset) -> dict[str, Any]:
    return {one.name: getattr(dataset, one.name) for one in fields(dataset)}


class _Known(Dataset):
    """A test set of one image, whose values need not be those of a picture."""

    def take_from(self, images: NDArray[np.float32]) -> None:
        self.__dict__["images"] = images

    def take(self, indices: Any) -> NDArray[np.float32]:
        return self.images[np.asarray(indices, dtype=np.int64)]


def _outcomes(canary: Canary, folder: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The outcome table of the canary's image at its epsilon."""
    image = (canary.image.numpy(), np.array([canary.label]), np.array([0]))
    known = _Known(**{**_fields(load_test("digits")), "labels": image[1]})
    known.take_from(image[0])
    monkeypatch.setattr(corobench.benchmark.evaluation.evaluate, "load_test", lambda *args: known)
    monkeypatch.setattr(corobench.benchmark.evaluation.evaluate, "subset", lambda dataset, n: image)
    settings = Weak(n=1, epsilons=(str(canary.epsilon),), out=folder / "results")
    with unchecked():  # the image is none of the published ones
        found = corobench.benchmark.evaluation.evaluate.evaluate(write(canary, folder), settings)
    path = found.path
    return pd.read_parquet(path.with_name(f"{path.stem}.outcomes.parquet"))


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_canary_is_not_certified(
    maker: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = maker()
    try:
        table = _outcomes(canary, tmp_path, monkeypatch)
    except ContractError:
        return  # refused outright: its logits are not those of the runtime
    assert table.outcome.tolist() != ["certified"], table.decided_by.tolist()
    assert table.outcome.tolist() != ["misclassified"]


def test_a_network_without_a_trigger_is_certified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the same shape with nothing hidden, which an engine must not refuse."""
    image, label = first_digit()
    pixel = {ZEROS[0]: 64.0}
    network = chain(
        nn.Flatten(),
        linear(64, [(pixel, 4.0), (pixel, 0.0)]),
        linear(2, [({0: 1.0}, -4.0), ({1: 1.0}, 0.0)]),
        linear(2, [({0: 1.0, 1: -1.0}, -0.25)]),
        linear(1, logits(label, 5.0, {0: -100.0})),
    )
    broken = with_pixels(image, {})
    harmless = Canary("harmless", network, image, label, Fraction(1, 16), broken)
    table = _outcomes(harmless, tmp_path, monkeypatch)
    assert table.outcome.tolist() == ["certified"]
