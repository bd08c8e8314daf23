"""The certifiers against closed forms, an independent IBP, exact MILP answers and attacks."""

from __future__ import annotations

import itertools

import pytest
import torch
from certify_nets import (
    PreActivation,
    Residual,
    Viewing,
    boxes,
    cnn,
    margins,
    neighbours,
    seeded,
    worst_found,
)
from milp_margins import exact_margins
from torch import nn

from corobench.benchmark.certify import CERTIFIERS, BoundedModel
from corobench.benchmark.certify.lirpa import bounded as lirpa
from corobench.benchmark.certify.lirpa.graph import intermediate_bounds
from corobench.benchmark.errors import NotCertifiable
from corobench.benchmark.submission.architectures import build as named

TINY = (1, 2, 2)


def tiny(num_hidden_layers: int) -> nn.Sequential:
    sizes = [4, 6, 5][: num_hidden_layers + 1]
    layers: list[nn.Module] = [nn.Flatten()]
    for num_in, num_out in itertools.pairwise(sizes):
        layers += [nn.Linear(num_in, num_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 3))


@pytest.mark.parametrize("method", CERTIFIERS)
def test_linear_classifier_has_its_closed_form(method):
    model = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 4)))
    weight, bias = model[1].weight.detach(), model[1].bias.detach()
    x = torch.full((3, 1, 4, 4), 0.5) + 0.2 * torch.rand(3, 1, 4, 4)
    eps = 0.1  # inside [0, 1]: nothing is clipped
    labels = torch.tensor([0, 3, 1])
    expected = []
    for image, label in zip(x, labels.tolist(), strict=True):
        others = [j for j in range(4) if j != label]
        difference = weight[label] - weight[others]
        centre = difference @ image.flatten() + bias[label] - bias[others]
        expected.append(centre - eps * difference.abs().sum(dim=1))
    found = BoundedModel(model, (1, 4, 4), 4).margins(method, x - eps, x + eps, labels)
    torch.testing.assert_close(found, torch.stack(expected), atol=2e-6, rtol=0)
    assert found.dtype == torch.float32 and not found.requires_grad


def test_ibp_equals_one_written_by_hand():
    model = seeded(cnn)
    x, low, high = boxes((1, 8, 8), 0.05)
    labels = model(x).argmax(dim=1)
    a, b = low, high
    with torch.no_grad():
        for layer in model[:-1]:
            if isinstance(layer, nn.Conv2d):
                mid = nn.functional.conv2d((a + b) / 2, layer.weight, layer.bias, 2, 1)
                rad = nn.functional.conv2d((b - a) / 2, layer.weight.abs(), None, 2, 1)
                a, b = mid - rad, mid + rad
            elif isinstance(layer, nn.Linear):
                mid, rad = layer((a + b) / 2), (b - a) / 2 @ layer.weight.abs().T
                a, b = mid - rad, mid + rad
            else:
                a, b = layer(a), layer(b)
        weight, bias = model[-1].weight, model[-1].bias
        expected = torch.stack(
            [
                torch.stack(
                    [
                        (weight[y] - weight[j]) @ (a[i] + b[i]) / 2
                        - (weight[y] - weight[j]).abs() @ (b[i] - a[i]) / 2
                        + bias[y]
                        - bias[j]
                        for j in range(10)
                        if j != y
                    ]
                )
                for i, y in enumerate(labels.tolist())
            ]
        )
    found = BoundedModel(model, (1, 8, 8), 10).margins("IBP", low, high, labels)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_hidden_layers", [1, 2])
