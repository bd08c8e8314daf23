"""The only measuring stick: distance, projection and membership of the l-infinity ball.

Images are float32 in [0, 1]; every float32 is exact in float64, and so is the difference of
two of them here up to half a unit of 2**-53, which is far below the spacing of float32 images.
Epsilon is an exact fraction; it is rounded *down* where an attack is judged and *up* where a
box is verified, so that no rounding ever favours either side.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor


def _floor64(epsilon: Fraction) -> float:
    """The largest float64 that is not above `epsilon`."""
    value = float(epsilon)
    return value if Fraction(value) <= epsilon else math.nextafter(value, 0.0)


def _ceil64(epsilon: Fraction) -> float:
    """The smallest float64 that is not below `epsilon`."""
    value = float(epsilon)
    return value if Fraction(value) >= epsilon else math.nextafter(value, math.inf)


def _round_to_float32(x_BCHW: Tensor, towards: float) -> Tensor:
    """float64 -> float32, never past the exact value in the direction away from `towards`."""
    rounded = x_BCHW.to(torch.float32)
    overshoot = rounded.double() > x_BCHW if towards < 0 else rounded.double() < x_BCHW
    stepped = torch.nextafter(rounded, torch.full_like(rounded, towards))
    return torch.where(overshoot, stepped, rounded)


def distance(adversarial_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
    """l-infinity distance per image.

    Args:
        adversarial_BCHW: float32 (B, C, H, W).
        x_BCHW: float32 (B, C, H, W), the clean images.

    Returns:
        float64 (B,); NaN where an image holds a NaN.

    >>> distance(torch.tensor([[[[0.5]]]]), torch.tensor([[[[0.25]]]])).item()
    0.25
    """
    return (adversarial_BCHW.double() - x_BCHW.double()).abs().flatten(1).amax(dim=1)


def box(x_BCHW: Tensor, epsilon: Fraction) -> tuple[Tensor, Tensor]:
    """The smallest float32 box that contains the ball around each image, within [0, 1].

    Returns:
        Lower and upper corners, float32 (B, C, H, W), rounded outward.
    """
    radius = _ceil64(epsilon)
    # A float64 sum may itself be rounded inward, when a pixel is tiny; one step undoes that.
    infinity = torch.full_like(x_BCHW, math.inf, dtype=torch.float64)
    exact_lower = torch.nextafter(x_BCHW.double() - radius, -infinity)
    exact_upper = torch.nextafter(x_BCHW.double() + radius, infinity)
    lower = _round_to_float32(exact_lower, towards=-math.inf)
    upper = _round_to_float32(exact_upper, towards=math.inf)
    return lower.clamp(min=0.0), upper.clamp(max=1.0)


def project(adversarial_BCHW: Tensor, x_BCHW: Tensor, epsilon: Fraction) -> Tensor:
    """The nearest float32 images that are exactly inside the ball and inside [0, 1].

    Returns:
        float32 (B, C, H, W) with ``is_within`` true for every image that holds no NaN.
    """
    radius = _floor64(epsilon)
    lower = _round_to_float32((x_BCHW.double() - radius).clamp(min=0.0), towards=math.inf)
    upper = _round_to_float32((x_BCHW.double() + radius).clamp(max=1.0), towards=-math.inf)
    return torch.minimum(torch.maximum(adversarial_BCHW, lower), upper)


def is_within(adversarial_BCHW: Tensor, x_BCHW: Tensor, epsilon: Fraction) -> Tensor:
    """Whether each image lies in the ball and in [0, 1], at zero tolerance.

    Returns:
        bool (B,); False for an image that holds a NaN.

    >>> x = torch.zeros(1, 1, 1, 1)
    >>> is_within(x + 0.25, x, Fraction(1, 4)).item(), is_within(x + 0.26, x, Fraction(1, 4)).item()
    (True, False)
    """
    in_ball = distance(adversarial_BCHW, x_BCHW) <= _floor64(epsilon)
    flat = adversarial_BCHW.flatten(1)
    in_range = ((flat >= 0.0) & (flat <= 1.0)).all(dim=1)
    return in_ball & in_range
