"""Pruners: exact counts, the right victims, and no way to see an objective."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from corobench.baselines.masks import Masks, prunable_weights
from corobench.baselines.pruners import PRUNERS, PruneContext
from corobench.baselines.pruners.filter_l1 import FilterL1
from corobench.baselines.pruners.hydra import Hydra
from corobench.baselines.pruners.lwm import Lwm
from corobench.baselines.pruners.lwm_global import LwmGlobal
from corobench.baselines.pruners.snip import Snip
from corobench.benchmark.errors import ConfigError
from corobench.benchmark.network.compactness import sparsity
from corobench.benchmark.network.live_weights import count_live_weights
from corobench.benchmark.submission.architectures import build


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


@pytest.mark.parametrize("keep_ratio", [0.5, 0.25, 0.125, 0.1, 0.05, 0.01, 1.0])
@pytest.mark.parametrize("name", ["lwm", "random", "hydra"])
def test_layer_wise_counts_are_exact(name: str, keep_ratio: float) -> None:
    model = _model()
    pruner = Hydra(epochs=1) if name == "hydra" else PRUNERS[name]()
    masks = pruner.masks(model, keep_ratio, _context(model))
    weights = prunable_weights(model)
    assert set(masks) == set(weights)
    for key, kept in masks.items():
        numel = weights[key].numel()
        expected = math.floor((1 - Fraction(repr(keep_ratio))) * numel)
        assert int((~kept).sum()) == expected, key


@pytest.mark.parametrize("name", ["lamp", "lwm-global", "snip"])
def test_global_counts_are_exact_over_the_network(name: str) -> None:
    model = _model()
    masks = PRUNERS[name]().masks(model, 0.1, _context(model))
    total = sum(kept.numel() for kept in masks.values())
    assert sum(int((~kept).sum()) for kept in masks.values()) == math.floor(0.9 * total)


@pytest.mark.parametrize("name", sorted(PRUNERS))
def test_pruning_leaves_the_model_as_it_was_and_never_touches_biases(name: str) -> None:
    model = _model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    pruner = Hydra(epochs=1) if name == "hydra" else PRUNERS[name]()
    masks = pruner.masks(model, 0.5, _context(model))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    if pruner.structure == "unstructured":
        assert all(key.endswith("weight") for key in masks)


def test_lwm_removes_the_least_magnitudes() -> None:
    model = _model()
    masks = Lwm().masks(model, 0.1, _context(model))
    for key, weight in prunable_weights(model).items():
        assert weight.abs()[masks[key]].min() >= weight.abs()[~masks[key]].max()


def test_normalised_global_pruning_is_blind_to_the_scale_of_a_layer() -> None:
    model = _model()
    first = LwmGlobal().masks(model, 0.2, _context(model))
    with torch.no_grad():
        prunable_weights(model)["0.weight"].mul_(64.0)
    second = LwmGlobal().masks(model, 0.2, _context(model))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", ["lwm", "lwm-global", "random", "snip", "hydra"])
def test_a_later_round_removes_more_and_brings_nothing_back(name: str) -> None:
    model = _model()
    pruner = Hydra(epochs=1) if name == "hydra" else PRUNERS[name]()
    first = pruner.masks(model, 0.5, _context(model))
    first.apply(model)
    second = pruner.masks(model, 0.1, _context(model, previous=first))
    for key in first:
        assert not (second[key] & ~first[key]).any()
    second.apply(model)
    assert sparsity(model) == pytest.approx(0.9, abs=1e-3)


def test_exempt_layers_stay_dense_at_the_same_total() -> None:
    model = _model()
    masks = Lwm(exempt=("first", "last")).masks(model, 0.1, _context(model))
    assert "0.weight" not in masks and len(masks) == len(prunable_weights(model)) - 2
    masks.apply(model)
    assert sparsity(model) == pytest.approx(0.9, abs=1e-3)


def test_exempting_more_than_may_be_kept_is_an_error() -> None:
    model = _model()
    with pytest.raises(ConfigError, match="exempt layers hold 1256 of"):
        Lwm(exempt=("first", "last")).masks(model, 0.01, _context(model))


def test_snip_scores_are_weight_times_gradient() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    x, labels = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([0])
    context = PruneContext(
        previous=Masks(),
        generator=torch.Generator(),
        loss=lambda images, classes: model(images)[:, 0].sum() * 3.0,
        batches=lambda: iter([(x, labels)]),
    )
    weight = prunable_weights(model)["1.weight"].detach()
    scores = Snip(num_batches=1).scores(model, context)["1.weight"]
    expected = (weight * torch.tensor([[3.0, 6.0], [0.0, 0.0]])).abs()
    assert torch.allclose(scores, expected)


def test_hydra_starts_at_magnitude_and_improves_the_loss() -> None:
    model = _model()
    context = _context(model)

    def loss_under(masks: Masks) -> float:
        saved = {key: value.clone() for key, value in model.state_dict().items()}
        masks.apply(model)
        x, labels = next(context.batches())
        with torch.no_grad():
            value = float(context.loss(x, labels))
        model.load_state_dict(saved)
        return value

    still = Hydra(epochs=1, lr=1e-12).masks(model, 0.2, context)
    lwm = Lwm().masks(model, 0.2, context)
    assert all(torch.equal(still[key], lwm[key]) for key in lwm)
    trained = Hydra(epochs=30, lr=0.1).masks(model, 0.2, context)
    assert loss_under(trained) < loss_under(lwm)


def test_filters_go_with_their_bias_and_batch_norm() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(6),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    nn.init.uniform_(model[1].bias)  # type: ignore[arg-type]
    masks = FilterL1(size="filters").masks(model.eval(), 0.75, _context(model))
    removed = ~masks["0.bias"]
    # 114 of 152 weights may stay, 80 of them in the last layer: 34 of 72, so 3.8 of 8 filters.
    assert int(removed.sum()) == 4
    assert set(masks) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    norms = model[0].weight.detach().abs().flatten(1).mean(1)  # type: ignore[operator, union-attr]
    assert norms[removed].max() <= norms[~removed].min()
    masks.apply(model)
    channels = model[:3](torch.rand(4, 1, 8, 8))
    assert not channels[:, removed].any()


def test_batch_norm_before_a_convolution_is_no_follower() -> None:
    model = nn.Sequential(
        nn.BatchNorm2d(1), nn.Conv2d(1, 4, 3), nn.AvgPool2d(6), nn.Flatten(), nn.Linear(4, 2)
    )
    masks = FilterL1(size="filters").masks(model, 0.6, _context(model))
    assert not any(key.startswith("0.") for key in masks)


@pytest.mark.parametrize("keep_ratio", [0.5, 0.1, 0.03])
def test_whole_filters_are_sized_by_the_weights_that_are_live(keep_ratio: float) -> None:
    """What reads a removed channel goes, too, and a little more would be too many."""
    model = _model().eval()
    masks = FilterL1().masks(model, keep_ratio, _context(model))
    masks.apply(model)
    weights = prunable_weights(model)
    total = sum(weight.numel() for weight in weights.values())
    kept = sum(int(torch.count_nonzero(weight)) for weight in weights.values())
    assert kept == count_live_weights(model, (1, 8, 8)) <= keep_ratio * total
    assert kept >= 0.6 * keep_ratio * total
    first, second = model[0].weight, model[2].weight  # type: ignore[union-attr]
    dead = ~first.flatten(1).any(dim=1)  # type: ignore[operator]
    assert dead.any() and not second[:, dead].any()  # type: ignore[index]


def test_whole_filters_need_room_for_one_in_each_layer() -> None:
    model = _model().eval()
    with pytest.raises(ConfigError, match="one filter in each layer"):
        FilterL1().masks(model, 0.0005, _context(model))


def test_global_magnitude_itself_removes_the_smallest_weights_of_all_layers() -> None:
    model = _model()
    masks = LwmGlobal(normalised=False).masks(model, 0.2, _context(model))
    weights = prunable_weights(model)
    kept = torch.cat([weights[name].detach().abs()[mask] for name, mask in masks.items()])
    gone = torch.cat([weights[name].detach().abs()[~mask] for name, mask in masks.items()])
    assert gone.max() <= kept.min()


def test_snip_by_the_natural_loss_does_not_ask_for_the_robust_one() -> None:
    model = _model()
    context = _context(model)

    def never(images: Tensor, classes: Tensor) -> Tensor:
        raise AssertionError

    natural = Snip(loss="natural").masks(model, 0.2, replace(context, loss=never))
    # Here the loss of the context is the natural one.
    asked = Snip().masks(model, 0.2, context)
    assert all(torch.equal(natural[name], asked[name]) for name in asked)


@pytest.mark.parametrize("augmentation", ["none", "crop-flip"])
def test_hydra_with_norms_leaves_the_model_as_it_was(augmentation: str) -> None:
    model = build("cnn5", (1, 8, 8), 10, {"width": 0.0625}).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    context = _context(model)
    pruner = Hydra(epochs=8, lr=2.0, score_decay=1e-2, augmentation=augmentation, trains_norms=True)
    masks = pruner.masks(model, 0.2, context)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.parameters())
    again = pruner.masks(model, 0.2, _context(model))
    assert all(torch.equal(masks[name], again[name]) for name in masks)
    plain = Hydra(epochs=8, lr=2.0).masks(model, 0.2, _context(model))
    assert any(not torch.equal(masks[name], plain[name]) for name in masks)
