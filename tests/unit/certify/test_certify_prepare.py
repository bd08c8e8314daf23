"""The prepared copy computes the same function; graphs bounded wrongly are refused by name."""

from __future__ import annotations

import pytest
import torch
from certify_nets import (
    MaskedLinear,
    Normalize,
    PreActivation,
    Residual,
    boxes,
    cnn,
    seeded,
    worst_found,
)
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from corobench.benchmark.certify import CERTIFIERS, BoundedModel, num_hidden_units
from corobench.benchmark.errors import NotCertifiable
from corobench.benchmark.network.prepare import prepare

SHAPE = (1, 8, 8)


def net(*middle: nn.Module, num_flat: int = 256, channels: int = 4) -> nn.Sequential:
    """conv, ReLU, the given layers, flatten, FC to 3 logits."""
    head = [nn.Flatten(), nn.Linear(num_flat, 3)]
    return nn.Sequential(nn.Conv2d(1, channels, 3, 1, 1), nn.ReLU(), *middle, *head)


def norms(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]


def assert_sound(model: nn.Module, methods=CERTIFIERS, shape=SHAPE, num_classes=3) -> None:
    x, low, high = boxes(shape, 0.05, num=2)
    labels = model(x).argmax(dim=1)
    worst = worst_found(model, low, high, labels)
    bounded = BoundedModel(model, shape, num_classes)
    assert bounded.methods == methods, bounded.refusals
    for method in methods:
        assert (bounded.margins(method, low, high, labels) <= worst + 1e-5).all(), method


def test_batch_norm_behind_a_convolution_is_folded_and_dropout_removed():
    model = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3, 1, 1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 8, bias=False),
            nn.BatchNorm1d(8, affine=False),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(8, 3),
        )
    )
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copy = prepare(model, SHAPE)
    assert not norms(copy) and not any(isinstance(m, nn.Dropout) for m in copy.modules())
    assert not any(p.requires_grad for p in copy.parameters())
    assert model.training and all(p.requires_grad for p in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    x = torch.rand(3, *SHAPE)
    torch.testing.assert_close(copy(x), model.eval()(x), atol=1e-5, rtol=0)
    assert_sound(model)


def test_residual_norms_fold_and_those_before_a_relu_stay():
    assert not norms(prepare(seeded(Residual), SHAPE))
    # norm1 and norm2 alone follow a convolution; norm3 follows a sum
    assert len(norms(prepare(seeded(PreActivation), SHAPE))) == 1


def test_a_layer_used_twice_is_not_folded():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 1, 3, 1, 1), nn.BatchNorm2d(1)
            self.fc = nn.Linear(64, 3)

        def forward(self, x):
            x = torch.relu(self.norm(self.conv(x)))
            return self.fc(torch.relu(self.norm(self.conv(x))).flatten(1))

    model = seeded(Twice)
    assert len(norms(prepare(model, SHAPE))) == 1
    assert_sound(model)


def test_a_forward_pass_that_cannot_be_traced_symbolically_still_works():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 2, 3, 1, 1), nn.BatchNorm2d(2)
            self.fc = nn.Linear(128, 3)

        def forward(self, x):
            if x.sum() != x.sum():
                raise ValueError("not a number")
            return self.fc(torch.relu(self.norm(self.conv(x))).flatten(1))

    assert_sound(seeded(Branching))


def test_pruning_hooks_and_parametrizations_are_baked():
    model = seeded(cnn)
    for module in (model[0], model[5]):
        prune.l1_unstructured(module, "weight", amount=0.6)
    parametrizations.weight_norm(model[7])
    x = torch.rand(2, *SHAPE)
    model(x)  # leaves computed weights, which cannot be deep-copied, behind
    copy = prepare(model, SHAPE)
    assert {name for name, _ in copy.named_parameters()} == {
        f"{i}.{kind}" for i in (0, 2, 5, 7) for kind in ("weight", "bias")
    }
    assert (copy[0].weight == 0).float().mean() > 0.5
    torch.testing.assert_close(copy(x), model(x), atol=1e-5, rtol=0)
    assert prune.is_pruned(model[0]) and parametrize.is_parametrized(model[7], "weight")
    assert_sound(model, num_classes=10)


def test_mask_in_the_forward_pass_is_refused():
    model = seeded(
        lambda: nn.Sequential(nn.Flatten(), MaskedLinear(64, 9), nn.ReLU(), nn.Linear(9, 3))
    )
    bounded = BoundedModel(model, SHAPE, 3)
    assert bounded.methods == ()
    assert {refusal.rule for refusal in bounded.refusals.values()} == {"live-pruning-mask"}
    _, low, high = boxes(SHAPE, 0.1)
    with pytest.raises(NotCertifiable, match="weight \\* mask"):
        bounded.margins("IBP", low, high, torch.zeros(3, dtype=torch.long))


