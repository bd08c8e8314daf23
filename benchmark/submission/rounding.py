"""How far two outputs of one network may differ by rounding, whatever the scale of its logits.

What counts is how the logits differ between classes, over and above what all images share: a
network times a million, or with a million added to its logits, keeps its answers. So tolerances are
shares of that spread, and not of the size of the logits.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Outputs of the same image in another batch, or with gradients on, may differ by this share of
#: the logits' spread. Libraries choose another order of summation for another batch size: float32
#: rounding grows to about 1e-5 through the deepest network here, and ten times that still is far
#: below any margin that decides an image.
RELATIVE_TOLERANCE = 1e-4
#: In a network that rounds to whole steps the last bit of a sum may decide between two steps, and
#: a logit moves by one or a few of the 255 steps of its range. That may happen to this share of the
#: images (and to one), by this share of the spread.
ROUNDED_RATE, ROUNDED_TOLERANCE = 0.01, 0.05
#: What is smaller than float32's normal numbers is rounded more coarsely.
SMALLEST = torch.finfo(torch.float32).tiny
#: Besides, numbers of the logits' own size are rounded by this many steps of float32.
NUM_STEPS = 4


def rounding(logits_NK: Tensor) -> Tensor:
    """The largest difference of each image's logits that rounding explains.

    The spread of an image is the range over classes of its logits less the median of each class
    over all images. The images are told apart by it; an image whose own spread is below that of
    most has the median one. A single image has its plain range.

    Args:
        logits_NK: float32 (N, K), finite, of all images.

    Returns:
        float32 (N,); scales with the logits, and hardly grows when a constant is added to them.

    >>> rounding(torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0]])).tolist()
    [0.00010047683463199064, 0.00020047683210577816, 0.00010095367179019377]
    """
    centred = logits_NK if len(logits_NK) < 2 else logits_NK - logits_NK.median(dim=0).values
    spread_N = centred.amax(dim=1) - centred.amin(dim=1)
    spread_N = torch.maximum(spread_N, spread_N.median())
    steps_N = NUM_STEPS * torch.finfo(torch.float32).eps * logits_NK.abs().amax(dim=1)
    return (RELATIVE_TOLERANCE * spread_N + steps_N).clamp(min=SMALLEST)


def difference(
    other_NK: Tensor, logits_NK: Tensor, is_quantised: bool = False
) -> tuple[str, Tensor]:
    """How two outputs for the same images differ beyond rounding, in words, and where.

    The predicted class may only differ where the two highest logits are closer than rounding.

    Args:
        other_NK: anything that should be the same.
        logits_NK: float32 (N, K), finite.
        is_quantised: whether the network rounds to whole steps inside.

    Returns:
        "" if they do not differ; bool (N,), the images on which they do.
    """
    all_of_them = torch.ones(len(logits_NK), dtype=torch.bool, device=logits_NK.device)
    if other_NK.shape != logits_NK.shape:
        return f"another shape, {list(other_NK.shape)}", all_of_them
    is_finite = torch.isfinite(other_NK).all(dim=1)
    if not bool(is_finite.all()):
        return "values that are not finite", ~is_finite
    tolerance = rounding(logits_NK)
    largest = (other_NK - logits_NK).abs().amax(dim=1)
    is_far = largest > tolerance
    if is_quantised and int(is_far.sum()) <= max(1, ROUNDED_RATE * len(is_far)):
        more = tolerance * (ROUNDED_TOLERANCE / RELATIVE_TOLERANCE)
        tolerance = torch.where(is_far, more, tolerance)
        is_far = largest > tolerance
    if bool(is_far.any()):
        worst = int((largest / tolerance).argmax())
        return (
            f"a difference of {float(largest[worst]):.3g}, more than the "
            f"{float(tolerance[worst]):.3g} that rounding explains",
            is_far,
        )
    top = logits_NK.topk(2, dim=1).values
    is_clear = (top[:, 0] - top[:, 1]) > 2 * tolerance
    is_other = (other_NK.argmax(dim=1) != logits_NK.argmax(dim=1)) & is_clear
    number = int(is_other.sum())
    return (f"another class for {number} image(s)" if number else ""), is_other
