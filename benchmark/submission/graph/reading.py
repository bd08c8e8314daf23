"""The bytes of an ONNX file to nodes and constants, or the rule that it breaks.

Nothing is computed here and nothing but the bytes themselves is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from corobench.benchmark.errors import DependencyError
from corobench.benchmark.submission.graph.rules import (
    DOMAINS,
    KINDS,
    MAX_CONSTANTS,
    MAX_DIMENSIONS,
    MAX_NODES,
    MAX_OPSET,
    MIN_OPSET,
    OPERATORS,
    QDQ,
    RESOLVED,
    GraphFaultError,
    shown,
    way_out,
)

#: A number, text, a list of numbers, or an array.
Attribute = Any

#: Type of the input -> the way out.
_INPUT_WAYS = {
    "float16": "; export a float32 network (`model.float()`): float16 is for stored weights only",
    "uint8": "; take the Cast and the division by 255 out: images come in [0, 1]",
}
#: Type of a stored tensor -> the way out.
_TYPE_WAYS = {
    **dict.fromkeys(("int16", "uint16", "int4", "uint4"), f"; {QDQ}"),
    "bool": "; a network with dropout: model.eval() before the export; masks are folded where they "
    "are stored as float32, or before the export: torch.nn.utils.prune.remove(layer, 'weight')",
}
_FLOAT32 = "; export a float32 network (`model.float()`)"
_OPEN = "; export with fixed sizes, the batch alone may be open"
#: Operator with more than one output -> the way out.
_OUTPUT_WAYS = {
    "BatchNormalization": "; the network was in training mode: model.eval() before the export, and "
    "no track_running_stats=False",
    "MaxPool": "; take the places of the maxima (return_indices) out",
}

#: Types of stored tensors by their number in the format -> numpy's.
_TYPES: dict[int, type[np.generic]] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    6: np.int32,
    7: np.int64,
    10: np.float16,
}
_FLOAT = 1


@dataclass(frozen=True)
class Node:
    """One operator.

    Attributes:
        op: its type.
        inputs: names of values; "" where an optional one is left out.
        output: name of its first value.
        attributes: by name, in plain types.
        label: for messages.
        outputs: names of all its values; only a Split has several.
    """

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Attribute] = field(default_factory=dict)
    label: str = ""
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Graph:
    """A file that broke no rule of form.

    Attributes:
        opset: version of the operators.
        constants: stored tensors by name.
        nodes: in an order in which each value is made before it is used.
        image: name of the input.
        input_shape: sizes of the input behind the batch.
        batch: the one batch size the file is made for, or None for any.
        logits: name of the output.
    """

    opset: int
    constants: dict[str, np.ndarray]
    nodes: tuple[Node, ...]
    image: str
    input_shape: tuple[int, ...]
    batch: int | None
    logits: str


def read_graph(content: bytes) -> Graph:
    """Read an ONNX file and check its form.

    Args:
        content: the file.

    Raises:
        GraphFaultError: the first rule that is broken.
        DependencyError: the onnx package is missing.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise DependencyError(
            f"{error.name} is needed for ONNX files: pip install onnx onnxruntime"
        ) from error
    try:
        model = onnx.ModelProto.FromString(content)
    except (DecodeError, ValueError, RuntimeError, MemoryError, RecursionError) as error:
        raise GraphFaultError("onnx-damaged", "expected an ONNX file, but cannot read it") from (
            error
        )
    if not model.HasField("graph"):
        raise GraphFaultError("onnx-damaged", "expected an ONNX file with a graph, but found none")
    _check_model(model)
    graph = model.graph
    constants = _constants(graph.initializer)
    names = set(constants)
    image, input_shape, batch = _input(graph, names)
    names |= {image, ""}
    nodes = tuple(_node(item, number, names) for number, item in enumerate(graph.node))
    return Graph(
        opset=_opset(model),
        constants=constants,
        nodes=nodes,
        image=image,
        input_shape=input_shape,
        batch=batch,
        logits=_output(graph, names),
    )


