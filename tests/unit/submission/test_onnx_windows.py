"""Convolutions and pooling: borders, steps and gaps as onnxruntime takes them, or refused.

Runtimes pad by rules of their own where windows do not fit. A network that is read otherwise than
it is run gets certificates that are wrong, so every setting is either computed as onnxruntime
computes it, with and without its optimisations, or refused.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from onnx_models import model, node

from corobench.benchmark.submission.graph.network import read_network
from corobench.benchmark.submission.graph.rules import GraphFaultError
from corobench.benchmark.submission.graph.runtime import Runtime

NUM = 400


def _settings(draw: random.Random, op: str, opset: int) -> dict[str, Any]:
    def sizes(most: int) -> list[int]:
        return [draw.randint(1, most), draw.randint(1, most)]

    found: dict[str, Any] = {"kernel_shape": sizes(4), "strides": sizes(5)}
    if draw.random() < 0.4 and (op != "AveragePool" or opset >= 19):
        found["dilations"] = sizes(3)
    border = draw.random()
    if border < 0.5:
        found["auto_pad"] = draw.choice(("SAME_UPPER", "SAME_LOWER", "VALID"))
    elif border < 0.9:
        found["pads"] = [draw.randint(0, 3) for _ in range(4)]
    if op != "Conv" and draw.random() < 0.4:
        found["ceil_mode"] = 1
    if op == "AveragePool" and draw.random() < 0.5:
        found["count_include_pad"] = 1
    return found


def _file(op: str, opset: int, size: tuple[int, int], settings: dict[str, Any]) -> bytes:
    stored = {}
    if op == "Conv":
        shape = (4, 2, *settings["kernel_shape"])
        stored["w"] = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    nodes = [node(op, "x w" if stored else "x", "c", **settings), node("Flatten", "c", "y")]
    return model(nodes, stored, image=("N", 2, *size), opset=opset).SerializeToString()


@pytest.mark.parametrize("op", ["Conv", "MaxPool", "AveragePool"])
def test_windows_are_those_of_the_runtime_or_refused(op: str) -> None:
    draw = random.Random(f"{op} windows")
    num_compared = num_refused = 0
    for number in range(NUM):
        opset, size = draw.choice((13, 18, 19, 21)), (draw.randint(3, 9), draw.randint(3, 9))
        settings = _settings(draw, op, opset)
        content = _file(op, opset, size, settings)
        try:
            found = read_network(content).network
        except GraphFaultError:
            num_refused += 1
            continue
        x = torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(number))
        for optimise in (False, True):
            try:
                expected = Runtime(content, optimise=optimise)(x)
            except RuntimeError:  # such an entry is refused by its contract
                continue
            torch.testing.assert_close(found(x), expected, atol=1e-4, rtol=0, msg=str(settings))
            num_compared += 1
    assert num_compared > NUM / 2 and num_refused > NUM / 40


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "is_read"),
    [
        (8, 3, 2, 1, True),
        (8, 1, 2, 1, True),  # one value is reached by no window, as in residual shortcuts
        (9, 1, 4, 1, True),
        (8, 1, 4, 1, False),  # three are, and onnxruntime begins at the second
        (8, 1, 5, 1, False),
        (
            9,
            3,
            1,
            2,
            False,
        ),  # it pads a pooling as if there were no gaps, and refuses a convolution
    ],
)
def test_where_the_first_window_begins(
    mode: str, size: int, kernel: int, stride: int, dilation: int, is_read: bool
) -> None:
    for op in ("Conv", "MaxPool"):
        settings = {
            "kernel_shape": [kernel] * 2,
            "strides": [stride] * 2,
            "dilations": [dilation] * 2,
            "auto_pad": mode,
        }
        content = _file(op, 18, (size, size), settings)
        if is_read:
            read_network(content)
            continue
        with pytest.raises(GraphFaultError, match="`auto_pad`") as caught:
            read_network(content)
        assert caught.value.rule == "onnx-attribute"