def test_normalize_becomes_an_affine_batch_norm():
    model = seeded(lambda: nn.Sequential(Normalize([0.3], [0.2]), *net()))
    copy = prepare(model, SHAPE)
    assert type(copy[0]).__name__ == "BatchNorm2d"
    assert_sound(model)
    neutral = prepare(seeded(lambda: nn.Sequential(Normalize([0.0], [1.0]), *net())), SHAPE)
    assert isinstance(neutral[0], nn.Identity)


@pytest.mark.parametrize(
    ("model", "rule", "methods"),
    [
        (net(nn.AvgPool2d(2, 2, 1), num_flat=100), "padded-average-pool", ("IBP",)),
        (net(nn.AvgPool2d(3, 2), num_flat=36), "overlapping-average-pool", ("IBP",)),
        (net(nn.MaxPool2d(3, 2), num_flat=36), "overlapping-max-pool", ("IBP",)),
        (net(nn.MaxPool2d(3, 2, 1), num_flat=64), "overlapping-max-pool", ("IBP",)),
        (net(nn.Hardtanh()), "unsupported-operator", ()),
        (net(nn.GELU()), "unsupported-operator", ()),
        (net(nn.ReflectionPad2d(1), num_flat=400), "unsupported-operator", ()),
    ],
)
def test_refused_by_name_and_sound_where_not(model, rule, methods):
    model.eval()
    bounded = BoundedModel(model, SHAPE, 3)
    assert bounded.refusals["CROWN"].rule == rule
    assert_sound(model, methods)


@pytest.mark.parametrize(
    "model",
    [
        net(nn.Conv2d(4, 4, 3, 1, 1, groups=4), nn.ReLU()),
        net(nn.Conv2d(4, 4, 3, 1, 2, dilation=2), nn.ReLU()),
        net(nn.Conv2d(4, 4, (3, 1), (2, 1), (1, 0)), nn.ReLU(), num_flat=128),
        net(nn.AvgPool2d((2, 4)), nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU(), num_flat=32),
        net(nn.Conv2d(4, 4, 3, padding="same", bias=False), nn.ReLU()),
        net(nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), num_flat=4),
        net(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 6, 1), nn.ReLU(), num_flat=6),
        net(nn.Sigmoid(), nn.Conv2d(4, 4, 3, 1, 1), nn.Tanh()),
        net(nn.MaxPool2d(2), num_flat=64),
        nn.Sequential(
            nn.Flatten(), nn.Linear(64, 9, bias=False), nn.ReLU(), nn.Linear(9, 3, bias=False)
        ),
    ],
    ids=[
        "depthwise",
        "dilated",
        "uneven-conv",
        "uneven-map",
        "same",
        "average",
        "global",
        "s-shaped",
        "max-pool",
        "no-bias",
    ],
)
def test_other_graphs_are_bounded_soundly(model):
    assert_sound(model.eval())


@pytest.mark.parametrize(
    ("build", "rule"),
    [
        (lambda: net(nn.BatchNorm2d(4, track_running_stats=False)), "batch-statistics"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), "wrong-output"),
    ],
)
def test_models_that_break_the_contract_are_refused_for_all(build, rule):
    bounded = BoundedModel(build().eval(), SHAPE, 3)
    assert bounded.methods == ()
    assert bounded.refusals["IBP"].rule == rule


def test_random_and_stateful_forward_passes_are_refused():
    class Noisy(nn.Sequential):
        def forward(self, x):
            return super().forward(x + torch.rand_like(x))

    with pytest.raises(NotCertifiable) as caught:
        prepare(Noisy(*net()), SHAPE)
    assert caught.value.rule == "not-deterministic"


def test_num_hidden_units_counts_every_way_to_write_a_relu():
    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu, self.drop = nn.ReLU(inplace=True), nn.Dropout()

        def forward(self, x):
            x = self.relu(x + 0.0)  # 64
            x = torch.relu(x[:, :, :4])  # 32
            x = nn.functional.relu(x[:, :, :2])  # 16
            x = x[:, :, :1].relu()  # 8
            return (x[..., :4] + 0.0).relu_().flatten(1)  # 4

    model = Written().train()
    assert num_hidden_units(model, SHAPE) == 64 + 32 + 16 + 8 + 4
    assert model.training and model.drop.training
    assert num_hidden_units(nn.Flatten(), SHAPE) == 0
    assert num_hidden_units(cnn((1, 28, 28), 16), (1, 28, 28)) == 3136 + 1568 + 20
