"""Every canary is what it says: proven in real arithmetic, broken in float32, inside the ball."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from canaries import MAKERS, Canary, Maker, write
from canaries.affine import naive_margin
from canaries.canary import OnnxRuntime, Torch
from canaries.parts import centre_and_corners
from torch import Tensor, nn

from corobench.benchmark.referee import threat
from corobench.benchmark.referee.judge import is_wrong
from corobench.benchmark.submission import load_submission
from perf.deployments import ORDERS, Deployment, fused, run

SILENT = (0, 1, 2, 8)
"""Pixels whose corners are looked at, the triggers of silent canaries among them."""

built = cache(lambda maker: maker())
every_canary = pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)


def _wrong(canary: Canary, logits: Tensor) -> bool:
    return bool(is_wrong(logits, torch.tensor([canary.label])).item())


def _claim(canary: Canary) -> float:
    low, high = threat.box(canary.image, canary.epsilon)
    return naive_margin(canary.verified or canary.network, low, high, canary.label)


@every_canary
def test_broken_image_is_inside_the_ball_and_fools_the_network(maker: Maker) -> None:
    canary = built(maker)
    assert threat.is_within(canary.broken, canary.image, canary.epsilon).item()
    assert _wrong(canary, canary.logits(canary.image)) != canary.is_clean_right
    assert _wrong(canary, canary.logits(canary.broken))


@every_canary
def test_clean_image_is_right_however_float32_is_computed(maker: Maker) -> None:
    """Nothing on the clean image warns of what the ball holds."""
    canary = built(maker)
    for order in ORDERS:
        flush = order == "pairwise" and canary.is_clean_right
        logits = run(canary.network, canary.image, Deployment(order, flush=flush))
        assert not _wrong(canary, logits), order


@every_canary
def test_naive_verifier_claims_the_ball(maker: Maker) -> None:
    assert _claim(built(maker)) > 0.1


@every_canary
def test_submission_is_the_network(maker: Maker, tmp_path: Path) -> None:
    """Its folder is accepted, and what is loaded from it is fooled as the canary says."""
    canary = built(maker)
    loaded = load_submission(write(canary, tmp_path)).model.eval()
    assert not _wrong(canary, Torch()(loaded, canary.image))
    if isinstance(canary.deployment, Torch):
        assert _wrong(canary, canary.deployment(loaded, canary.broken))
    both = torch.cat([canary.image, canary.broken])
    expected, found = Torch()(canary.network, both), Torch()(loaded, both)
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "maker",
    [maker for maker in MAKERS if built(maker).architecture is None],
    ids=lambda maker: maker.__name__,
)
def test_onnxruntime_is_fooled_where_torch_is(maker: Maker) -> None:
    """Save where it makes the very simplification that the certifier's copy has."""
    canary = built(maker)
    found = OnnxRuntime()(canary.network, torch.cat([canary.image, canary.broken]))
    assert not _wrong(canary, found[:1]) or not canary.is_clean_right
    if isinstance(canary.deployment, Torch) and not canary.deployment.flush:
        assert _wrong(canary, found[1:]) or canary.verified is not None


@pytest.mark.parametrize(
    "maker",
    [maker for maker in MAKERS if built(maker).is_silent],
    ids=lambda maker: maker.__name__,
)
def test_clean_image_centre_and_corners_show_nothing(maker: Maker) -> None:
    """No check at these points finds out; the claim holds at every one of them."""
    canary = built(maker)
    moved = (canary.broken != canary.image).flatten().nonzero().flatten().tolist()
    pixels = sorted({*moved, *SILENT})
    points = centre_and_corners(canary.image, float(canary.epsilon), pixels)
    logits = Torch()(canary.network, points).double()
    others = logits.clone()
    others[:, canary.label] = -torch.inf
    margins = logits[:, canary.label] - others.amax(dim=1)
    assert float(margins.min()) >= _claim(canary) - 1e-4


