"""A checked ONNX graph to a network, value by value.

Every value of the file is one of: a stored tensor; an activation, followed by its shape on torch's
"meta" device, where nothing is computed; or stored tensors in whole numbers that a pair of
QuantizeLinear and DequantizeLinear makes of either. Shapes are computed while the file is read, so
that what is left are the layers.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from corobench.benchmark.network.sizes import Codes
from corobench.benchmark.submission.architectures.parts import Normalize
from corobench.benchmark.submission.graph.constants import constant_of, fold
from corobench.benchmark.submission.graph.layers import Elementwise, GraphNetwork, WithConstants
from corobench.benchmark.submission.graph.operators import module_of, reshape_of
from corobench.benchmark.submission.graph.quantised import Quantised, dequantise, quantise
from corobench.benchmark.submission.graph.reading import Graph, Node, read_graph
from corobench.benchmark.submission.graph.rules import MAX_ACTIVATION, OPERATORS, GraphFaultError
from corobench.benchmark.submission.graph.table import Shape

#: Stands for the batch in shapes: no size of a file may be as large.
BATCH = 2**17 - 1


@dataclass(frozen=True)
class Activation:
    """A value that depends on the image: the number of the step that makes it, and its shape."""

    number: int
    shape: Shape


Value = Activation | Quantised | np.ndarray


@dataclass(frozen=True, eq=False)
class GraphModel:
    """A network read from an ONNX file.

    Attributes:
        network: in eval mode, float32.
        image_shape: channels, height, width.
        output_shape: of the output for one image; (classes,) for logits.
        description: its steps and how they are wired, as text; equal graphs have equal text.
        is_quantised: whether values between layers are rounded to whole steps.
        codes: weights that the file holds as 8-bit whole numbers.
        batch: the one batch size the file is made for, or None.
    """

    network: nn.Module
    image_shape: tuple[int, int, int]
    output_shape: Shape
    description: str
    is_quantised: bool
    codes: Codes
    batch: int | None

    def sha256(self, weights_sha256: str) -> str:
        """The hash that identifies the graph together with its weights, 64 hex digits."""
        text = f"onnx\n{self.description}\n{weights_sha256}"
        return hashlib.sha256(text.encode()).hexdigest()


def read_network(content: bytes) -> GraphModel:
    """The network in an ONNX file.

    Raises:
        GraphFaultError: the first rule of RULES.md that the file breaks.
    """
    graph = read_graph(content)
    try:
        return _Builder(graph).build()
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
    steps: list[nn.Module] = field(default_factory=list)
    sources: list[tuple[int, ...]] = field(default_factory=list)
    lines: list[Any] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    shared: dict[tuple[object, ...], nn.Parameter] = field(default_factory=dict)
    coded: dict[int, tuple[np.ndarray, int]] = field(default_factory=dict)
    codes: Codes = field(default_factory=lambda: Codes(0, 0))
    uses: dict[int, list[int]] = field(default_factory=dict)

    def build(self) -> GraphModel:
        graph = self.graph
        self.values = dict(graph.constants)
        self.values[graph.image] = Activation(0, (BATCH, *graph.image_shape))
        for node in graph.nodes:
            self.values[node.output] = self._value(node)
        logits = self.values[graph.logits]
        if not isinstance(logits, Activation) or logits.number == 0:
            raise GraphFaultError("onnx-output", "expected logits that depend on the image")
        network = self._network(logits.number)
        return GraphModel(
            network=network.eval().requires_grad_(False),
            image_shape=graph.image_shape,
            output_shape=logits.shape[1:],
            description=json.dumps(self.lines, separators=(",", ":"), sort_keys=True),
            is_quantised=any(line[0] == "Quantise" for line in self.lines) or bool(self.coded),
            codes=self.codes,
            batch=graph.batch,
        )

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
        if not any(isinstance(value, Activation) for value in operands):
            return fold(node, [value for value in operands if isinstance(value, np.ndarray)])
        return self._on_activations(node, operands)

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
        if node.op not in OPERATORS:
            raise GraphFaultError(
                "onnx-dynamic", f"{node.label}: is supported for shapes only, not for activations"
            )
        stored = [value if isinstance(value, np.ndarray) else None for value in operands]
        made = [value for value in operands if isinstance(value, Activation)]
        shapes = [value.shape for value in made]
        if node.op == "Reshape":
            target = stored[1] if len(stored) > 1 else None
            if target is None or target.ndim != 1 or target.size > 8 or not shapes:
                raise GraphFaultError("onnx-dynamic", f"{node.label}: expected a fixed shape")
            numbers = [int(size) for size in target]
            module = reshape_of(node, numbers, shapes[0], self.graph.batch)
        else:
            module = module_of(node, stored, shapes, self.graph.opset)
        self._share(module, node)
        made_here = self._step(node, module, made)
        self.uses[made_here.number] = [id(array) for array in stored if id(array) in self.coded]
        return made_here

    def _step(self, node: Node, module: nn.Module, made: list[Activation]) -> Activation:
        """Add a step; its shape says whether its operands fit and the batch is kept."""
        shape = _shape(node, module, [value.shape for value in made])
        self.steps.append(module)
        self.sources.append(tuple(value.number for value in made))
        return Activation(len(self.steps), shape)

    def _rounded(self, node: Node, operands: list[Value | None]) -> Value:
        value, *settings = operands
        arrays = [item for item in settings if isinstance(item, np.ndarray)]
        if len(arrays) != sum(item is not None for item in settings):
            raise GraphFaultError("onnx-dynamic", f"{node.label}: expected stored scales")
        if node.op == "QuantizeLinear":
            if not isinstance(value, Activation):
                raise GraphFaultError(
                    "onnx-computed-constant", f"{node.label}: store the integers themselves"
                )
            return quantise(node, value, arrays, len(value.shape))
        if isinstance(value, Quantised):
            assert isinstance(value.source, Activation)
            module = value.layer(node, arrays)
            return self._step(node, module, [value.source])
        if isinstance(value, np.ndarray):
            found, is_codes = dequantise(node, value, arrays)
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
        steps, sources = _with_normalisation(steps, sources, self.graph.image_shape[0])
        self.lines = [
            [_kind(step), _settings(step), list(numbers)]
            for step, numbers in zip(steps, sources, strict=True)
        ]
        if all(numbers == (position,) for position, numbers in enumerate(sources)):
            return nn.Sequential(*steps)
        return GraphNetwork(steps, sources)


def _shape(node: Node, module: nn.Module, shapes: list[Shape]) -> Shape:
    """The shape of a step's output, found without computing it."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    state = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    examples = tuple(torch.empty(shape, device="meta") for shape in shapes)
    try:
        with torch.no_grad():
            output = functional_call(module, state, examples)
    except Exception as error:  # torch raises anything where sizes do not fit
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise GraphFaultError(
            "onnx-sizes", f"{node.label}: its operands do not fit together ({reason})"
        ) from error
    if not isinstance(output, Tensor) or output.dtype != torch.float32:
        raise GraphFaultError("onnx-type", f"{node.label}: expected a float32 result")
    shape = tuple(output.shape)
    if not shape or shape[0] != BATCH or 0 in shape:
        raise GraphFaultError(
            "onnx-batch", f"{node.label}: expected one result per image, with the batch first"
        )
    if math.prod(shape[1:]) > MAX_ACTIVATION or BATCH in shape[1:]:
        raise GraphFaultError(
            "onnx-too-large",
            f"{node.label}: expected at most {MAX_ACTIVATION} values per image, but found "
            f"{math.prod(shape[1:])}",
        )
    return shape