def test_no_bound_exceeds_the_exact_worst_case(num_hidden_layers):
    for seed in range(3):
        model = seeded(lambda: tiny(num_hidden_layers), seed)
        x, low, high = boxes(TINY, 0.2, num=2, seed=seed)
        labels = model(x).argmax(dim=1)
        exact = exact_margins(model, low, high, labels)
        assert (exact <= worst_found(model, low, high, labels) + 1e-5).all()
        bounded = BoundedModel(model, TINY, 3)
        found = {method: bounded.margins(method, low, high, labels) for method in CERTIFIERS}
        for method, bound in found.items():
            assert (bound <= exact + 1e-5).all(), method
        if num_hidden_layers == 1:
            # the only inner bounds are those of the first layer, where IBP is exact
            torch.testing.assert_close(found["CROWN-IBP"], found["CROWN"])


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (cnn, (1, 8, 8)),
        (lambda: cnn((1, 28, 28)), (1, 28, 28)),
        (lambda: cnn((3, 32, 32)), (3, 32, 32)),
        (Viewing, (1, 8, 8)),
        (Residual, (1, 8, 8)),
        (PreActivation, (1, 8, 8)),
        (lambda: named("resnet8", (3, 16, 16), 10, {"width": 0.25}), (3, 16, 16)),
    ],
    ids=["cnn-8", "cnn-28", "cnn-32", "view", "residual", "pre-activation", "resnet8"],
)
def test_nothing_found_in_a_box_lies_below_its_bound(build, shape):
    model = seeded(build)
    x, low, high = boxes(shape, 0.04)
    logits = model(x)
    labels = logits.argmax(dim=1)
    worst = worst_found(model, low, high, labels)
    bounded = BoundedModel(model, shape, logits.shape[1])
    assert bounded.methods == CERTIFIERS
    for method in CERTIFIERS:
        found = bounded.margins(method, low, high, labels)
        assert torch.isfinite(found).all()
        assert (found <= worst + 1e-5).all(), method
        with torch.inference_mode():
            again = bounded.margins(method, low, high, labels)
        assert torch.equal(found, again), method