def _check_model(model: Any) -> None:
    """What a file may not hold at all, and how much of the rest."""
    graph = model.graph
    for word, found, way in (
        (
            "functions",
            model.functions,
            "onnx.inliner.inline_local_functions(model) puts their operators into the graph",
        ),
        ("training information", model.training_info, "remove it"),
        ("sparse tensors", graph.sparse_initializer, "store them dense, with their zeros"),
    ):
        if len(found):
            raise GraphFaultError("onnx-unsupported-part", f"the file holds {word}; {way}")
    for word, number, limit in (
        ("operators", len(graph.node), MAX_NODES),
        ("stored tensors", len(graph.initializer), MAX_CONSTANTS),
    ):
        if number > limit:
            raise GraphFaultError(
                "onnx-too-large", f"expected at most {limit} {word}, but found {number}"
            )


def _opset(model: Any) -> int:
    versions = sorted({item.version for item in model.opset_import if item.domain in DOMAINS})
    if len(versions) != 1 or not MIN_OPSET <= versions[0] <= MAX_OPSET:
        raise GraphFaultError(
            "onnx-opset",
            f"expected one version of the standard operators, {MIN_OPSET} to {MAX_OPSET}, but "
            f"found {versions or 'none'}; `onnx.version_converter.convert_version` writes another",
        )
    return int(versions[0])


def _constants(tensors: Sequence[Any]) -> dict[str, np.ndarray]:
    constants: dict[str, np.ndarray] = {}
    for tensor in tensors:
        if tensor.name in constants or not tensor.name:
            raise GraphFaultError(
                "onnx-names", f"the tensor {shown(tensor.name)} is defined twice, or has no name"
            )
        constants[tensor.name] = _array(tensor)
    return constants


def _type_name(number: int) -> str:
    """A type of ONNX by its name, such as float16; by its number where it has none."""
    from onnx import TensorProto

    names: dict[int, str] = {value: name.lower() for name, value in TensorProto.DataType.items()}
    return names.get(number, f"type number {number}")


def _array(tensor: Any) -> np.ndarray:
    """A stored tensor, whose sizes agree with what is there."""
    from onnx import numpy_helper

    label = f"tensor {shown(tensor.name)}"
    if tensor.data_location or len(tensor.external_data):
        raise GraphFaultError(
            "onnx-external-data",
            f"{label}: its values are in another file; save the model as one file "
            "(torch.onnx.export with external_data=False)",
        )
    if tensor.data_type not in _TYPES or tensor.HasField("segment"):
        raise GraphFaultError(
            "onnx-type",
            f"{label}: expected float32, float16, int8, uint8, int32 or int64, but "
            f"found {_type_name(tensor.data_type)}"
            + _TYPE_WAYS.get(_type_name(tensor.data_type), _FLOAT32),
        )
    dims = list(tensor.dims)
    size = math.prod(dims)
    itemsize = np.dtype(_TYPES[tensor.data_type]).itemsize
    stored = (
        len(tensor.raw_data) / itemsize
        if tensor.HasField("raw_data")
        else len(tensor.float_data) + len(tensor.int32_data) + len(tensor.int64_data)
    )
    if len(dims) > MAX_DIMENSIONS or any(dim < 0 for dim in dims) or size != stored:
        raise GraphFaultError(
            "onnx-sizes",
            f"{label}: expected at most {MAX_DIMENSIONS} sizes that agree with the values, but "
            f"found {dims} and {stored:g} values",
        )
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OverflowError) as error:
        raise GraphFaultError("onnx-sizes", f"{label}: cannot read its values") from error
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise GraphFaultError("onnx-not-finite", f"{label}: holds NaN or infinite values")
    return array


def _input(graph: Any, constants: set[str]) -> tuple[str, tuple[int, ...], int | None]:
    inputs = [item for item in graph.input if item.name not in constants]
    if len(inputs) != 1 or not inputs[0].name:
        raise GraphFaultError(
            "onnx-input",
            f"expected one input, the image, but found {len(inputs)}; make what else it reads part "
            "of the network (register_buffer)",
        )
    kind = inputs[0].type.tensor_type
    dims = list(kind.shape.dim)
    sizes = [int(dim.dim_value) for dim in dims]
    found = _type_name(kind.elem_type)
    if kind.elem_type != _FLOAT or len(dims) < 2 or any(size < 1 for size in sizes[1:]):
        raise GraphFaultError(
            "onnx-input",
            "expected the input float32 (batch, channels, height, width) with all sizes but the "
            f"batch fixed, but found {found} and sizes {sizes}"
            + (_OPEN if kind.elem_type == _FLOAT else _INPUT_WAYS.get(found, _FLOAT32)),
        )
    if sizes[0] < 0 or max(sizes) > 2**16:
        raise GraphFaultError("onnx-input", f"expected sizes up to {2**16}, but found {sizes}")
    return inputs[0].name, tuple(sizes[1:]), sizes[0] or None


