"""One small ONNX file for each operator that is read, and for its forms."""

from __future__ import annotations

import numpy as np
from onnx_models import node, weights

W = weights(4, 3, 3, 3)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def scalar(value: float) -> np.ndarray:
    return np.float32(value).reshape(())


#: name -> (nodes, stored tensors) or (nodes, stored tensors, version of the operators).
CASES: dict[str, tuple] = {
    "Abs": ([node("Abs", "x", "y")], {}),
    "Add": ([node("Add", "x c", "y")], {"c": weights(3, 1, 1)}),
    "Add of two": ([node("Relu", "x", "r"), node("Add", "x r", "y")], {}),
    "AveragePool": (
        [node("AveragePool", "x", "y", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 0])],
        {},
    ),
    "AveragePool that counts its padding": (
        [node("AveragePool", "x", "y", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)],
        {},
    ),
    "BatchNormalization": (
        [node("BatchNormalization", "x s b m v", "y", epsilon=1e-3, momentum=0.8)],
        {
            "s": weights(3),
            "b": weights(3, seed=1),
            "m": weights(3, seed=2),
            "v": np.abs(weights(3, seed=3)) + np.float32(0.1),
        },
    ),
    "Celu": ([node("Celu", "x", "y", alpha=0.5)], {}),
    "Clip": ([node("Clip", "x lo hi", "y")], {"lo": scalar(0.2), "hi": scalar(0.6)}),
    "Clip below only": ([node("Clip", "x lo", "y")], {"lo": scalar(0.0)}),
    "Clip by attributes": ([node("Clip", "x", "y", min=0.1, max=0.9)], {}, 10),
    "Concat": ([node("Relu", "x", "r"), node("Concat", "x r", "y", axis=-3)], {}),
    "Conv": (
        [node("Conv", "x w b", "y", pads=[1, 1, 1, 1], strides=[2, 2])],
        {"w": W, "b": weights(4)},
    ),
    "Conv with uneven padding": ([node("Conv", "x w", "y", pads=[0, 1, 2, 1])], {"w": W}),
    "Conv with dilation": ([node("Conv", "x w", "y", dilations=[2, 1])], {"w": W}),
    "Conv depthwise": ([node("Conv", "x w", "y", group=3)], {"w": weights(6, 1, 3, 3)}),
    "Conv same": ([node("Conv", "x w", "y", auto_pad="SAME_UPPER", strides=[2, 2])], {"w": W}),
    "Div": ([node("Div", "x c", "y")], {"c": np.abs(weights(3, 1, 1)) + np.float32(0.5)}),
    "Elu": ([node("Elu", "x", "y", alpha=0.7)], {}),
    "Erf": ([node("Erf", "x", "y")], {}),
    "Expand": (
        [node("ReduceMean", "x", "m", axes=[1]), node("Expand", "m s", "y")],
        {"s": ints(1, 4, 8, 8)},
    ),
    "Flatten": ([node("Flatten", "x", "y")], {}),
    "Gelu": ([node("Gelu", "x", "y")], {}, 20),
    "Gemm": (
        [node("Flatten", "x", "f"), node("Gemm", "f w b", "y", alpha=0.5, beta=2.0)],
        {"w": weights(192, 5), "b": weights(5)},
    ),
    "Gemm transposed": (
        [node("Flatten", "x", "f"), node("Gemm", "f w b", "y", transB=1)],
        {"w": weights(5, 192), "b": weights(1, 5)},
    ),
    "GlobalAveragePool": ([node("GlobalAveragePool", "x", "y")], {}),
    "GlobalMaxPool": ([node("GlobalMaxPool", "x", "y")], {}),
    "Greater": (
        [node("Softplus", "x", "s"), node("Greater", "x c", "g"), node("Where", "g x s", "y")],
        {"c": scalar(20.0)},
    ),
    "GroupNormalization": (
        [node("GroupNormalization", "x s b", "y", num_groups=3)],
        {"s": weights(3), "b": weights(3, seed=1)},
        18,
    ),
    "HardSigmoid": ([node("HardSigmoid", "x", "y", alpha=0.3, beta=0.4)], {}),
    "HardSwish": ([node("HardSwish", "x", "y")], {}),
    "InstanceNormalization": (
        [node("InstanceNormalization", "x s b", "y")],
        {"s": weights(3), "b": weights(3, seed=1)},
    ),
    "LayerNormalization": (
        [node("LayerNormalization", "x s b", "y", epsilon=1e-3)],
        {"s": weights(8), "b": weights(8, seed=1)},
    ),
    "LeakyRelu": ([node("Sub", "x c", "d"), node("LeakyRelu", "d", "y")], {"c": scalar(0.5)}),
    "LogSoftmax": ([node("Flatten", "x", "f"), node("LogSoftmax", "f", "y", axis=1)], {}),
    "LpNormalization": ([node("LpNormalization", "x", "y", axis=1)], {}),
    "MatMul": ([node("Flatten", "x", "f"), node("MatMul", "f w", "y")], {"w": weights(192, 5)}),
    "MatMul of two": ([node("Relu", "x", "r"), node("MatMul", "x r", "y")], {}),
    "Max": ([node("Max", "x c", "y")], {"c": scalar(0.5)}),
    "MaxPool": (
        [node("MaxPool", "x", "y", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])],
        {},
    ),
    "MaxPool with uneven padding": (
        [node("MaxPool", "x", "y", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1])],
        {},
    ),
    "MaxPool rounded up": (
        [node("MaxPool", "x", "y", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)],
        {},
    ),
    "Min": ([node("Min", "x c", "y")], {"c": scalar(0.5)}),
    "Mish": ([node("Mish", "x", "y")], {}, 18),
    "Mul": ([node("Mul", "c x", "y")], {"c": weights(3, 1, 1)}),
    "Neg": ([node("Neg", "x", "y")], {}),
    "PRelu": (
        [node("Sub", "x c", "d"), node("PRelu", "d s", "y")],
        {"c": scalar(0.5), "s": weights(3, 1, 1)},
    ),
    "Pad": ([node("Pad", "x p v", "y")], {"p": ints(0, 0, 1, 2, 0, 0, 0, 1), "v": scalar(0.3)}),
    "Pow": ([node("Pow", "x e", "y")], {"e": np.array(2, dtype=np.int64)}),
    "RMSNormalization": (
        [node("RMSNormalization", "x s", "y", axis=2, epsilon=1e-3)],
        {"s": weights(8)},
        23,
    ),
    "Reciprocal": ([node("Add", "x c", "d"), node("Reciprocal", "d", "y")], {"c": scalar(0.5)}),
    "ReduceL2": ([node("ReduceL2", "x", "y", axes=[2, 3], keepdims=0)], {}),
    "ReduceMax": ([node("ReduceMax", "x", "y", axes=[2, 3], keepdims=0)], {}),
    "ReduceMean": ([node("ReduceMean", "x", "y", axes=[-1, -2], keepdims=1)], {}),
    "ReduceMean by operand": ([node("ReduceMean", "x a", "y", keepdims=0)], {"a": ints(2, 3)}, 18),
    "ReduceSum": ([node("ReduceSum", "x a", "y", keepdims=0)], {"a": ints(1)}),
    "Relu": ([node("Sub", "x c", "d"), node("Relu", "d", "y")], {"c": scalar(0.5)}),
    "Reshape": ([node("Reshape", "x s", "y")], {"s": ints(0, 4, -1)}),
    "Reshape without copying": ([node("Reshape", "x s", "y", allowzero=1)], {"s": ints(-1, 192)}),
    "Reshape to a computed shape": (
        [
            node("Shape", "x", "s"),
            node("Gather", "s i", "n", axis=0),
            node("Unsqueeze", "n z", "u"),
            node("Concat", "u m", "t", axis=0),
            node("Reshape", "x t", "y"),
        ],
        {"i": np.int64(0).reshape(()), "z": ints(0), "m": ints(-1)},
    ),
    "Selu": ([node("Selu", "x", "y")], {}),
    "Sigmoid": ([node("Sigmoid", "x", "y")], {}),
    "Slice": (
        [node("Slice", "x b e a s", "y")],
        {"b": ints(1, 0), "e": ints(3, 2**62), "a": ints(1, 2), "s": ints(1, 2)},
    ),
    "Softmax": ([node("Softmax", "x", "y", axis=1)], {}),
    "Softplus": ([node("Softplus", "x", "y")], {}),
    "Softsign": ([node("Softsign", "x", "y")], {}),
    "Split": (
        [node("Split", "x p", "a b", axis=1), node("Concat", "b a", "y", axis=1)],
        {"p": ints(1, 2)},
    ),
    "Sqrt": ([node("Sqrt", "x", "y")], {}),
    "Squeeze": (
        [node("GlobalAveragePool", "x", "p"), node("Squeeze", "p a", "y")],
        {"a": ints(2, 3)},
    ),
    "Sub": ([node("Sub", "c x", "y")], {"c": weights(3, 1, 1)}),
    "Tanh": ([node("Tanh", "x", "y")], {}),
    "Transpose": ([node("Transpose", "x", "y", perm=[0, 2, 3, 1])], {}),
    "Unsqueeze": ([node("Unsqueeze", "x a", "y")], {"a": ints(1)}),
    "Identity, Dropout and Cast": (
        [
            node("Identity", "w", "w1"),
            node("Transpose", "w1", "w2", perm=[1, 0]),
            node("Flatten", "x", "f"),
            node("Dropout", "f", "d"),
            node("Cast", "d", "k", to=1),
            node("MatMul", "k w2", "y"),
        ],
        {"w": weights(5, 192)},
    ),
}
