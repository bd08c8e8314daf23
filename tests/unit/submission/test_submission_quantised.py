"""Files of onnxruntime's own quantiser: twelve kinds of networks, three settings of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("onnxruntime")
pytest.importorskip("sklearn")

import quantised_nets as nets

from corobench.benchmark.submission import import_graph
from corobench.benchmark.submission.contract import find_broken_clauses, output_step
from corobench.benchmark.submission.graph.network import GraphModel, read_network
from corobench.benchmark.submission.graph.runtime import Runtime
from corobench.benchmark.submission.rounding import difference, in_quanta

#: Those of the default suite; the others are slow.
QUICK = ("mlp", "cnn")
SLOW = [name for name in nets.NETS if name not in QUICK]
NAMES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
NUM_IMAGES = 32


@pytest.fixture(scope="module", params=NAMES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float") / f"{request.param}.onnx"
    nets.export(nets.trained(request.param), path)
    return path


def read(path: Path) -> tuple[GraphModel, Runtime]:
    content = path.read_bytes()
    graph = read_network(content, (1, 8, 8))
    return graph, Runtime(content, graph.batch, optimise=False)


@pytest.mark.parametrize("setting", nets.SETTINGS)
def test_a_quantised_file_keeps_the_contract_on_real_images(
    exported: Path, setting: str, tmp_path: Path
) -> None:
    path = tmp_path / "quantised.onnx"
    nets.quantise(exported, path, setting)
    graph, runtime = read(path)
    assert graph.is_quantised
    x, labels = nets.images()
    x, labels = x[-NUM_IMAGES:], labels[-NUM_IMAGES:]
    assert find_broken_clauses(graph.network, x, 10, runtime) == []
    plain = read_network(exported.read_bytes(), (1, 8, 8)).network
    with torch.no_grad():
        right, before = (
            int((one(x).argmax(dim=1) == labels).sum()) for one in (graph.network, plain)
        )
    assert right >= before - NUM_IMAGES // 8


def test_import_says_the_figures(tmp_path: Path) -> None:
    nets.export(nets.trained("cnn"), tmp_path / "float.onnx")
    nets.quantise(tmp_path / "float.onnx", tmp_path / "net.onnx", "default")
    report = import_graph(tmp_path / "net.onnx", tmp_path / "entry", track="digits")
    assert any("quantised: one image at a time, " in note for note in report.notes)


def test_another_network_is_no_rounding(tmp_path: Path) -> None:
    """A quantised file with one weight changed by a twentieth of its range is told apart."""
    nets.export(nets.trained("cnn"), tmp_path / "float.onnx")
    nets.quantise(tmp_path / "float.onnx", tmp_path / "net.onnx", "default")
    graph, runtime = read(tmp_path / "net.onnx")
    x = nets.images()[0][:NUM_IMAGES]
    other, _ = read(tmp_path / "net.onnx")
    layer = [one for one in other.network.modules() if isinstance(one, torch.nn.Linear)][-1]
    layer.weight[0] *= 0.9
    step = output_step(graph.network)
    assert step is not None and step > 0
    with torch.no_grad():
        what, _ = difference(other.network(x), graph.network(x), step)
        figures = in_quanta(other.network(x), graph.network(x), step)
    assert what and "images have other logits" in figures
    faults = find_broken_clauses(other.network, x, 10, runtime)
    assert any("same-as-runtime" in fault for fault in faults)