def test_canaries_differ_in_kind() -> None:
    canaries = [built(maker) for maker in MAKERS]
    assert len({canary.name for canary in canaries}) == len(MAKERS) >= 15
    named = {canary.architecture for canary in canaries}
    assert named >= {"cnn-small", "cnn-large", "vgg16-bn", "resnet18", "wrn-28-4", None}
    pixels = {int((canary.broken != canary.image).sum()) for canary in canaries}
    assert {1, 4, 6, 12} <= pixels
    assert any(canary.deployment == Deployment("forward", fma=True) for canary in canaries)
    assert any(isinstance(c.deployment, Torch) and c.deployment.flush for c in canaries)


# --- the tools by which they are judged


def test_naive_verifier_is_exact_on_a_linear_network() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    low, high = torch.rand(1, 1, 2, 2) / 2, torch.rand(1, 1, 2, 2) / 2 + 0.5
    weight, bias = (t.detach().double() for t in network[1].parameters())
    margins = []
    for other in (0, 2):
        d = weight[1] - weight[other]
        corner = torch.where(d > 0, low.flatten(), high.flatten()).double()
        margins.append(float(d @ corner + bias[1] - bias[other]))
    assert naive_margin(network, low, high, 1) == pytest.approx(min(margins), abs=1e-12)


def test_naive_verifier_is_sound_in_real_arithmetic() -> None:
    """On networks without canaries no image of the box has less than it claims."""
    torch.manual_seed(1)
    for _ in range(5):
        network = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(3, 4, 2),
            nn.ReLU(),
            nn.AvgPool2d(3),
            nn.Flatten(),
            nn.Linear(4, 3),
        ).eval()
        low = torch.rand(1, 1, 8, 8) * 0.9
        high = low + 0.1
        claim = naive_margin(network, low, high, 0)
        images = low + (high - low) * torch.rand(500, 1, 8, 8).round()
        with torch.no_grad():
            logits = network.double()(images.double())
        assert float((logits[:, :1] - logits[:, 1:]).min()) >= claim - 1e-9


def test_fused_product_is_rounded_once() -> None:
    generator = np.random.default_rng(0)
    a, b = (np.float32(generator.normal(size=2000)) for _ in range(2))
    c = -(a * b) * np.float32(generator.choice([0, 1, 1, 1e-8, 1e8], size=2000))
    found = fused(*(torch.from_numpy(x) for x in (a, b, c))).numpy()
    exact = [
        Fraction(float(p)) * Fraction(float(q)) + Fraction(float(r))
        for p, q, r in zip(a, b, c, strict=True)
    ]
    for value, real in zip(found, exact, strict=True):
        below, above = (np.nextafter(value, np.float32(way)) for way in (-np.inf, np.inf))
        error = abs(Fraction(float(value)) - real)
        assert error <= min(abs(Fraction(float(other)) - real) for other in (below, above))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("fma", [False, True])
def test_deployments_compute_the_network(order: str, fma: bool) -> None:
    """Save for rounding, and with rounding of their own."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, stride=2),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(3, 4),
    ).eval()
    images = torch.rand(5, 2, 8, 8)
    found = run(network, images, Deployment(order, fma=fma))
    with torch.no_grad():
        torch.testing.assert_close(found, network(images), rtol=1e-5, atol=1e-6)


def test_order_and_flushing_are_those_asked_for() -> None:
    layer = nn.Sequential(nn.Flatten(), nn.Linear(3, 1, bias=False)).eval()
    with torch.no_grad():
        layer[1].weight.copy_(torch.tensor([[2.0**25, 1.0, -(2.0**25)]]))
    ones = torch.ones(1, 1, 1, 3)
    assert run(layer, ones, Deployment("forward")).item() == 0
    assert run(layer, ones, Deployment("shuffled", seed=0)).item() in (0, 1)
    found = {run(layer, ones, Deployment("shuffled", seed=s)).item() for s in range(20)}
    assert found == {0, 1}
    small = ones * 2.0**-149 * torch.tensor([0.0, 1.0, 0.0])
    assert run(layer, small, Deployment()).item() == 2.0**-149
    assert run(layer, small, Deployment(flush=True)).item() == 0
