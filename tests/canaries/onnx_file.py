"""A chain of layers as an ONNX file, operator by operator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn


def write_onnx(network: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """Write a `Sequential` of layers as they are, with an open batch size."""
    nodes: list[onnx.NodeProto] = []
    stored: list[onnx.TensorProto] = []
    value = "image"
    assert isinstance(network, nn.Sequential)
    for number, layer in enumerate(network):
        tensors = {f"{key}{number}": tensor for key, tensor in _tensors(layer).items()}
        stored += [numpy_helper.from_array(_array(t), key) for key, t in tensors.items()]
        operator, attributes = _operator(layer)
        output = f"y{number}"
        nodes.append(helper.make_node(operator, [value, *tensors], [output], **attributes))
        value = output
    graph = helper.make_graph(
        nodes,
        "canary",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["batch", 10])],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def _tensors(layer: nn.Module) -> dict[str, Tensor]:
    if isinstance(layer, nn.Conv2d | nn.Linear):
        return {"w": layer.weight, "b": layer.bias}
    if isinstance(layer, nn.Unflatten):
        return {"s": torch.tensor([-1, *layer.unflattened_size])}
    if isinstance(layer, nn.BatchNorm2d):
        names = ("weight", "bias", "running_mean", "running_var")
        return {name: getattr(layer, name) for name in names}
    return dict(layer.named_buffers())


def _operator(layer: nn.Module) -> tuple[str, dict[str, object]]:
    if isinstance(layer, nn.Conv2d):
        pads = [*layer.padding, *layer.padding]
        return "Conv", {"strides": list(layer.stride), "pads": pads}
    if isinstance(layer, nn.Linear):
        return "Gemm", {"transB": 1}
    if isinstance(layer, nn.BatchNorm2d):
        return "BatchNormalization", {"epsilon": layer.eps}
    if isinstance(layer, nn.AvgPool2d):
        kernel = layer.kernel_size
        kernel = [kernel, kernel] if isinstance(kernel, int) else list(kernel)
        return "AveragePool", {"kernel_shape": kernel, "strides": kernel}
    if isinstance(layer, nn.Flatten):
        return "Flatten", {"axis": 1}
    return {"ReLU": "Relu", "Unflatten": "Reshape", "Divide": "Div"}[type(layer).__name__], {}
