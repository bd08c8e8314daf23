"""Steps that depend on how many images there are, or overwrite another value, are refused.

For each of them the network of one image, or of several, is another one than the checker read.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from written_nets import Written

from corobench.benchmark.certify.checker.intervals import UncheckableError
from corobench.benchmark.certify.checker.reading import read_network
from corobench.benchmark.certify.checker.rearranging import places_of

SHAPE = (1, 4, 4)


def kept(function: Callable[[Tensor], Tensor], num_images: int) -> bool:
    """Whether what a network gives lies in the checker's intervals at its images."""
    images = torch.rand(num_images, *SHAPE, generator=torch.Generator().manual_seed(0))
    points = images.double().numpy()
    found = read_network(Written(function).eval(), SHAPE).bounds(points, points).values[-1]
    logits = function(images).numpy()
    return bool(((found.low <= logits) & (logits <= found.high)).all())


def rows_of_four(x: Tensor) -> Tensor:
    """Means of four values where four rows are taken for images."""
    rows = x.flatten(1).view(4, -1)
    return (rows - rows.mean(1, keepdim=True)).view(-1, 16)


def overwritten(x: Tensor) -> Tensor:
    first = torch.relu(x.view(-1, 16, 1, 1))
    second = first * 2.0
    largest = torch.amax(first, (2, 3), keepdim=True, out=second)
    return (second + largest).flatten(1)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (rows_of_four, "a reshape that mixes images"),
        (lambda x: x.reshape((2, -1)).reshape(-1, 16), "a reshape that mixes images"),
        (lambda x: x.squeeze().mean(1).view(-1, 4), "mixes images"),
        (lambda x: torch.squeeze(x).softmax(1).reshape(-1, 16), "mixes images"),
        (lambda x: x.squeeze()[:, :2].reshape(-1, 8), "mixes images"),
        (lambda x: torch.split(x, 2)[0].flatten(1), "mixes images"),
        (lambda x: x.narrow(0, 0, 2).flatten(1), "rearrangement"),
        (lambda x: x.flatten(1)[:, : x.shape[0]], "number of images"),
        (lambda x: x.squeeze(1).mean(x.size(0)), "number of images"),
        (lambda x: x.view(-1, 1, 16).expand(-1, x.size(0), -1).sum(1), "number of images"),
        (lambda x: x.flatten(1).chunk(x.size(0), 1)[0], "number of images"),
        (overwritten, "the keyword out of amax"),
        (lambda x: torch.clamp_min(x, 0.5, out=x).flatten(1), "the keyword out of clamp_min"),
    ],
)
def test_what_depends_on_the_number_of_images_is_refused(function, text) -> None:
    with pytest.raises(UncheckableError, match=text):
        read_network(Written(function).eval(), SHAPE)


@pytest.mark.parametrize("step", [lambda x: x[..., : len(x)], lambda x: [x] * len(x)])
def test_a_step_that_does_another_thing_to_two_images_is_refused(step) -> None:
    with pytest.raises(UncheckableError, match="depends on the number of images"):
        places_of(step, SHAPE)


@pytest.mark.parametrize("num_images", [1, 2, 3])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.view(x.shape[0], -1),
        lambda x: x.view(x.shape).flatten(1),
        lambda x: x.reshape(x.size(0), 16),
        lambda x: x.squeeze(1).transpose(1, 2).reshape(-1, 16),
        lambda x: x.expand(x.shape[0], 2, -1, -1).reshape(x.size(0), -1),
        lambda x: x.flatten(1).chunk(2, 1)[1],
    ],
)
def test_the_number_of_images_is_a_first_size(function, num_images: int) -> None:
    assert kept(function, num_images)
