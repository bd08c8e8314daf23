"""Budgets per layer: totals met to the weight, shares by hand, scores as a plain loop has them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import ValidationError
from torch import Tensor, nn

from corobench.baselines.masks import Masks, prunable_weights
from corobench.baselines.pruners import PRUNERS, PruneContext
from corobench.baselines.pruners.distributions import erdos_renyi_kernel
from corobench.baselines.pruners.hydra import Hydra
from corobench.baselines.pruners.lamp import Lamp, lamp
from corobench.baselines.pruners.lwm import Lwm
from corobench.baselines.pruners.random import Random
from corobench.baselines.pruners.s2ap import S2ap, perturbed
from corobench.benchmark.submission.architectures import build

RATIOS = [0.5, 0.1, 0.05, 0.013]


def _model() -> nn.Module:
    torch.manual_seed(0)
    return build("cnn-small", (1, 8, 8), 10, {})


def _context(model: nn.Module, previous: Masks | None = None) -> PruneContext:
    x = torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(32) % 10

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(x.split(16), labels.split(16), strict=True)

    return PruneContext(
        previous=previous or Masks(),
        generator=torch.Generator().manual_seed(2),
        loss=lambda images, classes: F.cross_entropy(model(images), classes),
        batches=batches,
    )


def _total(model: nn.Module) -> int:
    return sum(weight.numel() for weight in prunable_weights(model).values())


@pytest.mark.parametrize("keep_ratio", RATIOS)
@pytest.mark.parametrize(
    "pruner",
    [
        Lwm(distribution="erk"),
        Lwm(distribution="erk", exempt=("first",)),
        Random(distribution="erk"),
        Hydra(epochs=1, distribution="erk"),
        Lamp(),
    ],
    ids=lambda pruner: f"{pruner.name} {pruner.exempt}",
)
def test_the_total_is_met_to_the_weight(pruner: Lwm, keep_ratio: float) -> None:
    model = _model()
    masks = pruner.masks(model, keep_ratio, _context(model))
    removed = math.floor((1 - Fraction(repr(keep_ratio))) * _total(model))
    assert sum(int((~kept).sum()) for kept in masks.values()) == removed


@pytest.mark.parametrize("num_kept", [1, 7, 100, 1000, 2999, 3000, 5000])
def test_layers_keep_in_proportion_to_the_sum_of_their_sides(num_kept: int) -> None:
    shapes = {"a": (8, 1, 3, 3), "b": (16, 8, 3, 3), "c": (40, 32), "d": (10, 40)}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    kept = erdos_renyi_kernel(shapes, sizes, num_kept)
    assert sum(kept.values()) == min(num_kept, sum(sizes.values()))
    full = {name for name, count in kept.items() if count == sizes[name]}
    factors = {name: kept[name] / sum(shapes[name]) for name in shapes}
    for name in shapes:
        assert 0 <= kept[name] <= sizes[name]
        for other in set(shapes) - full:
            # Equal factors up to the one weight that rounding gives or takes.
            least = factors[name] - 1 / sum(shapes[name])
            assert name in full or least <= factors[other] + 1 / sum(shapes[other])
    # A full layer is one whose proportional share would be more than it has.
    if full and full != set(shapes):
        best = max(factors[name] for name in set(shapes) - full)
        assert all(factors[name] <= best + 1 for name in full)


def test_a_full_layer_gives_its_surplus_to_the_others() -> None:
    """Sides 4, 20 and 20 of 44 kept: the first could keep 4 but has 2, and the rest is halved."""
    shapes = {"a": (2, 2), "b": (10, 10), "c": (10, 10)}
    found = erdos_renyi_kernel(shapes, {"a": 2, "b": 100, "c": 100}, 44)
    assert found == {"a": 2, "b": 21, "c": 21}


def test_within_a_layer_the_largest_magnitudes_stay_under_erk() -> None:
    model = _model()
    masks = Lwm(distribution="erk").masks(model, 0.1, _context(model))
    shares = []
    for name, weight in prunable_weights(model).items():
        magnitude, kept = weight.detach().abs(), masks[name]
        if not kept.all():
            assert magnitude[kept].min() >= magnitude[~kept].max()
        shares.append(kept.float().mean().item())
    # The narrow first and last layers keep far more than the wide ones between them.
    assert min(shares[0], shares[-1]) > 3 * min(shares)


@pytest.mark.parametrize(
    "pruner",
    [Lwm(distribution="erk"), Hydra(epochs=1, distribution="erk"), Lamp(), S2ap(epochs=1)],
    ids=lambda pruner: pruner.name,
)
def test_later_rounds_bring_nothing_back(pruner: Lwm) -> None:
    model = _model()
    masks = Masks()
    for keep_ratio in (0.5, 0.4999, 0.1):
        found = pruner.masks(model, keep_ratio, _context(model, previous=masks))
        assert not any((found[name] & ~kept).any() for name, kept in masks.items())
        found.apply(model)
        masks = found
    total = sum(int(kept.sum()) for kept in masks.values())
    assert total == pytest.approx(0.1 * _total(model), abs=4)


def test_lamp_is_what_a_plain_loop_gives() -> None:
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(3))
    weight[0, :3] = 0.0
    flat = [float(value) ** 2 for value in weight.flatten().double()]
    found = lamp(weight).flatten().tolist()
    for value, score in zip(flat, found, strict=True):
        if value > 0.0:
            assert score == pytest.approx(value / sum(other for other in flat if other >= value))
        else:
            assert score == 0.0
    assert max(found) == 1.0
    assert not lamp(torch.zeros(3)).any()


def test_lamp_keeps_a_weight_in_every_layer_and_the_largest_ones() -> None:
    model = _model()
    with torch.no_grad():
        prunable_weights(model)["0.weight"].mul_(1e-4)
    masks = Lamp().masks(model, 0.001, _context(model))
    for name, weight in prunable_weights(model).items():
        magnitude, kept = weight.detach().abs(), masks[name]
        assert kept.any() and magnitude[kept].min() >= magnitude[~kept].max()


def test_lamp_does_not_see_the_scale_of_a_layer() -> None:
    model = _model()
    first = Lamp().masks(model, 0.2, _context(model))
    with torch.no_grad():
        prunable_weights(model)["0.weight"].mul_(64.0)
    second = Lamp().masks(model, 0.2, _context(model))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", ["filter-l1", "lamp", "lwm-global", "snip"])
def test_a_pruner_that_decides_itself_takes_no_distribution(name: str) -> None:
    with pytest.raises(ValidationError, match="decides itself how much each layer keeps"):
        PRUNERS[name].model_validate({"distribution": "erk"})


def test_s2ap_without_a_perturbation_is_hydra() -> None:
    model = _model()
    same = S2ap(epochs=2, gamma=0.0).masks(model, 0.2, _context(model))
    hydra = Hydra(epochs=2).masks(model, 0.2, _context(model))
    assert all(torch.equal(same[name], hydra[name]) for name in hydra)
    other = S2ap(epochs=2, gamma=5.0).masks(model, 0.2, _context(model))
    assert any(not torch.equal(other[name], hydra[name]) for name in hydra)


def test_perturbed_scores_go_uphill_by_gamma_of_their_norm() -> None:
    generator = torch.Generator().manual_seed(4)
    scores = {"a": torch.randn(4, 3, generator=generator), "b": torch.ones(2)}
    gradients = {"a": torch.randn(4, 3, generator=generator), "b": torch.zeros(2)}
    moved = perturbed(scores, gradients, 0.1)
    step = moved["a"] - scores["a"]
    assert step.norm().item() == pytest.approx(0.1 * scores["a"].norm().item(), rel=1e-4)
    assert F.cosine_similarity(step.flatten(), gradients["a"].flatten(), dim=0) > 0.9999
    assert torch.equal(moved["b"], scores["b"])


def test_s2ap_takes_the_gradient_at_the_worst_scores() -> None:
    model = _model()
    seen: list[Tensor] = []
    context = _context(model)
    first = prunable_weights(model)["0.weight"]

    def loss(images: Tensor, classes: Tensor) -> Tensor:
        seen.append((first != 0).clone())
        return F.cross_entropy(model(images), classes)

    spied = PruneContext(context.previous, context.generator, loss, context.batches)
    S2ap(epochs=1, gamma=0.9).masks(model, 0.2, spied)
    assert len(seen) == 4
    # Twice on each batch, under the mask of the scores and under that of the perturbed ones.
    assert not torch.equal(seen[0], seen[1])
    assert seen[0].sum() == seen[1].sum()
