"""Square's quicker steps end at the images of the library's own loop."""

from typing import Any

import pyautoattack
import pytest
import torch
from torch import Tensor, nn

from corobench.benchmark.attacks.square import draw_squares, quicken, side, stripes

SHAPES = ((1, 8, 8), (3, 12, 10))


def _network(shape: tuple[int, int, int]) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(shape[0], 6, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)
    ).eval()


def _square(network: nn.Module, queries: int = 200, epsilon: float = 0.05) -> Any:
    suite = pyautoattack.AutoAttack(
        network, norm="Linf", eps=epsilon, seed=5, version="standard", device="cpu"
    )
    suite.square.n_queries = queries
    return suite.square


def _images(network: nn.Module, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    x = torch.rand(24, *shape)
    x[0], x[1] = 0.0, 1.0  # the ball is cut by the cube
    with torch.no_grad():
        return x, network(x).argmax(dim=1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("epsilon", [0.001, 0.02, 0.05, 0.6], ids=str)
def test_images_are_those_of_the_library(shape: tuple[int, int, int], epsilon: float) -> None:
    network = _network(shape)
    x, y = _images(network, shape)
    square = _square(network, epsilon=epsilon)
    expected = square.perturb(x, y)
    quicken(square)
    assert torch.equal(square.perturb(x, y), expected)


def test_some_of_these_break_early_some_late_and_some_never() -> None:
    network = _network(SHAPES[0])
    x, y = _images(network, SHAPES[0])
    broken = []
    for queries in (1, 20, 200):
        square = _square(network, queries)
        quicken(square)
        with torch.no_grad():
            broken.append(int((network(square.perturb(x, y)).argmax(dim=1) != y).sum()))
    assert 0 < broken[0] < broken[1] < broken[2] < len(x)


@pytest.mark.parametrize("queries", [0, 1])
def test_no_query_leaves_the_start(queries: int) -> None:
    network = _network(SHAPES[0])
    x, y = _images(network, SHAPES[0])
    square = _square(network, queries)
    expected = square.perturb(x, y)
    quicken(square)
    assert torch.equal(square.perturb(x, y), expected)


def test_squares_lie_within_the_image() -> None:
    square = _square(_network(SHAPES[1]))
    _, height, width = SHAPES[1]
    corners, signs = draw_squares(square, SHAPES[1])
    for step, (row, column) in enumerate(corners):
        length = side(square, step, SHAPES[1])
        assert 0 <= row <= height - length and 0 <= column <= width - length
    assert set(signs.flatten().tolist()) == {-1.0, 1.0}
    assert stripes(square, (7, *SHAPES[1])).shape == (7, 3, 1, 10)


@pytest.mark.parametrize(
    "other", [{"norm": "L2"}, {"loss": "ce"}, {"n_restarts": 2}, {"targeted": True}], ids=str
)
def test_another_attack_keeps_the_loop_of_the_library(other: dict[str, Any]) -> None:
    square = _square(_network(SHAPES[0]))
    vars(square).update(other)
    before = square.attack_single_run
    quicken(square)
    assert square.attack_single_run == before
