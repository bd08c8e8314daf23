"""The network that is searched on computes the same function as the submitted one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from corobench.benchmark.network.equivalent import MAX_MATRIX, equivalent, unrolled
from corobench.benchmark.submission.architectures import build

X = torch.rand(8, 2, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1},
        {"stride": 2, "padding": (1, 0)},
        {"dilation": 2},
        {"bias": False},
    ],
)
def test_a_convolution_is_the_matrix_it_is(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 4, 3, **options)
    size = conv(X)[0].numel()
    model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(size, 3)).eval()
    network = unrolled(model, (2, 8, 8), X)
    assert network is not None
    assert [type(layer) for layer in network] == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]
    with torch.no_grad():
        assert torch.allclose(network(X), model(X), atol=1e-5)
    weights = set(conv.weight.flatten().tolist())
    assert set(network[1].weight.flatten().tolist()) <= weights | {0.0}


def test_neurons_dead_at_their_position_go() -> None:
    """A weight that is read at one position only leaves the other positions unread."""
    torch.manual_seed(0)
    conv, linear = nn.Conv2d(2, 4, 3), nn.Linear(4 * 36, 3)
    with torch.no_grad():
        linear.weight.view(3, 4, 6, 6)[:, :, 1:] = 0
    model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), linear).eval()
    network = unrolled(model, (2, 8, 8), X)
    assert network is not None
    assert network[1].weight.shape == (4 * 6, 2 * 64)
    with torch.no_grad():
        assert torch.allclose(network(X), model(X), atol=1e-5)


def test_large_matrices_and_other_networks_are_left_alone() -> None:
    wide = nn.Sequential(nn.Conv2d(2, 16, 3, padding=1), nn.Flatten(), nn.Linear(1024, 3)).eval()
    assert MAX_MATRIX < 128 * 1024
    assert equivalent(wide, (2, 8, 8), X) is None
    pooled = nn.Sequential(nn.Conv2d(2, 2, 3), nn.AvgPool2d(6), nn.Flatten(), nn.Linear(2, 3))
    assert unrolled(pooled.eval(), (2, 8, 8), X) is None
    partly = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Flatten(2), nn.Linear(36, 3)).eval()
    assert unrolled(partly, (2, 8, 8), X) is None
    residual = build("resnet18", (2, 8, 8), 3, {"width": 0.125}).eval()
    assert equivalent(residual, (2, 8, 8), X) is None


def test_without_a_convolution_nothing_is_unrolled() -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(128, 3)).eval()
    assert unrolled(linear, (2, 8, 8), X) is None


def _short(evaluation: object) -> object:
    """A short PGD in AutoAttack's place, for time."""
    from corobench.benchmark.attacks.pgd import PGD

    attack = PGD(2, 1)
    attack.name = "autoattack"
    return attack


@pytest.mark.parametrize("kind", ["unrolled", "compacted"])
def test_attacks_and_certifiers_use_it_and_the_submitted_network_judges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A submission with dead filters: the result says what was searched on, and its finds hold."""
    from safetensors.torch import load_file, save_file

    from corobench.benchmark.attacks.pgd import PGD
    from corobench.benchmark.evaluation.evaluate import Settings, evaluate
    from corobench.benchmark.evaluation.pipeline import Evaluation
    from corobench.benchmark.review.recheck import recheck

    folder = tmp_path / "template"
    shutil.copytree(Path(__file__).parents[2] / "submissions" / "_template", folder)
    weights = load_file(folder / "model.safetensors")
    first = next(name for name, tensor in weights.items() if tensor.ndim == 4)
    weights[first][1:] = 0
    weights[first.replace("weight", "bias")][1:] = 0
    save_file(weights, folder / "model.safetensors")
    manifest = (folder / "submission.toml").read_text()
    num_zero = sum(int((w == 0).sum()) for name, w in weights.items() if w.ndim > 1)
    total = sum(w.numel() for w in weights.values() if w.ndim > 1)
    lines = [line for line in manifest.splitlines() if not line.startswith("sparsity")]
    lines.insert(1, f"sparsity = {num_zero / total:.4f}")
    (folder / "submission.toml").write_text("\n".join(lines))

    if kind == "compacted":
        monkeypatch.setattr("corobench.benchmark.network.equivalent.MAX_MATRIX", 0)
    searched = []
    propose = PGD.propose

    def noting(self: PGD, model: nn.Module, *rest):
        searched.append({type(layer) for layer in model.modules()})
        return propose(self, model, *rest)

    monkeypatch.setattr(PGD, "propose", noting)
    monkeypatch.setattr(Evaluation, "autoattack", _short)
    done = evaluate(folder, Settings(n=100, out=tmp_path / "out"))
    assert done.result.searched_on == kind
    assert searched
    assert all((nn.Conv2d in layers) == (kind == "compacted") for layers in searched)
    assert done.result.compactness.num_parameters == sum(w.numel() for w in weights.values())
    found = recheck(done.path, folder)
    assert found.num_rows > 0
    assert not found.failures


def _residual(tmp_path: Path) -> Path:
    """A small ResNet-18 for digits, half of whose channels inside the blocks are dead."""
    from corobench.benchmark.submission import write_weights

    torch.manual_seed(0)
    model = build("resnet18", (1, 8, 8), 10, {"width": 0.125}).eval()
    with torch.no_grad():
        for block in model.modules():
            if hasattr(block, "shortcut"):
                half = len(block.bn1.weight) // 2
                block.conv1.weight[:half] = 0.0
    folder = tmp_path / "residual"
    folder.mkdir()
    write_weights(folder / "model.safetensors", model.state_dict())
    layers = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    zero = sum(int((w == 0).sum()) for w in layers) / sum(w.numel() for w in layers)
    (folder / "submission.toml").write_text(
        f"""schema = 1
