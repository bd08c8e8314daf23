"""One spelling for every affine chain, so that bounds do not depend on how an exporter writes it.

A bias may be written as a product and a sum, a normalisation as numbers at the image, a constant in
any shape that is broadcast, on either side. Here each chain of such steps becomes part of the
convolution or linear layer beside it, or one batch-norm where there is none. Claims are made on
what comes out; the checker always reads the network as it was submitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from corobench.benchmark.certify.folding_forms import (
    Form,
    Traced,
    forms_of,
    is_plain,
    layer_of,
    traced,
)
from corobench.benchmark.network.prepare import SAME_FUNCTION_TOLERANCE, freeze


def fold_affine(model: nn.Module, input_shape: Sequence[int]) -> nn.Module:
    """The same function with its affine chains folded, or the model itself.

    Args:
        model: from `benchmark.network.prepare`, for float32 inputs (B, *input_shape) in [0, 1].
        input_shape: (C, H, W).

    Returns:
        A network that shares weights with the model and gives its logits up to
        SAME_FUNCTION_TOLERANCE; the model where nothing can be folded, or that does not hold.
    """
    tensor = next(iter(model.state_dict().values()), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    example = torch.rand(2, *input_shape, generator=generator).to(tensor.device)
    with torch.no_grad():
        try:
            found = traced(model, example)
            folded = _Folding(found).run()
            if folded is None:
                return model
            expected, logits = model(example), folded(example)
        except Exception:  # the forward pass is a stranger's: anything may be raised
            return model
    scale = max(1.0, float(expected.abs().max()))
    same = expected.shape == logits.shape and bool(
        ((expected - logits).abs() <= SAME_FUNCTION_TOLERANCE * scale).all()
    )
    return freeze(folded.eval()) if same else model


@dataclass
class _Folding:
    """The graph while it is rewritten."""

    traced: Traced
    forms: dict[fx.Node, Form] = field(default_factory=dict)
    num_new: int = 0

    @property
    def graph(self) -> fx.Graph:
        return self.traced.module.graph

    def run(self) -> nn.Module | None:
        """The rewritten network; None where there was nothing to do."""
        for node in list(self.graph.nodes):
            layer = layer_of(self.traced, node)
            if layer is not None:
                source = self.traced.activation(node)
                self._put(node, layer, source)
        self.forms = forms_of(self.traced)
        if not self.num_new and all(is_plain(self.traced, node) for node in self.forms):
            return None
        for node in list(self.graph.nodes):
            self._fold_behind(node)
        for node in list(self.graph.nodes):
            self._fold_before(node)
        for node in list(self.graph.nodes):
            self._join(node)
        self._write_rest()
        self.graph.eliminate_dead_code()
        self.graph.lint()
        self.traced.module.delete_all_unused_submodules()
        self.traced.module.recompile()
        return self.traced.module

    # --- into layers ---

    def _layer(self, node: fx.Node) -> nn.Conv2d | nn.Linear | None:
        """The convolution or linear layer of a node; a linear one on one axis only."""
        module = self.traced.module_at(node)
        if type(module) is nn.Linear and len(self.traced.shapes[node]) == 1:
            return module
        if type(module) is nn.Conv2d and module.padding_mode == "zeros":
            return module
        return None

    def _fold_behind(self, node: fx.Node) -> None:
        """What follows a layer, and nothing else does, becomes part of it."""
        layer, last, form = self._layer(node), node, None
        if layer is None:
            return
        while len(last.users) == 1:
            (user,) = last.users
            found = self.forms.get(user)
            if found is None or found.source is not node or user.op == "output":
                break
            if found.per_channel(self.traced.shapes[node]) is None:
                break
            last, form = user, found
        if form is None:
            return
        pair = form.per_channel(self.traced.shapes[node])
        assert pair is not None
        scale, shift = pair
        weight = layer.weight.double()
        shape = (-1, *[1] * (weight.ndim - 1))
        bias = _bias(layer) * scale + shift
        self._put(node, _like(layer, weight * scale.reshape(shape), bias), node.all_input_nodes[0])
        self._move(last, node)
        self.forms = forms_of(self.traced)

    def _fold_before(self, node: fx.Node) -> None:
        """What stands before a layer becomes part of it, where a border of zeros allows."""
        layer = self._layer(node)
        source = node.all_input_nodes[0] if layer is not None else None
        form = self.forms.get(source) if source is not None else None
        if layer is None or form is None:
            return
        pair = form.per_channel(self.traced.shapes[form.source])
        if pair is None:
            return
        scale, shift = pair
        weight, bias = layer.weight.double(), _bias(layer)
        if isinstance(layer, nn.Linear):
            new = _like(layer, weight * scale, bias + weight @ shift)
        else:
            if bool((shift != 0).any()) and _is_padded(layer):
                return
            scale, shift = (_by_group(one, layer) for one in pair)
            moved = (weight * shift).sum(dim=(1, 2, 3))
            new = _like(layer, weight * scale, bias + moved)
        self._put(node, new, form.source)

    def _join(self, node: fx.Node) -> None:
        """A linear layer that alone reads another one becomes one with it, if that is smaller."""
        layer = self._layer(node)
        source = node.all_input_nodes[0] if layer is not None else None
        before = self._layer(source) if source is not None else None
        if not isinstance(layer, nn.Linear) or not isinstance(before, nn.Linear):
            return
        assert source is not None
        if len(source.users) != 1 or layer.out_features > before.out_features:
            return
        weight = layer.weight.double() @ before.weight.double()
        bias = _bias(layer) + layer.weight.double() @ _bias(before)
        self._put(node, _like(before, weight, bias), source.all_input_nodes[0])

    # --- what is left ---

    def _write_rest(self) -> None:
        """Steps that no layer took become one batch-norm, or nothing."""
        for node, form in self.forms.items():
            if not node.users or is_plain(self.traced, node):
                continue
            if form.is_identity():
                self._move(node, form.source)
                continue
            modules = form.modules(self.traced.shapes[node])
            last = form.source
            with self.graph.inserting_before(node):
                for module in modules:
                    last = self.graph.call_module(self._add(module), (last,))
                    self.traced.shapes[last] = self.traced.shapes[node]
            self._move(node, last)

    def _put(self, node: fx.Node, layer: nn.Module, source: fx.Node) -> None:
        """A layer of its own for a node."""
        node.op, node.target = "call_module", self._add(layer)
        node.args, node.kwargs = (source,), {}

    def _move(self, old: fx.Node, new: fx.Node) -> None:
        old.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)

    def _add(self, module: nn.Module) -> str:
        name = f"folded{self.num_new}"
        self.num_new += 1
        self.traced.module.add_submodule(name, module)
        return name


def _bias(layer: nn.Conv2d | nn.Linear) -> Tensor:
    if layer.bias is None:
        return layer.weight.new_zeros(len(layer.weight), dtype=torch.float64)
    return layer.bias.double()


def _like(layer: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor) -> nn.Module:
    """The same kind of layer with other numbers."""
    found: nn.Module
    with torch.device("meta"):
        if isinstance(layer, nn.Linear):
            found = nn.Linear(weight.shape[1], weight.shape[0])
        else:
            settings: Mapping[str, Any] = {
                key: getattr(layer, key) for key in ("stride", "padding", "dilation", "groups")
            }
            height, width = layer.kernel_size
            size = (height, width)
            found = nn.Conv2d(layer.in_channels, layer.out_channels, size, **settings)
    found.weight = nn.Parameter(weight.float(), requires_grad=False)
    found.bias = nn.Parameter(bias.float(), requires_grad=False)
    return found.eval()


def _is_padded(layer: nn.Conv2d) -> bool:
    if isinstance(layer.padding, str):
        return layer.padding != "valid"
    return any(pad != 0 for pad in layer.padding)


def _by_group(channels: Tensor, layer: nn.Conv2d) -> Tensor:
    """One number per input channel, as the weights of each output channel meet them."""
    groups = channels.reshape(layer.groups, -1)
    rows = groups.repeat_interleave(layer.out_channels // layer.groups, dim=0)
    return rows[:, :, None, None]
