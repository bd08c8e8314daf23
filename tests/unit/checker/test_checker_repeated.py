"""Steps that were read as another function, or deployed as another sum, than their bounds said."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from written_nets import Written

from corobench.benchmark.certify.checker.curves import Smooth, celu
from corobench.benchmark.certify.checker.intervals import Interval, UncheckableError
from corobench.benchmark.certify.checker.layers import Add, Scale
from corobench.benchmark.certify.checker.reading import read_network
from corobench.benchmark.certify.checker.roots import MatrixProduct

SHAPE = (4, 1, 4)


def length(x: Tensor) -> Tensor:
    """sqrt(mean(x**2) + 0.01) of every row, four times."""
    return torch.sqrt((x * x).mean(3, keepdim=True) + 0.01).expand(-1, 4, 4, 1)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x / length(x)).sum(2).flatten(1),
        lambda x: (x * torch.reciprocal(length(x))).sum(2).flatten(1),
        lambda x: (
            (torch.rsqrt((x * x).sum(3, True) + 0.01).expand(-1, 4, 4, 1) * x).sum(2).flatten(1)
        ),
    ],
    ids=["quotient", "reciprocal", "rsqrt"],
)
def test_a_divisor_repeats_what_it_divides(function: Callable[[Tensor], Tensor]) -> None:
    """Rows of shape (4, 1, 4) by lengths of shape (4, 4, 1) are four of each."""
    image = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    point = image.double().numpy()
    last = read_network(Written(function).eval(), SHAPE).bounds(point, point).values[-1]
    logits = function(image).numpy()
    assert (last.low <= logits).all() and (logits <= last.high).all()
    assert (last.high - last.low < 1e-3).all()


@pytest.mark.parametrize("power", [torch.pow, lambda x, y: x**y])
def test_an_exponent_that_depends_on_the_image_is_no_number(power: Callable[..., Tensor]) -> None:
    model = Written(lambda x: power(x.flatten(1) + 0.5, x.flatten(1) + 7.0)).eval()
    with pytest.raises(UncheckableError):
        read_network(model, SHAPE)


class Biased(nn.Module):
    """Each image with a bias of its own, which torch allows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(16))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return F.linear(x, self.weight, x * 0.5)


def test_a_bias_that_depends_on_the_image_is_no_number() -> None:
    assert Biased()(torch.ones(2, *SHAPE)).shape == (2, 16)
    with pytest.raises(UncheckableError, match="bias"):
        read_network(Biased().eval(), SHAPE)


def at(*values: np.ndarray) -> list[Interval]:
    return [Interval(value, value) for value in values]


def test_a_summand_may_come_before_the_products() -> None:
    """1024 and 4,096 products of little more than half a step each, in float32."""
    num, product = 4096, np.float32(1.25 * 2.0**-14)
    total = np.float32(1024)
    for _ in range(num):
        total = np.float32(total + product)
    first, second = np.ones((1, 1, num)), np.full((1, num, 1), float(product))
    found = MatrixProduct().bounds(at(first, second))
    found = Add().bounds([found, *at(np.full((1, 1, 1), 1024.0))])
    assert total > 1024 + 1.3 * num * float(product)
    assert found.low[0, 0, 0] <= total <= found.high[0, 0, 0]


def test_factors_may_be_multiplied_with_the_products() -> None:
    """As onnxruntime rewrites a product of two scaled matrices: its products are no float32."""
    value, factor = 2.0**-76, 2.0**62
    scale = Scale(np.full((), factor), np.zeros(()))
    operand = scale.bounds(at(np.full((1, 2, 2), value)))
    found = MatrixProduct().bounds([operand, operand])
    with np.errstate(under="ignore"):
        product = np.float32(2) * np.float32(value) * np.float32(value)
        deployed = product * np.float32(factor) * np.float32(factor)
    assert deployed == 0 and (found.low <= deployed).all()


def test_factors_as_one_may_be_flushed_to_zero() -> None:
    """2**-70 twice, whose product is no float32, and 2**100 behind the sum."""
    scale = Scale(np.full((), 2.0**-70), np.zeros(()))
    operand = scale.bounds(at(np.full((1, 2, 2), 2.0**60)))
    found = MatrixProduct().bounds([operand, operand])
    found = Scale(np.full((), 2.0**30), np.zeros(())).bounds([found])
    assert not (found.low > 0).any()


def test_a_celu_may_divide_first() -> None:
    """alpha elu(z / alpha) of 2**60 and alpha 2**-80, in float32."""
    alpha, z = 2.0**-80, 2.0**60
    with np.errstate(over="ignore"):
        deployed = np.float32(alpha) * (np.float32(z) / np.float32(alpha))
    found = Smooth(celu(alpha)).bounds(at(np.full((1, 1), z)))
    assert found.low[0, 0] <= deployed <= found.high[0, 0]
    found = Smooth(celu(0.25)).bounds(at(np.full((1, 1), z)))
    assert np.isfinite(found.high).all()
