"""The network that is searched on computes the same function as the submitted one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmark.equivalent import MAX_MATRIX, equivalent, unrolled
from benchmark.submission.architectures import build

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


@pytest.mark.parametrize("kind", ["unrolled", "compacted"])
def test_attacks_and_certifiers_use_it_and_the_submitted_network_judges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A submission with dead filters: the result says what was searched on, and its finds hold."""
    from safetensors.torch import load_file, save_file

    from benchmark.evaluate import Settings, evaluate
    from benchmark.pipeline import Evaluation
    from benchmark.recheck import recheck
    from benchmark.stages.pgd import PGD

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
        monkeypatch.setattr("benchmark.equivalent.MAX_MATRIX", 0)
    searched = []
    propose = PGD.propose

    def noting(self: PGD, model: nn.Module, *rest):
        searched.append({type(layer) for layer in model})
        return propose(self, model, *rest)

    monkeypatch.setattr(PGD, "propose", noting)
    monkeypatch.setattr(Evaluation, "autoattack", lambda self: PGD(2, 1))
    done = evaluate(folder, Settings(n=100, out=tmp_path / "out"))
    assert done.result.searched_on == kind
    assert searched
    assert all((nn.Conv2d in layers) == (kind == "compacted") for layers in searched)
    assert done.result.compactness.num_parameters == sum(w.numel() for w in weights.values())
    found = recheck(done.path, folder)
    assert found.num_rows > 0
    assert not found.failures
