"""Whole numbers that a file computes with: as onnxruntime does, and never with the batch's size."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_models import model, node, weights

from corobench.benchmark.submission.graph.constants import fold
from corobench.benchmark.submission.graph.network import read_network
from corobench.benchmark.submission.graph.reading import Node
from corobench.benchmark.submission.graph.rules import GraphFaultError
from corobench.benchmark.submission.graph.sizes import BATCH


def _ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


#: Nodes that make "n", the size of the batch.
N = [node("Shape", "x", "shape"), node("Gather", "shape zero", "n", axis=0)]
STORED = {"zero": _ints(0), "one": _ints(1), "most": _ints(BATCH), "ten": _ints(10)}

#: Each makes another network at batch size 1 than at 131071, or at some other pair of sizes.
OF_THE_BATCH: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray]]] = {
    "a slice up to a quotient": (
        [node("Div", "most n", "e"), node("Slice", "x zero e one", "y")],
        {},
    ),
    "a slice up to the batch": ([node("Slice", "x zero n one", "y")], {}),
    "a slice from the batch": ([node("Slice", "x n most one", "y")], {}),
    "a slice in steps of the batch": ([node("Slice", "x zero most one n", "y")], {}),
    "a slice of three times the batch": (
        [node("Mul", "n three", "e"), node("Slice", "x zero e one", "y")],
        {"three": _ints(3)},
    ),
    "a slice up to less than the batch": (
        [node("Sub", "n one", "e"), node("Slice", "x zero e one", "y")],
        {},
    ),
    "a place that is the batch's": (
        [node("Gather", "ten n", "p"), node("Slice", "x zero p one", "y")],
        {},
    ),
    "a channel that is the batch's": ([node("Gather", "x n", "y", axis=1)], {}),
    "the product of a shape": (
        [
            node("ReduceProd", "shape", "all"),
            node("Div", "all values", "e"),
            node("Slice", "x zero e one", "y"),
        ],
        {"values": _ints(192)},
    ),
    "a border of the batch": (
        [node("Concat", "zeros n", "p", axis=0), node("Pad", "x p", "y")],
        {"zeros": _ints(0, 0, 0, 0, 0, 0, 0)},
    ),
    "a part of the batch": (
        [node("Concat", "n ten", "s", axis=0), node("Split", "x s", "y b", axis=1)],
        {},
    ),
    "values for each image of a batch": (
        [
            node("Concat", "one n ten", "s", axis=0),
            node("ConstantOfShape", "s", "c"),
            node("Add", "x c", "y"),
        ],
        {},
    ),
    "stored values for each image of a batch": (
        [
            node("Concat", "one n", "s", axis=0),
            node("Expand", "c s", "more"),
            node("Add", "x more", "y"),
        ],
        {"c": weights(1, 1)},
    ),
    "an expansion by the batch": (
        [
            node("ReduceMean", "x", "m", axes=[1]),
            node("Concat", "one n ten ten", "s", axis=0),
            node("Expand", "m s", "y"),
        ],
        {},
    ),
    "values for each image, turned to a row": (
        [
            node("ConstantOfShape", "n", "c"),
            node("Reshape", "c t", "r"),
            node("Flatten", "x", "f"),
            node("Concat", "f r", "y", axis=1),
        ],
        {"t": _ints(1, -1)},
    ),
    "values for each image, beside columns": (
        [node("ConstantOfShape", "n", "c"), node("Add", "x c", "y")],
        {},
    ),
    "more images than there are": (
        [node("Flatten", "x", "f"), node("Expand", "f s", "y")],
        {"s": _ints(2, 192)},
    ),
    "an axis of 1 without its number, which the batch may be": ([node("Squeeze", "x", "y")], {}),
    "sizes up to the one that the batch names": (
        [node("Slice", "sizes zero n", "s"), node("Reshape", "x s", "y")],
        {"sizes": _ints(1, 192)},
    ),
    "a shape whose second size is the batch": (
        [node("Concat", "one n", "s", axis=0), node("Reshape", "x s", "y")],
        {},
    ),
}


@pytest.mark.parametrize("name", OF_THE_BATCH)
def test_nothing_is_computed_with_the_size_of_the_batch(name: str) -> None:
    nodes, constants = OF_THE_BATCH[name]
    content = model([*N, *nodes], {**STORED, **constants}).SerializeToString()
    with pytest.raises(GraphFaultError) as caught:
        read_network(content)
    assert caught.value.rule == "onnx-batch"


def test_the_batch_may_be_the_first_size_of_a_shape() -> None:
    """As exporters write x.view(x.size(0), -1), and values of the shape of an activation."""
    nodes = [
        *N,
        node("Concat", "n rest", "s", axis=0),
        node("Slice", "s zero one", "first"),
        node("Concat", "first rest", "again", axis=0),
        node("Reshape", "x again", "y"),
    ]
    content = model(nodes, {**STORED, "rest": _ints(-1)}).SerializeToString()
    assert read_network(content).output_shape == (192,)


def test_values_for_each_image_may_lie_beside_the_images() -> None:
    nodes = [
        node("Concat", "n rest", "s", axis=0),
        node("ConstantOfShape", "s", "c"),
        node("Concat", "x c", "more", axis=1),
        node("Add", "more c", "y"),
    ]
    content = model([*N, *nodes], {**STORED, "rest": _ints(1, 8, 8)}).SerializeToString()
    assert read_network(content).output_shape == (4, 8, 8)


def test_whole_numbers_of_attributes_are_what_they_are() -> None:
    """Axes and ends may be cut to any size there is; what is computed with may not."""
    nodes = [
        node("Constant", "", "a", value_ints=[2**40]),
        node("Constant", "", "b", value_int=2**31),
        node("Div", "a b", "e"),
        node("Slice", "x zero e one", "y"),
    ]
    content = model([*nodes], STORED).SerializeToString()
    assert read_network(content).network(torch.zeros(1, 3, 8, 8)).shape == (1, 3, 8, 8)


def test_a_limit_of_more_axes_than_its_value_is_no_softplus() -> None:
    nodes = [
        node("Flatten", "x", "f"),
        node("Greater", "f c", "g"),
        node("Softplus", "f", "s"),
        node("Where", "g f s", "y"),
    ]
    for axes, is_read in ((0, True), (2, True), (3, False)):
        content = model(nodes, {"c": np.full((1,) * axes, 20, np.float32)}).SerializeToString()
        if is_read:
            read_network(content)
            continue
        with pytest.raises(GraphFaultError):
            read_network(content)


def _runtime(op: str, operands: list[np.ndarray], **attributes: Any) -> np.ndarray:
    """What onnxruntime makes of whole numbers."""
    names = [f"a{position}" for position in range(len(operands))]
    kind = helper.np_dtype_to_tensor_dtype(operands[0].dtype)
    if op == "Cast":
        kind = attributes["to"]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attributes)],
        "g",
        [],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(array, name) for array, name in zip(operands, names, strict=True)],
    )
    opset = [helper.make_opsetid("", 17)]
    content = helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    (found,) = onnxruntime.InferenceSession(content, options).run(None, {})
    return np.asarray(found)


def _folded(op: str, operands: list[np.ndarray], **attributes: Any) -> np.ndarray:
    names = tuple("abcde"[: len(operands)])
    return fold(Node(op, names, "y", attributes=attributes, label=op), operands)


@pytest.mark.parametrize("sizes", [(1, 0, 8, 8), (1, 3, -1, 8), (-1, 3, 8, 8), (0, 3, 8, 8)])
def test_nothing_is_expanded_to_nothing(sizes: tuple[int, ...]) -> None:
    """Of a size of 0 nothing is left in onnxruntime, so that a sum over it is 0."""
    nodes = [node("ReduceMean", "x", "m", axes=[1]), node("Expand", "m s", "y")]
    with pytest.raises(GraphFaultError) as caught:
        read_network(model(nodes, {"s": _ints(*sizes)}).SerializeToString())
    assert caught.value.rule == "onnx-sizes"


def test_no_stored_values_are_made_of_size_zero() -> None:
    nodes = [node("ConstantOfShape", "s", "c"), node("Concat", "x c", "y", axis=1)]
    with pytest.raises(GraphFaultError):
        read_network(model(nodes, {"s": _ints(1, 0, 8, 8)}).SerializeToString())


def test_values_made_of_shapes_have_one_limit_together() -> None:
    """Each of them alone is allowed and takes half a gigabyte."""
    nodes = [node("ConstantOfShape", "s", f"c{number}") for number in range(6)]
    content = model([*nodes, node("Relu", "x", "y")], {"s": _ints(2**24)}).SerializeToString()
    with pytest.raises(GraphFaultError) as caught:
        read_network(content)
    assert caught.value.rule == "onnx-too-large"


def test_copies_of_stored_values_have_a_limit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cast or a mask of a large tensor is another one as large, for a few bytes of the file."""
    monkeypatch.setattr("corobench.benchmark.submission.graph.network.MAX_ACTIVATION", 1000)
    stored = {"w": weights(500).astype(np.float16)}

    def casts(num: int) -> bytes:
        nodes = [node("Cast", "w", f"c{number}", to=TensorProto.FLOAT) for number in range(num)]
        return model([*nodes, node("Relu", "x", "y")], stored).SerializeToString()

    read_network(casts(4))
    with pytest.raises(GraphFaultError) as caught:
        read_network(casts(5))
    assert caught.value.rule == "onnx-too-large"