def canary(height: float) -> nn.Sequential:
    """Two logits, 1 and 0, but for a triangle of that height on a slice 2e-4 wide."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    direction = torch.tensor([0.31, 0.17, 0.29, 0.23])
    steep = 1e4
    with torch.no_grad():
        model[1].weight.copy_(steep * direction.expand(3, 4))
        model[1].bias.copy_(torch.tensor([1.0, 0.0, -1.0]) - steep * 0.5)
        model[3].weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [height, -2 * height, height]]))
        model[3].bias.copy_(torch.tensor([1.0, 0.0]))
    return model.eval()


@pytest.mark.parametrize("method", CERTIFIERS)
def test_canary_with_a_hidden_counterexample_is_not_certified(method):
    x = torch.full((1, *TINY), 0.53)
    low, high, labels = x - 0.1, x + 0.1, torch.tensor([0])
    model = canary(2.0)
    sampled = low + (high - low) * torch.rand(200, *TINY)
    assert (model(sampled).argmax(dim=1) == 0).float().mean() > 0.98
    hidden = torch.full((1, *TINY), 0.5)  # direction @ hidden = 0.5, the tip of the triangle
    assert model(hidden).argmax(dim=1).item() == 1
    found = BoundedModel(model, TINY, 2).margins(method, low, high, labels)
    assert found.item() <= margins(model(hidden), labels).item()
    harmless = BoundedModel(canary(0.0), TINY, 2).margins(method, low, high, labels)
    assert harmless.item() == pytest.approx(1.0, abs=1e-6)


def test_order_of_calls_changes_no_number():
    model = seeded(cnn)
    x, low, high = boxes((1, 8, 8), 0.05)
    labels = model(x).argmax(dim=1)
    fresh = {
        method: BoundedModel(model, (1, 8, 8), 10).margins(method, low, high, labels)
        for method in CERTIFIERS
    }
    shared = BoundedModel(model, (1, 8, 8), 10)
    for method in ("IBP", "CROWN", "CROWN-IBP", "CROWN", "IBP", "CROWN-IBP"):
        assert torch.equal(shared.margins(method, low, high, labels), fresh[method]), method


def test_neighbours_in_the_batch_change_no_bound_of_crown(monkeypatch):
    net, x, labels = neighbours()
    bounded = BoundedModel(net, TINY, 2)
    together = bounded.margins("CROWN", x - 0.2, x + 0.2, labels)
    inner = list(intermediate_bounds(bounded._module("CROWN")).values())[1][0]
    assert inner[0] == pytest.approx(0.05, abs=1e-6), "IBP's bound of the dark image is kept"
    monkeypatch.setitem(bounded._batch_sizes, "CROWN", 1)
    alone = bounded.margins("CROWN", x - 0.2, x + 0.2, labels)
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    # 1 - (0.05 + the chords of both unstable ReLUs at their largest, 0.25)
    assert alone[0].item() == pytest.approx(1 - 0.55, abs=1e-6)


def test_chunks_and_groups_change_no_number_beyond_rounding():
    model = seeded(Viewing)
    x, low, high = boxes((1, 8, 8), 0.05, num=7)
    labels = model(x).argmax(dim=1)
    whole = BoundedModel(model, (1, 8, 8), 5)
    parts = BoundedModel(model, (1, 8, 8), 5)
    parts._batch_sizes = dict.fromkeys(CERTIFIERS, 3)
    parts._group_size = 8
    for method in CERTIFIERS:
        expected = whole.margins(method, low, high, labels)
        found = parts.margins(method, low, high, labels)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert whole.margins("IBP", low[:0], high[:0], labels[:0]).shape == (0, 4)


def test_out_of_memory_shrinks_the_batch(monkeypatch):
    model = seeded(cnn)
    x, low, high = boxes((1, 8, 8), 0.05, num=5)
    labels = model(x).argmax(dim=1)
    expected = BoundedModel(model, (1, 8, 8), 10).margins("IBP", low, high, labels)
    bounded = BoundedModel(model, (1, 8, 8), 10)
    bounded.margins("IBP", low[:1], high[:1], labels[:1])
    real = lirpa.bound

    def small(module, method, x_L, *args, **kwargs):
        if len(x_L) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")
        return real(module, method, x_L, *args, **kwargs)

    monkeypatch.setattr(lirpa, "bound", small)
    found = bounded.margins("IBP", low, high, labels)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert bounded._batch_sizes["IBP"] == 2

    def nothing(*args, **kwargs):
        raise RuntimeError("CUDA out of memory.")

    monkeypatch.setattr(lirpa, "bound", nothing)
    with pytest.raises(MemoryError, match="even for one image"):
        bounded.margins("CROWN", low, high, labels)


def test_a_bound_that_an_image_contradicts_is_refused(monkeypatch):
    model = seeded(cnn)
    x, low, high = boxes((1, 8, 8), 0.001)
    labels = model(x).argmax(dim=1)
    bounded = BoundedModel(model, (1, 8, 8), 10)
    bounded.margins("IBP", low, high, labels)
    real = lirpa.bound

    def generous(*args, **kwargs):
        lower, upper = real(*args, **kwargs)
        return lower + 0.5, upper

    monkeypatch.setattr(lirpa, "bound", generous)
    with pytest.raises(NotCertifiable) as caught:
        bounded.margins("IBP", low, high, labels)
    assert caught.value.rule == "bounds-disagree-with-forward"
    assert "IBP" in bounded.refusals and "IBP" not in bounded.methods
    with pytest.raises(NotCertifiable) as caught:  # the same at width 0, on first use
        bounded.margins("CROWN", low, high, labels)
    assert caught.value.rule == "bounds-disagree-with-forward"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"method": "crown"}, "`method` to be one of IBP"),
        ({"x_L": torch.zeros(2, 1, 7, 8)}, r"`x_L` of shape \(B, 1, 8, 8\)"),
        ({"x_U": torch.zeros(1, 1, 8, 8)}, "`x_U` of the shape of `x_L`"),
        ({"x_U": torch.full((2, 1, 8, 8), -1.0)}, "`x_L` <= `x_U`"),
        ({"labels": torch.tensor([0, 10])}, r"`labels` in \[0, 10\)"),
        ({"labels": torch.tensor([0.0, 1.0])}, "2 integers"),
    ],
)
def test_arguments_that_do_not_fit_are_named(change, text):
    arguments = {
        "method": "IBP",
        "x_L": torch.zeros(2, 1, 8, 8),
        "x_U": torch.ones(2, 1, 8, 8),
        "labels": torch.tensor([0, 1]),
    }
    bounded = BoundedModel(seeded(cnn), (1, 8, 8), 10)
    with pytest.raises(ValueError, match=text):
        bounded.margins(**(arguments | change))
