"""A checked ONNX graph to a network, value by value.

Every value of the file is one of: a stored tensor; an activation, followed by its shape on torch's
"meta" device, where nothing is computed; or stored tensors in whole numbers that a pair of
QuantizeLinear and DequantizeLinear makes of either. Shapes are computed while the file is read, so
that what is left are the layers.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from corobench.benchmark.network.sizes import Codes
from corobench.benchmark.submission.graph.choosing import (
    COMPARISONS,
    Condition,
    softplus_threshold,
)
from corobench.benchmark.submission.graph.constants import constant_of, fold
from corobench.benchmark.submission.graph.description import described
from corobench.benchmark.submission.graph.fusions import require_as_written
from corobench.benchmark.submission.graph.input_layout import InputLayout, layout_of
from corobench.benchmark.submission.graph.joining import filled, split_of
from corobench.benchmark.submission.graph.layers import (
    GraphNetwork,
    Reshape,
    Transpose,
)
from corobench.benchmark.submission.graph.normalisation import with_normalisation
from corobench.benchmark.submission.graph.operators import module_of, reshape_of
from corobench.benchmark.submission.graph.quantised import (
    Quantised,
    dequantise,
    quantise,
    require_bias,
    require_rounded,
)
from corobench.benchmark.submission.graph.reading import Graph, Node, read_graph
from corobench.benchmark.submission.graph.rules import MAX_ACTIVATION, OPERATORS, GraphFaultError
from corobench.benchmark.submission.graph.shapes import shape_of
from corobench.benchmark.submission.graph.sizes import (
    BATCH,
    holds_batch,
    require_known,
    require_whole,
)
from corobench.benchmark.submission.graph.table import Shape


@dataclass(frozen=True)
class Activation:
    """A value that depends on the image: the number of the step that makes it, and its shape."""

    number: int
    shape: Shape


_MOVING = (Reshape, Transpose, nn.Flatten, nn.Identity, nn.MaxPool2d)

Value = Activation | Condition | Quantised | np.ndarray


@dataclass(frozen=True, eq=False)
class GraphModel:
    """A network read from an ONNX file.

    Attributes:
        network: in eval mode, float32.
        image_shape: channels, height, width.
        layout: how images go into the file; the network takes them as (B, *image_shape).
        notes: what is computed otherwise than one might expect, for people.
        output_shape: of the output for one image; (classes,) for logits.
        description: its steps and how they are wired, as text; equal graphs have equal text.
        is_quantised: whether values between layers are rounded, or weights stored as codes.
        is_rounded: whether values between layers are rounded to whole steps.
        codes: weights that the file holds as 8-bit whole numbers.
        batch: the one batch size the file is made for, or None.
    """

    network: nn.Module
    image_shape: tuple[int, int, int]
    output_shape: Shape
    description: str
    is_quantised: bool
    is_rounded: bool
    codes: Codes
    batch: int | None
    layout: InputLayout
    notes: tuple[str, ...] = ()

    def sha256(self, weights_sha256: str) -> str:
        """The hash that identifies the graph together with its weights, 64 hex digits."""
        text = f"onnx\n{self.description}\n{weights_sha256}"
        return hashlib.sha256(text.encode()).hexdigest()


def read_network(content: bytes, image_shape: tuple[int, int, int] | None = None) -> GraphModel:
    """The network in an ONNX file.

    Args:
        content: the file.
        image_shape: channels, height, width of the images that it is for, which it may take in
            another order (`input_layout`); by default its own.

    Raises:
        GraphFaultError: the first rule of RULES.md that the file breaks.
    """
    graph = read_graph(content)
    try:
        return _Builder(graph, layout_of(graph.input_shape, image_shape)).build()
    except GraphFaultError:
        raise
    except Exception as error:  # no file of a stranger may end in a traceback
        raise GraphFaultError(
            "onnx-damaged",
            f"expected a network, but its parts do not fit together ({type(error).__name__})",
        ) from error


@dataclass
class _Builder:
    graph: Graph
    layout: InputLayout
    steps: list[nn.Module] = field(default_factory=list)
    sources: list[tuple[int, ...]] = field(default_factory=list)
    lines: list[Any] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    shared: dict[tuple[object, ...], nn.Parameter] = field(default_factory=dict)
    coded: dict[int, tuple[np.ndarray, int]] = field(default_factory=dict)
    codes: Codes = field(default_factory=lambda: Codes(0, 0))
    scales: dict[int, tuple[np.ndarray, np.ndarray, bool]] = field(default_factory=dict)
    decoded: dict[int, tuple[np.ndarray, int]] = field(default_factory=dict)
    of_batch: dict[int, np.ndarray] = field(default_factory=dict)
    num_made: int = 0
    num_stored: int = 0
    uses: dict[int, list[int]] = field(default_factory=dict)

    def build(self) -> GraphModel:
        graph = self.graph
        self.values = dict(graph.constants)
        self.num_stored = sum(array.size for array in graph.constants.values())
        image = Activation(0, (BATCH, *self.layout.image_shape))
        for module in self.layout.modules():
            image = self._step(Node("", (), "", label="the image"), module, [image])
        self.values[graph.image] = image
        for node in graph.nodes:
            if node.op == "Split":
                self._split(node)
            else:
                self.values[node.output] = self._value(node)
        logits = self.values[graph.logits]
        if not isinstance(logits, Activation) or logits.number == 0:
            raise GraphFaultError("onnx-output", "expected logits that depend on the image")
        network = self._network(logits.number)
        is_rounded = any(line[0] == "Quantise" for line in self.lines)
        return GraphModel(
            network=network.eval().requires_grad_(False),
            image_shape=self.layout.image_shape,
            output_shape=logits.shape[1:],
            description=json.dumps(self.lines, separators=(",", ":"), sort_keys=True),
            is_quantised=is_rounded or bool(self.coded),
            is_rounded=is_rounded,
            codes=self.codes,
            batch=graph.batch,
            layout=self.layout,
            notes=self._notes(),
        )

    def _notes(self) -> tuple[str, ...]:
        notes = [self.layout.note] if self.layout.note else []
        stored = [*self.graph.constants.values()]
        num = sum(array.size for array in stored if array.dtype == np.float16)
        if num:
            notes.append(
                f"{num:,} numbers are stored as float16 and computed with in float32, as the Cast "
                "operators of the file say"
            )
        return tuple(notes)

    def _value(self, node: Node) -> Value:
        if node.op == "Constant":
            return constant_of(node)
        operands = [self.values[name] if name else None for name in node.inputs]
        if not operands or operands[0] is None:
            raise GraphFaultError("onnx-order", f"{node.label}: expected an operand")
        if node.op in ("QuantizeLinear", "DequantizeLinear"):
            return self._rounded(node, operands)
        if any(isinstance(value, Quantised) for value in operands):
            raise GraphFaultError(
                "onnx-quantised",
                f"{node.label}: its operands are integers; expected DequantizeLinear before it "
                "(QDQ)",
            )
        self._require_bias(node, operands)
        if node.op in COMPARISONS and len(operands) == 2:
            return Condition(node, (operands[0], operands[1]))
        if isinstance(operands[0], Condition) and node.op == "Where":
            return self._choice(node, operands)
        if any(isinstance(value, Condition) for value in operands):
            raise GraphFaultError(
                "onnx-operator", f"{node.label}: a comparison is supported for Where alone"
            )
        if not any(isinstance(value, Activation) for value in operands):
            arrays = [value for value in operands if isinstance(value, np.ndarray)]
            require_whole(node, [array for array in arrays if id(array) in self.of_batch])
            if node.op in ("ConstantOfShape", "Expand"):
                found = self._made(node, filled(node, arrays))
                if any(holds_batch(array) for array in arrays):
                    self.of_batch[id(found)] = found
                return found
            found = fold(node, arrays)
            num_scales = max(self.decoded.get(id(array), (array, 0))[1] for array in arrays)
            if num_scales:
                self.decoded[id(found)] = (found, num_scales)
            is_view = any(np.may_share_memory(found, array) for array in arrays)
            return found if is_view else self._made(node, found)
        return self._on_activations(node, operands)

    def _made(self, node: Node, found: np.ndarray) -> np.ndarray:
        """Values made while the file is read; of all together there is a limit.

        A tensor that is stored may be cast once and masked once.
        """
        self.num_made += found.size
        if self.num_made > MAX_ACTIVATION + 2 * self.num_stored:
            raise GraphFaultError("onnx-too-large", f"{node.label}: makes too many values")
        return found

    def _on_activations(self, node: Node, operands: list[Value | None]) -> Value:
        first = operands[0]
        if node.op == "Shape" and isinstance(first, Activation):
            start, end = node.attributes.get("start", 0), node.attributes.get("end")
            return np.array(first.shape[start:end], dtype=np.int64)
        is_kept = node.op == "Cast" and node.attributes.get("to") == 1
        if node.op in ("Identity", "Dropout") or is_kept:
            if node.op == "Dropout" and len(operands) > 2 and np.any(np.asarray(operands[2])):
                raise GraphFaultError("onnx-training", f"{node.label}: is in training mode")
            assert isinstance(first, Activation)
            return first
        if node.op not in (*OPERATORS, "Gather") or node.op in (*COMPARISONS, "Where"):
            raise GraphFaultError(
                "onnx-dynamic", f"{node.label}: is supported for shapes only, not for activations"
            )
        stored = [value if isinstance(value, np.ndarray) else None for value in operands]
        made = [value for value in operands if isinstance(value, Activation)]
        shapes = [value.shape for value in made]
        require_known(node, stored)
        of_batch = [array for array in stored if id(array) in self.of_batch]
        require_whole(node, [array for array in of_batch if array is not None], len(shapes[0]))
        if node.op == "Reshape":
            target = stored[1] if len(stored) > 1 else None
            if target is None or target.ndim != 1 or target.size > 8 or not shapes:
                raise GraphFaultError("onnx-dynamic", f"{node.label}: expected a fixed shape")
            numbers = [int(size) for size in target]
            module = reshape_of(node, numbers, shapes[0], self.graph.batch)
        else:
            module = module_of(node, stored, shapes, self.graph.opset)
        self._require_rounded(node, operands)
        self._share(module, node)
        made_here = self._step(node, module, made)
        # Codes that a step has as a setting, such as a border of one number, save no bytes.
        num_values = sum(tensor.numel() for tensor in module.state_dict().values())
        coded = [array for array in stored if array is not None and id(array) in self.coded]
        if sum(array.size for array in coded) <= num_values:
            self.uses[made_here.number] = [id(array) for array in coded]
        return made_here

    def _require_bias(self, node: Node, operands: list[Value | None]) -> None:
        """Codes in int32 are the bias of a layer in whole numbers, in the scale of its sum."""
        found = [self.scales.get(id(operand)) for operand in operands]
        if any(one is not None and not one[2] for one in found):
            require_bias(node, found, self._before(operands[0], passes=True))

    def _require_rounded(self, node: Node, operands: list[Value | None]) -> None:
        """Matrices of codes multiply rounded values."""
        num_scales = max(self.decoded.get(id(one), (one, 0))[1] for one in operands)
        if num_scales:
            read = next(one for one in operands if isinstance(one, Activation))
            require_rounded(node, num_scales, self._before(read, passes=num_scales == 1))

    def _before(self, value: Value | None, *, passes: bool) -> nn.Module | None:
        """The step that makes a value; with `passes` before those that roundings move over."""
        source = self._made_by(value)
        while passes and source is not None and isinstance(source[0], _MOVING):
            source = self._made_by(Activation(source[1], ()))
        return None if source is None else source[0]

    def _choice(self, node: Node, operands: list[Value | None]) -> Value:
        """A Where on a comparison that is a Softplus with a threshold."""
        condition = operands[0]
        assert isinstance(condition, Condition)
        chosen = operands[1:]
        if len(chosen) != 2 or any(value is None for value in chosen):
            raise GraphFaultError("onnx-order", f"{node.label}: expected each operand")
        threshold = softplus_threshold(condition, chosen, self._made_by(chosen[1]))
        if threshold is None:
            raise GraphFaultError(
                "onnx-operator",
                f"{node.label}: a Where is read as exporters write a Softplus only, as a choice "
                "between values can hide the gradient from attacks; write it with Max, Min, Clip "
                "or LeakyRelu",
            )
        made = [value for value in chosen[:1] if isinstance(value, Activation)]
        return self._step(node, nn.Softplus(beta=1, threshold=threshold), made)

    def _made_by(self, value: Value | None) -> tuple[nn.Module, int] | None:
        """The step that makes a value, and the number of what it reads."""
        found = self._maker(value.number) if isinstance(value, Activation) else None
        return None if found is None else (found[0], found[1][0])

    def _maker(self, number: int) -> tuple[nn.Module, tuple[int, ...]] | None:
        """A step and the numbers of what it reads; None for the image."""
        return None if number == 0 else (self.steps[number - 1], self.sources[number - 1])

    def _split(self, node: Node) -> None:
        """Each part of an activation as a step of its own."""
        operands = [self.values[name] if name else None for name in node.inputs]
        source = operands[0] if operands else None
        if not isinstance(source, Activation):
            raise GraphFaultError(
                "onnx-computed-constant", f"{node.label}: expected an activation as its operand"
            )
        stored = [value if isinstance(value, np.ndarray) else None for value in operands]
        require_known(node, stored)
        parts = split_of(node, stored, source.shape)
        for name, module in zip(node.outputs, parts, strict=True):
            self.values[name] = self._step(node, module, [source])

    def _step(self, node: Node, module: nn.Module, made: list[Activation]) -> Activation:
        """Add a step; its shape says whether its operands fit and the batch is kept."""
        sources = tuple(value.number for value in made)
        require_as_written(node, module, sources, self._maker)
        shape = shape_of(node, module, [value.shape for value in made])
        self.steps.append(module)
        self.sources.append(sources)
        return Activation(len(self.steps), shape)

    def _rounded(self, node: Node, operands: list[Value | None]) -> Value:
        value, *settings = operands
        arrays = [item for item in settings if isinstance(item, np.ndarray)]
        if len(arrays) != sum(item is not None for item in settings):
            raise GraphFaultError("onnx-dynamic", f"{node.label}: expected stored scales")
        if node.op == "QuantizeLinear":
            if not isinstance(value, Activation):
                raise GraphFaultError(
                    "onnx-computed-constant",
                    f"{node.label}: store the integers themselves, as onnxruntime's quantiser does "
                    "without AddQDQPairToWeight",
                )
            return quantise(node, value, arrays, len(value.shape))
        if isinstance(value, Quantised):
            assert isinstance(value.source, Activation)
            module = value.layer(node, arrays)
            return self._step(node, module, [value.source])
        if isinstance(value, np.ndarray):
            found, is_codes = dequantise(node, value, arrays)
            self.scales[id(found)] = (found, arrays[0], is_codes)
            self.decoded[id(found)] = (found, arrays[0].size)
            if is_codes:
                self.coded[id(found)] = (found, arrays[0].size)
            return found
        raise GraphFaultError("onnx-quantised", f"{node.label}: expected integers")

    def _share(self, module: nn.Module, node: Node) -> None:
        """Layers that use the same stored tensor share one parameter, so that it counts once."""
        for name, parameter in list(module.named_parameters()):
            owner_name, _, leaf = name.rpartition(".")
            key = (node.inputs[1:], leaf, tuple(parameter.shape))
            twin = self.shared.setdefault(key, parameter)
            if twin is not parameter and torch.equal(twin, parameter):
                setattr(module.get_submodule(owner_name), leaf, twin)

    def _network(self, last: int) -> nn.Module:
        """The steps that the logits need, as a chain where they are one."""
        needed = {last}
        for number in range(last, 0, -1):
            if number in needed:
                needed |= set(self.sources[number - 1])
        kept = sorted(number for number in needed if number > 0)
        used = {key for number in kept for key in self.uses.get(number, ())}
        self.codes = Codes(
            sum(self.coded[key][0].size for key in used), sum(self.coded[key][1] for key in used)
        )
        renumbered = {0: 0} | {number: position + 1 for position, number in enumerate(kept)}
        steps = [self.steps[number - 1] for number in kept]
        sources = [tuple(renumbered[s] for s in self.sources[number - 1]) for number in kept]
        if 0 not in needed:
            raise GraphFaultError("onnx-output", "expected logits that depend on the image")
        steps, sources = with_normalisation(steps, sources, self.layout.image_shape[0])
        self.lines = described(steps, sources)
        if all(numbers == (position,) for position, numbers in enumerate(sources)):
            return nn.Sequential(*steps)
        return GraphNetwork(steps, sources)
