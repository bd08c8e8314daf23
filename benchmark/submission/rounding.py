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
#: in a deep one a few logits move by a step or some. A step (a quantum) is that of the rounded
#: logits, or a 255th of an image's range of logits where that is larger.
MAX_QUANTA = 4
#: In the deepest networks a few images move further: of 500 images onnxruntime and the same file
#: without its rewriting differ on 12 by more, by 10 quanta at most (perf/quantised_networks.py).
MAX_FAR_QUANTA = 16
FAR_RATE, NUM_FAR, FAR_SHARE_OF_FEW = 0.05, 2, 0.25
_NUM_STEPS_OF_A_RANGE = 255
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


def quantum(logits_NK: Tensor, step: float) -> float:
    """How much one step of a quantised network may move a logit.

    Args:
        logits_NK: float32 (N, K), finite, of all images.
        step: of the rounded logits; 0 where they are not rounded.

    >>> quantum(torch.tensor([[0.0, 510.0]]), 0.5)
    2.0
    """
    ranges = logits_NK.amax(dim=1) - logits_NK.amin(dim=1)
    return max(step, float(ranges.median()) / _NUM_STEPS_OF_A_RANGE)


def num_far(num_images: int) -> int:
    """Of how many images the logits may move by more than `MAX_QUANTA`.

    >>> num_far(4), num_far(16), num_far(64), num_far(1000)
    (1, 2, 3, 50)
    """
    return min(max(NUM_FAR, int(FAR_RATE * num_images)), int(FAR_SHARE_OF_FEW * num_images))


def in_quanta(other_NK: Tensor, logits_NK: Tensor, step: float) -> str:
    """The figures of a comparison of a quantised network, for people.

    Args:
        other_NK: what should be the same.
        logits_NK: float32 (N, K), finite.
        step: see :func:`quantum`.
    """
    size = quantum(logits_NK, step)
    largest = (other_NK - logits_NK).abs().amax(dim=1)
    moved = int((largest > rounding(logits_NK)).sum())
    num_other = int((other_NK.argmax(dim=1) != logits_NK.argmax(dim=1)).sum())
    return (
        f"one image at a time, {moved} of {len(logits_NK)} images have other logits, by at most "
        f"{float(largest.max()) / size:.2g} quanta of {size:.3g} ({MAX_QUANTA} are allowed, "
        f"{MAX_FAR_QUANTA} on {num_far(len(logits_NK))} images); {num_other} have another class"
    )


def difference(
    other_NK: Tensor, logits_NK: Tensor, step: float | None = None
) -> tuple[str, Tensor]:
    """How two outputs for the same images differ beyond rounding, in words, and where.

    The predicted class may only differ where the two highest logits are closer than rounding.

    Args:
        other_NK: anything that should be the same.
        logits_NK: float32 (N, K), finite.
        step: of the logits of a network that rounds to whole steps inside (0 where they are not
            rounded themselves); None for a network that rounds nothing.

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
    if step is not None:
        tolerance = tolerance + MAX_QUANTA * quantum(logits_NK, step)
    is_far = largest > tolerance
    if step is not None and int(is_far.sum()) <= num_far(len(logits_NK)):
        is_far = largest > rounding(logits_NK) + MAX_FAR_QUANTA * quantum(logits_NK, step)
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