id = "residual"
title = "Residual"
authors = ["Ada"]
licence = "MIT"
track = "digits"
sparsity = {zero:.4f}
[model]
architecture = "resnet18"
arguments = {{width = 0.125}}
weights = "model.safetensors"
num_classes = 10
[method]
name = "half of the blocks"
pipeline = "none"
pretrain_objective = "none"
[training]
data = "none"
"""
    )
    return folder


@pytest.mark.slow
def test_dead_channels_inside_blocks_are_not_searched_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result says so, holds on the submitted network, and its answers are those without it."""
    from corobench.benchmark.evaluation import evaluate as evaluation
    from corobench.benchmark.evaluation import prepared
    from corobench.benchmark.evaluation.pipeline import Evaluation
    from corobench.benchmark.evaluation.settings import Settings
    from corobench.benchmark.records.reading.places import beside
    from corobench.benchmark.records.reading.table_file import read_outcomes
    from corobench.benchmark.review.recheck import recheck
    from corobench.benchmark.tracks import Protocol

    folder = _residual(tmp_path)
    weak = Protocol(closing_certifiers=(), pgd_restarts=1)
    monkeypatch.setattr(Settings, "protocol", property(lambda self: weak))
    monkeypatch.setattr(Evaluation, "autoattack", _short)
    done = evaluation.evaluate(folder, Settings(n=60, epsilons=("1/256",), out=tmp_path / "a"))
    assert done.result.searched_on == "compacted"
    found = recheck(done.path, folder)
    assert not found.failures
    monkeypatch.setattr(prepared, "equivalent", lambda *arguments: None)
    other = evaluation.evaluate(folder, Settings(n=60, epsilons=("1/256",), out=tmp_path / "b"))
    assert other.result.searched_on == "submitted"
    mine, theirs = (
        read_outcomes(beside(one.path, "outcomes.parquet"))[0]["outcome"].tolist()
        for one in (done, other)
    )
    assert mine == theirs
    assert len(set(mine)) > 1


def test_compact_writes_the_smaller_network_of_blocks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from corobench.benchmark.cli.main import invoke
    from corobench.benchmark.submission import load_submission

    folder = _residual(tmp_path)
    assert invoke(["compact", str(folder), "--out", str(tmp_path / "smaller")]) == 0
    assert "120 of " in capsys.readouterr().out
    before, after = load_submission(folder), load_submission(tmp_path / "smaller")
    x = torch.rand(16, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(before.model(x), after.model(x), atol=1e-5)
    sizes = [one.measure() for one in (before, after)]
    assert sizes[1].num_parameters < 0.8 * sizes[0].num_parameters
    assert sizes[0].equivalent is not None
    # The ONNX file itself has nothing left to remove.
    assert sizes[1].equivalent is not None
    assert sizes[1].equivalent.num_removed == 0