@pytest.mark.parametrize("is_border", [True, False])
def test_codes_save_bytes_only_where_their_values_are_counted(is_border: bool) -> None:
    """A border of one number is a setting: its 320 codes are no weights that take one byte each."""
    codes = np.full((1, 3, 4, 8), 7, np.uint8)
    if not is_border:
        codes[0, 0, 0, 0] = 1
    nodes = [node("DequantizeLinear", "c s z", "d"), node("Concat", "x d", "y", axis=2)]
    stored = {"c": codes, "s": np.float32(0.1).reshape(()), "z": np.array(0, np.uint8)}
    graph = read_network(model(nodes, stored).SerializeToString())
    counted = sum(tensor.numel() for tensor in graph.network.state_dict().values())
    assert (graph.codes.num_values, counted) == ((0, 0) if is_border else (codes.size, codes.size))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_arithmetic_is_the_runtimes(op: str, dtype: type) -> None:
    random = np.random.default_rng(0)
    for shapes in (((3,), (3,)), ((2, 3), (3,)), ((), (2,)), ((1,), ())):
        first, second = (random.integers(-40, 40, shape).astype(dtype) for shape in shapes)
        second = np.where(second == 0, 7, second).astype(dtype)
        found, expected = (make(op, [first, second]) for make in (_folded, _runtime))
        assert found.dtype == expected.dtype and found.shape == expected.shape
        assert (found == expected).all()