def _with_normalisation(
    steps: list[nn.Module], sources: list[tuple[int, ...]], channels: int
) -> tuple[list[nn.Module], list[tuple[int, ...]]]:
    """A subtraction and a division per channel right at the image become one `Normalize`."""
    if len(steps) < 3 or sources[:2] != [(0,), (1,)]:
        return steps, sources
    if any(number < 2 for numbers in sources[2:] for number in numbers):
        return steps, sources
    numbers = []
    for step, kind in zip(steps[:2], ("sub", "div"), strict=True):
        if not isinstance(step, WithConstants) or step.is_stored != [False, True]:
            return steps, sources
        constant = step.get_buffer("constant1")
        name = getattr(step.operator, "op_name", type(step.operator).__name__).lower()
        is_per_channel = tuple(constant.shape) in (
            (channels, 1, 1),
            (1, channels, 1, 1),
            (),
            (1,),
        )
        if name != kind or not is_per_channel or (kind == "div" and bool((constant <= 0).any())):
            return steps, sources
        numbers.append(constant.reshape(-1).expand(channels).tolist())
    rest = [tuple(max(0, number - 1) for number in item) for item in sources[2:]]
    return [Normalize(*numbers), *steps[2:]], [(0,), *rest]


def _kind(step: nn.Module) -> str:
    inner = step.operator if isinstance(step, WithConstants) else step
    return str(getattr(inner, "op_name", type(inner).__name__))


def _settings(step: nn.Module) -> dict[str, Any]:
    """What a step is set to, beside its weights: plain numbers and text, of its parts as well."""
    found: dict[str, Any] = {}
    for prefix, part in step.named_modules():
        for key, value in vars(part).items():
            if key.startswith("_") or key == "training":
                continue
            if isinstance(value, np.ndarray):
                value = value.tolist()
            if isinstance(value, bool | int | float | str | list | tuple | None):
                found[f"{prefix}.{key}"] = list(value) if isinstance(value, tuple) else value
            elif key == "function":
                # Published hashes have the function of an element-wise layer as its "forward".
                key = "forward" if isinstance(part, Elementwise) else key
                found[f"{prefix}.{key}"] = getattr(value, "__name__", "")
    return found
