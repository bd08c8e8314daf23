"""What rounding explains: shares of the logits' spread, and whole steps of quantised networks."""

from __future__ import annotations

import pytest
import torch

from corobench.benchmark.submission.contract import find_broken_clauses
from corobench.benchmark.submission.graph.layers import Quantise
from corobench.benchmark.submission.rounding import (
    RELATIVE_TOLERANCE,
    difference,
    in_quanta,
    num_far,
    quantum,
    rounding,
)


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(200, 10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**20])
def test_tolerances_scale_with_the_logits(logits, scale):
    assert torch.equal(rounding(logits * scale), rounding(logits) * scale)


def test_constants_per_class_buy_little(logits):
    """Only the steps of float32 at the size of the constant."""
    constant = torch.zeros(10)
    constant[3] = -1e4
    most = RELATIVE_TOLERANCE * 20 + 4 * 2.0**-23 * 1.01e4
    assert rounding(logits + constant).max() < most


def test_a_flat_image_has_the_tolerance_of_most(logits):
    logits[5] = 0.25
    assert rounding(logits)[5] >= 0.9 * rounding(logits).median()


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_a_difference_is_named_with_its_image(logits, share):
    other = logits.clone()
    other[17, 2] += share * float(rounding(logits)[17])
    what, where = difference(other, logits)
    assert bool(what) == (share > 1) and where.nonzero().flatten().tolist() == (
        [17] if share > 1 else []
    )


@pytest.mark.parametrize(("quanta", "is_fine"), [(1.0, True), (3.9, True), (4.2, False)])
@pytest.mark.parametrize("is_rounded", [True, False])
def test_logits_of_quantised_networks_may_move_by_a_few_quanta(logits, quanta, is_fine, is_rounded):
    ranges = logits.amax(dim=1) - logits.amin(dim=1)
    step = float(ranges.median()) / 100 if is_rounded else 0.0
    size = quantum(logits, step)
    assert size == pytest.approx(float(ranges.median()) / (100 if is_rounded else 255))
    other = logits.clone()
    other[::2, 1] += quanta * size
    assert (difference(other, logits, step)[0] == "") == is_fine
    assert difference(other, logits)[0] != ""
    assert f"{quanta:.2g} quanta of" in in_quanta(other, logits, step)


@pytest.mark.parametrize(
    ("num_images", "quanta", "is_fine"),
    [(10, 15.0, True), (11, 15.0, False), (1, 17.0, False), (11, 3.9, True)],
)
def test_a_few_images_of_quantised_networks_may_move_further(logits, num_images, quanta, is_fine):
    """Of 200 images ten by up to 16 quanta, where no other class is clear."""
    step = float((logits.amax(dim=1) - logits.amin(dim=1)).median()) / 255
    lowest = logits.argmin(dim=1)
    other = logits.clone()
    other[range(num_images), lowest[:num_images]] -= quanta * quantum(logits, step)
    assert (difference(other, logits, step)[0] == "") == is_fine
    assert num_far(200) == 10 and [num_far(n) for n in (1, 4, 8, 59, 60)] == [0, 1, 2, 2, 3]


def test_a_quantised_network_must_not_have_another_class():
    logits = torch.tensor([[0.0, 1.0, 10.0], [10.0, 0.0, 1.0]])
    other = logits.clone()
    other[0, 2] = 9.5
    assert difference(other, logits, 0.5)[0] == ""
    other[0] = torch.tensor([0.0, 10.0, 1.0])
    assert difference(other, logits, 0.5)[0] != ""
    assert "1 have another class" in in_quanta(other, logits, 0.5)


@pytest.mark.parametrize("is_quantised", [True, False])
def test_the_contract_knows_networks_that_round(is_quantised):
    torch.manual_seed(0)
    layers = [torch.nn.Flatten(), torch.nn.Linear(64, 10)]
    if is_quantised:
        layers.append(Quantise(torch.tensor(0.01), torch.tensor(128.0), 0, 255))
    model = torch.nn.Sequential(*layers).eval()
    images = torch.rand(150, 1, 8, 8)

    def runtime(x):
        is_other = (x == images[99]).flatten(1).all(dim=1)
        return model(x) + 0.02 * is_other[:, None] * torch.eye(10)[0]

    faults = find_broken_clauses(model, images, 10, runtime)
    assert [fault.split(":")[0] for fault in faults] == (
        [] if is_quantised else ["contract clause same-as-runtime"]
    )