def test_quotients_of_large_numbers_are_exact() -> None:
    """Through float64 they would be off by one and more."""
    first, second = _ints(2**62 + 1, -(2**62) - 1, 2**53 + 1), _ints(1, 1, 1)
    assert (_folded("Div", [first, second]) == _runtime("Div", [first, second])).all()


def test_parts_of_whole_numbers_are_the_runtimes() -> None:
    """From and to places before the first value and behind the last, forwards and backwards."""
    values = _ints(5, 6, 7)
    places = [-(2**63) + 1, -5, -4, -3, -1, 0, 1, 2, 3, 4, 2**63 - 1]
    for start, end, step in itertools.product(places, places, (-2, -1, 1, 2)):
        given = [values, _ints(start), _ints(end), _ints(0), _ints(step)]
        if step < 0 and end >= len(values):
            with pytest.raises(GraphFaultError, match="ends behind the last value"):
                _folded("Slice", given)
            continue
        assert _folded("Slice", given).tolist() == _runtime("Slice", given).tolist(), given[1:]


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_product_is_the_runtimes(keepdims: int) -> None:
    values = _ints(3, -4, 5)
    for settings in ({}, {"axes": [0]}, {"axes": [-1]}):
        found, expected = (
            make("ReduceProd", [values], keepdims=keepdims, **settings)
            for make in (_folded, _runtime)
        )
        assert found.shape == expected.shape and (found == expected).all()


@pytest.mark.parametrize(
    ("op", "operands", "attributes"),
    [
        ("Mul", [np.array([65536], np.int32), np.array([65536], np.int32)], {}),
        ("Add", [np.array([2**31 - 1], np.int32), np.array([1], np.int32)], {}),
        ("Sub", [np.array([0], np.uint8), np.array([1], np.uint8)], {}),
        ("Mul", [_ints(2**62), _ints(4)], {}),
        ("Add", [_ints(1), np.array([1], np.int32)], {}),
        ("Concat", [_ints(1), np.array([1], np.int32)], {"axis": 0}),
        ("Cast", [_ints(2**32 + 1)], {"to": TensorProto.INT32}),
        ("Div", [_ints(1), _ints(0)], {}),
        ("ReduceProd", [np.array([[2, 3]], np.int64)], {"axes": [0]}),
    ],
)
def test_numbers_that_no_two_programs_need_agree_on_are_refused(
    op: str, operands: list[np.ndarray], attributes: dict[str, Any]
) -> None:
    with pytest.raises(GraphFaultError) as caught:
        _folded(op, operands, **attributes)
    assert caught.value.rule == "onnx-sizes"


def test_a_cast_keeps_the_number_and_has_the_type() -> None:
    for to, dtype in ((TensorProto.INT32, np.int32), (TensorProto.INT64, np.int64)):
        found = _folded("Cast", [_ints(7, -3)], to=to)
        assert found.dtype == dtype and found.tolist() == [7, -3]
