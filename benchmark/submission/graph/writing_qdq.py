"""A network in whole numbers as an ONNX file of QuantizeLinear and DequantizeLinear pairs (QDQ)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Versions of the format and of its operators that are written.
IR_VERSION, OPSET = 8, 18
#: Largest whole number of an activation, and the largest magnitude of a weight's.
MAX_ACTIVATION_CODE, MAX_WEIGHT_CODE = 255, 127
#: What a whole number of an activation is multiplied with to give its value, in every layer.
ACTIVATION_STEP = 1 / 256

#: Name and attributes of an operator without weights.
Operator = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """A convolution or linear layer in whole numbers, and what follows it.

    Output channel ``o`` is ``ACTIVATION_STEP * scales[o] * (codes[o] . activations + bias[o])``,
    where the activations are whole numbers from 0 to 255.

    Attributes:
        name: of the layer it was made from.
        codes: int8 (out, in, height, width) or (out, in), from -127 to 127.
        scales: float32 (out,), of the weights.
        bias: int32 (out,), in units of ``ACTIVATION_STEP * scales``.
        attributes: of the Conv operator; none for a linear layer.
        after: operators behind it, in order, each with its attributes: Relu, MaxPool, Reshape (to
            one row for each image).
    """

    name: str
    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    bias: NDArray[np.int32]
    attributes: Mapping[str, Any]
    after: tuple[Operator, ...]


@dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """A chain of such layers.

    Attributes:
        image_shape: channels, height, width.
        num_classes: logits.
        pixel_factor: that an image is multiplied with before it is rounded.
        has_ones: whether a channel of ones joins the image, which lets padded places differ from
            black ones.
        before: operators in front of the first layer.
        layers: in order; the last gives the logits.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    pixel_factor: float
    has_ones: bool
    before: tuple[Operator, ...]
    layers: tuple[IntegerLayer, ...]


class _Writer:
    """Nodes and stored tensors in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self.last = "image"

    def store(self, name: str, array: np.ndarray) -> str:
        from onnx import numpy_helper

        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def follow(self, op: str, output: str, more: Sequence[str] = (), **attributes: Any) -> None:
        """An operator on the newest activation."""
        self.last = self.add(op, [self.last, *more], output, **attributes)


def write_qdq(network: IntegerNetwork) -> bytes:
    """The ONNX file; the same network gives the same bytes.

    In front of the layers stand Pad (where `has_ones`) and Mul, then for each layer QuantizeLinear
    and DequantizeLinear on the activation, DequantizeLinear on weights (int8, one scale per output
    channel, axis 0) and bias (int32, likewise), Conv or Gemm (``transB = 1``), and what follows it.
    """
    from onnx import helper

    writer = _Writer()
    if network.has_ones:
        pads = writer.store("ones.pads", np.array([0, 0, 0, 0, 0, 1, 0, 0], np.int64))
        value = writer.store("ones.value", np.array(1, np.float32))
        writer.follow("Pad", "image.ones", [pads, value], mode="constant")
    factor = writer.store("pixels.factor", np.array(network.pixel_factor, np.float32))
    writer.follow("Mul", "image.scaled", [factor])
    _add_between(writer, "image", network.before)
    for number, layer in enumerate(network.layers):
        _add_layer(writer, f"layer{number}", layer)
    writer.nodes[-1].output[0] = "logits"
    graph = helper.make_graph(
        writer.nodes,
        "int8",
        [helper.make_tensor_value_info("image", 1, ["batch", *network.image_shape])],
        [helper.make_tensor_value_info("logits", 1, ["batch", network.num_classes])],
        writer.tensors,
    )
    model = helper.make_model(
        graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _add_layer(writer: _Writer, name: str, layer: IntegerLayer) -> None:
    grid = [
        writer.store(f"{name}.scale", np.array(ACTIVATION_STEP, np.float32)),
        writer.store(f"{name}.zero", np.array(0, np.uint8)),
    ]
    writer.follow("QuantizeLinear", f"{name}.codes", grid)
    writer.follow("DequantizeLinear", f"{name}.values", grid)
    num_out = len(layer.codes)
    weights = _stored(writer, f"{name}.weight", layer.codes, layer.scales, np.int8)
    bias_scales = np.float32(ACTIVATION_STEP) * layer.scales
    bias = _stored(writer, f"{name}.bias", layer.bias.reshape(num_out), bias_scales, np.int32)
    op = "Conv" if layer.codes.ndim == 4 else "Gemm"
    attributes = layer.attributes if op == "Conv" else {"transB": 1}
    writer.follow(op, f"{name}.{op}", [weights, bias], **attributes)
    _add_between(writer, name, layer.after)


def _add_between(writer: _Writer, name: str, operators: Sequence[Operator]) -> None:
    """Operators without weights; runtimes with integer kernels look through all of them."""
    for position, (op, attributes) in enumerate(operators):
        output = f"{name}.{op}.{position}"
        shape = [writer.store(f"{output}.shape", np.array([0, -1]))] if op == "Reshape" else []
        writer.follow(op, output, shape, **attributes)


def _stored(writer: _Writer, name: str, codes: np.ndarray, scales: np.ndarray, dtype: type) -> str:
    """Stored whole numbers and the operator that makes weights of them."""
    inputs = [
        writer.store(f"{name}.codes", codes.astype(dtype)),
        writer.store(f"{name}.scales", scales.astype(np.float32)),
        writer.store(f"{name}.zeros", np.zeros(len(scales), dtype)),
    ]
    return writer.add("DequantizeLinear", inputs, name, axis=0)