def _output(graph: Any, names: set[str]) -> str:
    if len(graph.output) != 1 or graph.output[0].name not in names - {""}:
        raise GraphFaultError(
            "onnx-output",
            f"expected one output, the logits, made by a node, but found {len(graph.output)}; "
            "export a network that returns its logits alone",
        )
    return str(graph.output[0].name)


def _node(item: Any, number: int, names: set[str]) -> Node:
    """One operator whose inputs are there already; its output joins `names`."""
    label = f"node {number} ({shown(item.op_type)})"
    allowed = OPERATORS.get(item.op_type, RESOLVED.get(item.op_type))
    if item.domain not in DOMAINS or allowed is None:
        raise GraphFaultError(
            "onnx-operator",
            f"{label}: is not a supported operator"
            + (f" (domain {shown(item.domain)})" if item.domain not in DOMAINS else "")
            + f"; {way_out(item.op_type, item.domain)}",
        )
    for name in item.input:
        if name not in names:
            raise GraphFaultError(
                "onnx-order", f"{label}: uses {shown(name)}, which no node before it makes"
            )
    outputs = [name for name in item.output if name]
    is_split = item.op_type == "Split" and len(outputs) == len(set(outputs)) > 0
    own = set(item.output if is_split else item.output[:1])
    if not (is_split or len(outputs) == 1) or names & own:
        way = _OUTPUT_WAYS.get(item.op_type, "") if len(outputs) > 1 else ""
        raise GraphFaultError(
            "onnx-names", f"{label}: expected one output with a name of its own{way}"
        )
    names.update(outputs)
    attributes = {}
    for attribute in item.attribute:
        if attribute.name not in allowed or attribute.name in attributes:
            raise GraphFaultError(
                "onnx-attribute",
                f"{label}: the attribute {shown(attribute.name)} is not supported, or is there "
                "twice",
            )
        attributes[attribute.name] = _attribute(attribute, label)
    return Node(str(item.op_type), tuple(item.input), outputs[0], attributes, label, tuple(outputs))


def _attribute(attribute: Any, label: str) -> Attribute:
    """An attribute in plain types; graphs, lists of tensors and references are refused."""
    value: Any = None
    kind = attribute.type
    name = KINDS.get(attribute.name, "INT")
    if label.endswith("(Pad)") and attribute.name == "value":
        name = "FLOAT"
    if attribute.ref_attr_name or kind != getattr(attribute, name):
        kind = 0
    if kind == attribute.INT:
        value = int(attribute.i)
    elif kind == attribute.FLOAT:
        value = float(attribute.f)
    elif kind == attribute.INTS:
        value = [int(number) for number in attribute.ints]
    elif kind == attribute.FLOATS:
        value = [float(number) for number in attribute.floats]
    elif kind == attribute.TENSOR:
        return _array(attribute.t)
    elif kind == attribute.STRING:
        return attribute.s.decode("ascii", "replace")[:40]
    numbers = value if isinstance(value, list) else [value]
    if value is None or any(not math.isfinite(number) for number in numbers):
        raise GraphFaultError(
            "onnx-attribute",
            f"{label}: expected numbers, text or a tensor as {shown(attribute.name)}",
        )
    if attribute.name in ("value_int", "value_ints"):  # computed with: as they are
        return value
    if any(abs(number) > 2**31 and isinstance(number, int) for number in numbers):
        # The largest integers say "to the end" and are cut to what any size here needs.
        value = (
            [max(-(2**31), min(2**31, number)) for number in numbers]
            if isinstance(value, list)
            else max(-(2**31), min(2**31, numbers[0]))
        )
    return value
