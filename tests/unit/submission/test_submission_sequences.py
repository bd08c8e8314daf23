"""Checkpoints of certified training: networks in one sequence, whatever places it counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.submission.architectures import build
from corobench.benchmark.submission.importing import import_checkpoint
from corobench.benchmark.submission.load import load_submission
from corobench.benchmark.submission.sequences import match_by_order

WIDTH = 0.05
SHAPE = (3, 32, 32)


def trained(name: str = "cnn7", **arguments: object) -> nn.Module:
    """A network whose batch-norms have seen images."""
    torch.manual_seed(3)
    model = build(name, SHAPE, 10, {"width": WIDTH, **arguments})
    for _ in range(2):
        model(torch.rand(8, *SHAPE))
    return model.eval()


def moved(state: dict[str, Tensor], prefix: str, by: int = 0) -> dict[str, Tensor]:
    """The same tensors, named after later places of a sequence with another name."""
    found = {}
    for name, tensor in state.items():
        place, key = name.split(".")
        found[f"{prefix}{int(place) + by}.{key}"] = tensor
    return found


def imported(state: object, folder: Path, name: str = "cnn7", **arguments: object):  # type: ignore[no-untyped-def]
    torch.save(state, folder / "checkpoint.pth")
    out = folder / "entry"
    report = import_checkpoint(
        folder / "checkpoint.pth",
        out,
        architecture=name,
        track="cifar10",
        arguments={"width": WIDTH, **arguments},
        images=torch.rand(4, *SHAPE),
    )
    return report, load_submission(out).model.eval()


@pytest.mark.parametrize("name", ["cnn5", "cnn7"])
@pytest.mark.parametrize("prefix", ["", "layers.", "module.layers.", "net.blocks."])
def test_any_name_of_the_sequence_fits(tmp_path: Path, name: str, prefix: str) -> None:
    model = trained(name)
    _, found = imported({"state_dict": moved(model.state_dict(), prefix)}, tmp_path, name)
    x = torch.rand(4, *SHAPE)
    assert torch.equal(found(x), model(x))


def test_a_normalisation_in_front_moves_the_places(tmp_path: Path) -> None:
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
    model = trained(mean=mean, std=std)
    state = moved(dict(model.network.state_dict()), "blocks.", 1)
    state |= {"blocks.0.mean": torch.tensor(mean).view(1, 3, 1, 1)}
    state |= {"blocks.0.sigma": torch.tensor(std).view(1, 3, 1, 1)}
    _, found = imported(state, tmp_path, mean=mean, std=std)
    x = torch.rand(4, *SHAPE)
    assert torch.equal(found(x), model(x))


def test_a_normalisation_that_the_arguments_lack_is_told(tmp_path: Path) -> None:
    state = moved(trained().state_dict(), "", 1)
    state |= {"0.mean": torch.full((3,), 0.5), "0.sigma": torch.full((3,), 0.25)}
    with pytest.raises(SubmissionError, match=r"give the arguments mean=\[0.5, 0.5, 0.5\]"):
        imported(state, tmp_path)


def test_statistics_of_the_last_batch_are_left_out(tmp_path: Path) -> None:
    model = trained()
    state = moved(model.state_dict(), "layers.", 2)
    norms = [name for name in state if name.endswith("running_mean")]
    for name in norms:
        for key in ("current_mean", "current_var"):
            state[name.replace("running_mean", key)] = torch.rand(len(state[name]))
    _, found = imported(state, tmp_path)
    x = torch.rand(4, *SHAPE)
    assert torch.equal(found(x), model(x))


def test_without_the_batch_norm_behind_the_hidden_layer(tmp_path: Path) -> None:
    layers = list(trained())
    source = nn.Sequential(*layers[:17], *layers[18:]).eval()
    report, found = imported(source.state_dict(), tmp_path)
    x = torch.rand(4, *SHAPE)
    assert torch.allclose(found(x), source(x), atol=1e-6)
    assert any("no such batch-norm in the checkpoint" in note for note in report.notes)


def test_another_depth_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match="tensor"):
        imported(trained("cnn5").state_dict(), tmp_path)


def test_layers_of_other_shapes_or_in_another_order_do_not_fit() -> None:
    wanted = {"0.weight": torch.zeros(3, 2), "2.weight": torch.zeros(4, 3)}
    assert match_by_order({"1.weight": torch.zeros(4, 3)}, wanted) is None
    swapped = {"0.weight": torch.zeros(4, 3), "5.weight": torch.zeros(3, 2)}
    assert match_by_order(swapped, wanted) is None
    assert match_by_order({"conv.weight": torch.zeros(3, 2)}, wanted) is None
    two = {"a.0.weight": torch.zeros(3, 2), "b.1.weight": torch.zeros(4, 3)}
    assert match_by_order(two, wanted) is None
