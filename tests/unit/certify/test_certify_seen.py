"""Neurons are bounded on the part of a net that they see: with the same outcome, on less of it."""

from __future__ import annotations

import pytest
import torch
from certify_nets import PreActivation, Residual, boxes, relu_bounds, seeded
from torch import nn

from corobench.benchmark.certify.bab import seen as seeing
from corobench.benchmark.certify.bab.budget import Ascent
from corobench.benchmark.certify.bab.reduced import ReducedNet, reduce_net
from corobench.benchmark.certify.bab.seen import Sight
from corobench.benchmark.certify.bab.tightening import tightened
from corobench.benchmark.certify.margin_spec import margin_spec
from corobench.benchmark.network.prepare import prepare

SHAPE, SMALL = (1, 16, 16), (1, 8, 8)


def deep() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 12),
        nn.ReLU(),
        nn.Linear(12, 4),
    )


def reduced(build, shape: tuple[int, ...]) -> ReducedNet:
    """With weights so large that neurons of all layers are unstable."""
    model = seeded(build, 3)
    for parameter in model.parameters():
        parameter.data *= 2.0 if parameter.ndim > 1 else 1.0
    _, low, high = boxes(shape, 0.1, num=1)
    spec = margin_spec(torch.tensor([0]), 4)[0]
    with torch.no_grad():
        return reduce_net(
            prepare(model, shape), low[0], high[0], relu_bounds(model, low, high), spec
        )


NETS = {
    "deep": (deep, SHAPE),
    "residual": (Residual, SMALL),
    "pre-activation": (PreActivation, SMALL),
}


@pytest.mark.parametrize("name", NETS)
def test_bounds_of_neurons_are_those_on_the_whole_net(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, shape = NETS[name]
    net = reduced(build, shape)
    monkeypatch.setattr(seeing, "WORTH_IT", -1.0)
    whole = tightened(net, Ascent(12))
    monkeypatch.setattr(seeing, "WORTH_IT", 1.0)
    part = tightened(net, Ascent(12))
    close = {"atol": 2e-5, "rtol": 1e-4}
    torch.testing.assert_close(part.net.lower_N, whole.net.lower_N, **close)
    torch.testing.assert_close(part.net.upper_N, whole.net.upper_N, **close)
    for one, other in zip(part.lines, whole.lines, strict=True):
        assert one.slope_RX.shape == other.slope_RX.shape
        torch.testing.assert_close(one.centre_R, other.centre_R, **close)
    for one, other in zip(part.slopes[1:], whole.slopes[1:], strict=True):
        assert one.shape == other.shape and bool(((one >= 0) & (one <= 1)).all())


def test_a_part_gives_what_the_whole_net_gives() -> None:
    """On every image, for rows that see little of it, in any order and more than once."""
    net = reduced(deep, SHAPE)
    first = net.layers[2]
    rows = torch.zeros(5, net.num_inputs + net.num_unstable)
    picked = torch.tensor([3, 0, 3, 5, 2])
    before = net.couplings[2].matrix
    rows[:, : before.shape[1]] = before[picked]
    asked = ReducedNet(**{**vars(net), "spec": rows, "spec_bias_S": net.bias_N[first][picked]})
    order = torch.tensor([4, 1, 1])
    seen = Sight(asked).of(order)
    assert len(seen.inputs) < 0.7 * net.num_inputs
    assert len(seen.neurons) == seen.net.num_unstable < net.num_unstable
    x = net.mid_X[:, None] + net.rad_X[:, None] * (2 * torch.rand(net.num_inputs, 50) - 1)
    torch.testing.assert_close(seen.net.forward(x[seen.inputs]), asked.forward(x)[order])


def test_rows_of_one_place_are_in_one_group_and_none_is_left_out() -> None:
    net = reduced(deep, SHAPE)
    layer = net.layers[1]
    before = net.couplings[1].matrix
    rows = torch.zeros(len(before), net.num_inputs + net.num_unstable)
    rows[:, : before.shape[1]] = before
    asked = ReducedNet(**{**vars(net), "spec": rows, "spec_bias_S": net.bias_N[layer]})
    groups = Sight(asked).groups(len(before), 8)
    assert max(map(len, groups)) == 8
    assert torch.cat(groups).sort().values.tolist() == list(range(len(before)))
    first = (rows[:, : net.num_inputs] != 0).to(torch.uint8).argmax(dim=1)[torch.cat(groups)]
    assert bool((first.diff() >= 0).all())
