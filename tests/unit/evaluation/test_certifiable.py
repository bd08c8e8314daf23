"""Which certifiers will be asked is told before an evaluation, with the reason for each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnx import NodeProto
from onnx_models import model, node, weights

from corobench.benchmark.evaluation.certifiable import list_certifiers
from corobench.benchmark.submission.importing import import_graph
from corobench.benchmark.tracks import Protocol


def _folder(tmp_path: Path, nodes: Sequence[NodeProto], image: Sequence[int] = (1, 8, 8)) -> Path:
    end = [node("Flatten", "r", "f"), node("Gemm", "f w b", "y")]
    tensors = {"w": weights(64, 10), "b": weights(10)}
    content = model([*nodes, *end], tensors, image=("N", *image)).SerializeToString()
    (tmp_path / "net.onnx").write_bytes(content)
    return import_graph(tmp_path / "net.onnx", tmp_path / "entry", track="digits").folder


def test_all_certifiers_are_asked_about_a_plain_network(tmp_path: Path) -> None:
    (line,) = list_certifiers(_folder(tmp_path, [node("Relu", "x", "r")]))
    assert line == f"certifiers that will be asked: {', '.join(Protocol().all_certifiers)}"


def test_what_stops_a_certifier_is_named_with_what_is_needed(tmp_path: Path) -> None:
    first, why, last = list_certifiers(_folder(tmp_path, [node("ReduceMax", "x", "r", axes=[1])]))
    assert first == "certifiers that will be asked: none"
    assert "no-checker: the checker does not know a maximum over other axes" in why
    assert "take maxima over windows of maps (MaxPool2d), or of two values" in why
    assert "stands apart on the board" in last


def test_the_order_of_an_image_is_said(tmp_path: Path) -> None:
    note, _ = list_certifiers(_folder(tmp_path, [node("Relu", "x", "r")], image=(64,)))
    assert note.startswith("note: the file takes images as 64")
