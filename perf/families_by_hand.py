"""ONNX files as other exporters write them; see `families.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

Arrays = dict[str, np.ndarray]
_RANDOM = np.random.default_rng(0)


def _weights(*shape: int) -> np.ndarray:
    return np.float32(_RANDOM.normal(size=shape) * 0.4)


W, B, V, D = _weights(6, 1, 3, 3), _weights(6), _weights(10, 96), _weights(10)
STORED: Arrays = {"w": W, "b": B, "v": V, "d": D}


def _node(op: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs.split(), output.split(), **attributes)


def _file(
    nodes: Sequence[NodeProto], stored: Arrays, shape: Sequence[int] = (1, 8, 8), opset: int = 17
) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    content: bytes = made.SerializeToString()
    return content


def _conv(source: str = "x") -> list[NodeProto]:
    return [_node("Conv", f"{source} w b", "c", pads=[1] * 4, strides=[2, 2])]


def _end(source: str = "r") -> list[NodeProto]:
    return [_node("Flatten", source, "f"), _node("Gemm", "f v d", "y", transB=1)]


def _whole(source: str = "x") -> list[NodeProto]:
    return [*_conv(source), _node("Relu", "c", "r"), *_end()]


def by_hand() -> dict[str, bytes]:
    """Name -> file."""
    number = np.float32(0.5).reshape(())
    matrices: Arrays = {"w": _weights(64, 16), "b": _weights(16), "v": _weights(16, 10), "d": D}
    product = [
        _node("Flatten", "x", "f"),
        _node("MatMul", "f w", "a"),
        _node("Add", "a b", "c"),
        _node("Relu", "c", "r"),
        _node("MatMul", "r v", "z"),
        _node("Add", "d z", "y"),
    ]
    halves = {f"{name}h": array.astype(np.float16) for name, array in STORED.items()}
    casts = [_node("Cast", f"{name}h", name, to=1) for name in STORED]
    found = {
        "bias as MatMul and Add": _file(product, matrices),
        **{
            f"{op} of a constant {list(array.shape)} at the image": _file(
                [_node(op, "x k", "i"), *_whole("i")], {**STORED, "k": array}
            )
            for op, array in (
                ("Sub", number),
                ("Mul", number.reshape(1)),
                ("Div", number.reshape(1, 1, 1)),
            )
        },
        "1 - x inside": _file(
            [*_conv(), _node("Relu", "c", "q"), _node("Sub", "k q", "r"), *_end()],
            {**STORED, "k": number},
        ),
        "weights in float16": _file([*casts, *_whole()], halves),
        "images in one row": _file(
            [_node("Reshape", "x s", "i"), *_whole("i")],
            {**STORED, "s": np.array([-1, 1, 8, 8])},
            (64,),
        ),
        "channels last": _file(
            [_node("Transpose", "x", "i", perm=[0, 3, 1, 2]), *_whole("i")], STORED, (8, 8, 1)
        ),
        "Clip as ReLU6": _file(
            [*_conv(), _node("Clip", "c lo hi", "r"), *_end()],
            {**STORED, "lo": np.float32(0), "hi": np.float32(6)},
        ),
        "a mask times weights": _file(
            [_node("Mul", "u m", "w"), *_whole()],
            {
                **{key: one for key, one in STORED.items() if key != "w"},
                "u": W,
                "m": np.float32(W > 0),
            },
        ),
    }
    return found


__all__ = ["by_hand"]
