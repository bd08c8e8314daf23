"""Models whose truth is known, and models that cheat."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from corobench.benchmark.data import load_train


def linear_digits() -> nn.Module:
    """Multinomial logistic regression on the digits' training set, as a network."""
    train = load_train("digits")
    features = train.images.reshape(len(train), -1)
    fitted = LogisticRegression(C=0.05, max_iter=500).fit(features, train.labels)
    layer = nn.Linear(64, 10)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(fitted.coef_))
        layer.bias.copy_(torch.from_numpy(fitted.intercept_))
    return nn.Sequential(nn.Flatten(), layer).eval()


def exact_linear_margin(model: nn.Module, x: Tensor, y: Tensor, epsilon: Fraction) -> Tensor:
    """Smallest margin of a linear network over the ball within [0, 1], by its closed form.

    The minimum of ``d @ x + c`` over a box takes the lower corner where d > 0, else the upper.
    """
    layer = model[1]
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
    flat = x.flatten(1).double()
    low = (flat - float(epsilon)).clamp(min=0)
    high = (flat + float(epsilon)).clamp(max=1)
    worst = torch.full((len(x),), float("inf"), dtype=torch.float64)
    for other in range(len(bias)):
        difference = weight[y] - weight[other]
        corner = torch.where(difference > 0, low, high)
        margin = (difference * corner).sum(dim=1) + bias[y] - bias[other]
        worst = torch.where(y == other, worst, torch.minimum(worst, margin))
    return worst


class Wrapped(nn.Module):
    """A base for models that pass another model's logits on, changed."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


class Probabilities(Wrapped):
    """Returns probabilities instead of logits."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).softmax(dim=1)


class Noisy(Wrapped):
    """Another answer each time."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        return logits + 0.1 * torch.randn_like(logits)


class NotANumber(Wrapped):
    """Returns NaN."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * float("nan")


class BatchDependent(Wrapped):
    """An image's logits depend on its neighbours."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        return logits - logits.mean(dim=0, keepdim=True)


class Saturated(Wrapped):
    """Same decisions, but the gradient vanishes: a step function of the logits."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        return torch.nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1]).float() + (
            0.0 * logits
        )


class Stored(Wrapped):
    """Right by memory: an image within `radius` of a stored one gets its label.

    Args:
        inner: answers everywhere else.
        images: float32 (M, C, H, W), the stored ones, as a buffer, so that they count as weights.
        labels: int64 (M,).
        radius: largest l-infinity distance at which an image is recognised.
    """

    images: Tensor
    answers: Tensor

    def __init__(self, inner: nn.Module, images: Tensor, labels: Tensor, radius: float) -> None:
        super().__init__(inner)
        self.register_buffer("images", images.flatten(1).clone())
        self.register_buffer("answers", nn.functional.one_hot(labels, 10).float() * 20)
        self.radius = radius

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        distance = torch.cdist(x.detach().flatten(1), self.images, p=float("inf"))
        nearest, which = distance.min(dim=1)
        known = (nearest <= self.radius)[:, None].float()
        return logits + known * self.answers[which]


class Clipped(Wrapped):
    """Logits cut off at a bound, so that nothing beyond it has a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).clamp(-2.0, 2.0)


class Shattered(Wrapped):
    """A ripple too small to see in the logits whose gradient drowns the true one."""

    def forward(self, x: Tensor) -> Tensor:
        ripple = torch.sin(x * 3e5).flatten(1)
        return self.inner(x) + 1e-2 * ripple[:, 20:30]


class Plateau(Wrapped):
    """Steps with a slope too small to follow."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        steps = nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1]).float() * 10
        return steps + 1e-6 * logits


class Later(Wrapped):
    """Another function from the call on that `is_late` says."""

    def __init__(self, inner: nn.Module, is_late: Callable[[int], bool]) -> None:
        super().__init__(inner)
        self.is_late, self.calls = is_late, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        logits = self.inner(x)
        return logits.flip(1) if self.is_late(self.calls) else logits
