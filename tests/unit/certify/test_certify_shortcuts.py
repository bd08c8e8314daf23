"""What makes CROWN cheaper changes no bound beyond rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from certify_nets import Normalize, boxes, cnn, seeded
from torch import Tensor, nn

from corobench.benchmark.certify import BoundedModel, batch_sizes
from corobench.benchmark.certify.lirpa import graph as lirpa_graph
from corobench.benchmark.certify.lirpa.graph import intermediate_bounds
from corobench.benchmark.certify.lirpa.patches import patch_attributes

SHAPE = (3, 8, 8)


@pytest.fixture(scope="module")
def normalised() -> nn.Module:
    """A network whose first layer reads the normalised image."""
    torch.manual_seed(4)
    return nn.Sequential(
        Normalize([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]), *seeded(lambda: cnn(SHAPE))
    ).eval()


def _margins(model: nn.Module, num_at_once: int = 5) -> Tensor:
    x, low, high = boxes(SHAPE, 0.03, num=5)
    with torch.no_grad():
        labels = model(x).argmax(dim=1)
    bounded = BoundedModel(model, SHAPE, 10)
    parts = zip(*(part.split(num_at_once) for part in (low, high, labels)), strict=True)
    return torch.cat([bounded.margins("CROWN", *part) for part in parts])


def test_the_first_layers_bounds_are_exact(normalised: nn.Module) -> None:
    x, low, high = boxes(SHAPE, 0.03, num=1)
    with torch.no_grad():
        label = normalised(x).argmax(dim=1)
    bounded = BoundedModel(normalised, SHAPE, 10)
    bounded.margins("CROWN", low, high, label)
    found = next(iter(intermediate_bounds(bounded._module("CROWN")).values()))
    found_low, found_high = (side[0].flatten() for side in found)
    conv = next(layer for layer in normalised.modules() if isinstance(layer, nn.Conv2d))
    with torch.no_grad():
        centre = normalised[0]((low + high).double() / 2)
        radius = normalised[0](high.double()) - centre
        middle = nn.functional.conv2d(
            centre, conv.weight.double(), conv.bias.double(), conv.stride, conv.padding
        ).flatten()
        around = nn.functional.conv2d(
            radius, conv.weight.double().abs(), None, conv.stride, conv.padding
        ).flatten()
    torch.testing.assert_close(found_low.double(), middle - around, atol=1e-5, rtol=0)
    torch.testing.assert_close(found_high.double(), middle + around, atol=1e-5, rtol=0)


def test_the_library_bounding_the_first_layer_anew_finds_the_same(
    normalised: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _margins(normalised)
    asked: list[int] = []

    def none(module: Any, found: Any) -> list[str]:
        asked.append(len(found))
        return []

    monkeypatch.setattr(lirpa_graph, "_first_layers", none)
    torch.testing.assert_close(_margins(normalised), expected, atol=1e-5, rtol=0)
    assert asked


@pytest.mark.parametrize("together", [1, 2, 8])
def test_images_that_go_together_change_no_bound(
    together: int, normalised: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _margins(normalised, num_at_once=1)
    monkeypatch.setattr(batch_sizes, "crown_together", lambda num_hidden: together)
    torch.testing.assert_close(_margins(normalised), expected, atol=1e-5, rtol=0)


class _Node(nn.Module):
    """A graph node with a property, as later releases of the library have."""

    def __init__(self) -> None:
        super().__init__()
        self.lower: Tensor | None = None

    @property
    def upper(self) -> str:
        return self._upper

    @upper.setter
    def upper(self, value: str) -> None:
        self._upper = f"set to {value}"


def test_attributes_of_nodes_are_found_where_torch_puts_them() -> None:
    class Patched(_Node):
        pass

    patch_attributes(Patched)
    node = Patched()
    node.lower = torch.zeros(2)
    node.upper = "1"
    node.weight = nn.Parameter(torch.ones(2))
    node.register_buffer("mean", torch.ones(3))
    node.mean = torch.zeros(3)
    node.inner = nn.Linear(1, 1)
    assert node.upper == "set to 1"
    assert [name for name, _ in node.named_parameters()] == ["weight", "inner.weight", "inner.bias"]
    assert torch.equal(dict(node.named_buffers())["mean"], torch.zeros(3))
    node.weight = None
    assert node.weight is None and "weight" in node._parameters
    node.lower = nn.Parameter(torch.ones(1))  # an attribute that becomes a parameter
    assert "lower" in node._parameters and "lower" not in vars(node)
    del node.inner
    assert not hasattr(node, "inner")
