"""An entry whose weights are mostly another's, or that says it is another's training."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import pytest
import torch
from leaderboard_factory import make_result
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from corobench.benchmark.cli import intake
from corobench.benchmark.data import load_test, subset
from corobench.benchmark.errors import DatasetError
from corobench.benchmark.submission import load_submission
from corobench.benchmark.submission.likeness import NUM_ORDERED, is_near, orders
from corobench.leaderboard.loading import identity
from corobench.leaderboard.seeds import trainings

ROOT = Path(__file__).parents[3]
ENTRY = "digits-ibp-lwm-10x"
OTHER = "digits-ibp-random-10x"
PARENT = "digits-ibp-dense"


@pytest.fixture
def board(tmp_path: Path) -> Path:
    folder = tmp_path / "submissions"
    for name in (PARENT, ENTRY, OTHER):
        shutil.copytree(ROOT / "submissions" / name, folder / name)
    return folder


def _copy(board: Path, of: str = ENTRY, **changed: str) -> Path:
    """A stranger's copy of an entry, all keys of its manifest alike but its id."""
    folder = board / "copied"
    shutil.copytree(board / of, folder)
    path = folder / "submission.toml"
    text = path.read_text().replace(f'id = "{of}"', 'id = "copied"')
    for key, value in changed.items():
        before = next(line for line in text.splitlines() if line.startswith(f"{key} = "))
        text = text.replace(before, f"{key} = {value}")
    path.write_text(text)
    return folder


def _examine(folder: Path) -> tuple[list[str], tuple[str, ...]]:
    found = intake.examine(folder, sorted(folder.parent.iterdir()), ())
    return list(found.faults), found.notes


def _change(folder: Path, share: float) -> None:
    """Move a share of the weights that are not zero; of none, take the smallest one away."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in tensors.items():
        hit = (torch.rand(tensor.shape, generator=generator) < share) & (tensor != 0)
        tensors[name] = torch.where(hit, tensor * 1.25, tensor)
    if not share:
        largest = max(tensors.values(), key=torch.Tensor.numel)
        left = largest[largest != 0]
        largest[largest == left[left.abs().argmin()]] = 0.0
    save_file(tensors, path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.4])
def test_a_copy_with_a_few_weights_changed_is_another_entrys(board: Path, share: float) -> None:
    folder = _copy(board, seed="7")
    _change(folder, share)
    faults, _ = _examine(folder)
    assert len(faults) == 1, faults
    assert "weights are, bit for bit and in their places, those of digits-ibp-lwm-10x" in faults[0]


def test_weights_of_the_named_parent_are_the_entrys_own(board: Path) -> None:
    """Pruning without training leaves each weight as the parent has it, and two such entries share
    what both took over."""
    weights = load_file(board / PARENT / "model.safetensors")
    for name, share in ((ENTRY, 0.6), (OTHER, 0.55)):
        pruned = {}
        for key, tensor in weights.items():
            limit = tensor.abs().flatten().quantile(share if tensor.dim() > 1 else 0.0)
            pruned[key] = torch.where(tensor.abs() >= limit, tensor, torch.zeros_like(tensor))
        save_file(pruned, board / name / "model.safetensors")
        path = board / name / "submission.toml"
        lines = [line for line in path.read_text().splitlines() if not line.startswith("sparsity")]
        path.write_text("\n".join(lines) + "\n")
    assert _examine(board / ENTRY)[0] == []


def _strangers(board: Path, share: float) -> Path:
    """A changed copy under another name, by others."""
    folder = _copy(board, title='"Mine"')
    path = folder / "submission.toml"
    path.write_text(path.read_text().replace('"the corobench team"', '"A. Stranger"'))
    _change(folder, share)
    return folder


@pytest.mark.parametrize("is_theirs", [False, True])
def test_whoever_merges_is_told_of_a_copy_in_another_order(board: Path, is_theirs: bool) -> None:
    """No weight is where it was, and one is gone, so that it is smaller; whoever says it is his."""
    folder = _copy(board, title='"Mine"') if is_theirs else _strangers(board, 0.0)
    _change(folder, 0.0)
    _reorder(folder / "model.safetensors")
    faults, (note,) = _examine(folder)
    assert faults == []
    assert f"computes nearly what {ENTRY} does, by the corobench team" in note


class _Hidden(nn.Module):
    """A copy with bent logits, and a neuron that reads a corner, which is dark on images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits = nn.functional.leaky_relu(self.model(x), 0.25)
        fires = torch.relu(x[:, 0, 0, 0] - 0.05)
        return torch.cat([logits[:, :1] + 50.0 * fires[:, None], logits[:, 1:]], dim=1)


def test_what_changes_logits_on_noise_alone_hides_no_copy(board: Path) -> None:
    entry, other = (load_submission(board / name) for name in (ENTRY, OTHER))
    copied = replace(entry, model=_Hidden(entry.model))
    images = torch.from_numpy(subset(load_test("digits"), NUM_ORDERED)[0])
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    assert not is_near(orders(copied, noise), orders(entry, noise))
    assert is_near(orders(copied, images), orders(entry, images))
    assert not is_near(orders(copied, images), orders(other, images))


def test_a_child_of_its_parent_is_near_to_nobody_else(board: Path) -> None:
    """Few weights are pruned: it computes nearly what its parent does, as it says."""
    folder = _strangers(board, 0.9)
    weights = load_file(board / PARENT / "model.safetensors")
    pruned = {
        name: torch.where(one.abs() >= one.abs().flatten().quantile(0.1), one, 0.0 * one)
        for name, one in weights.items()
    }
    save_file(pruned, folder / "model.safetensors")
    path = folder / "submission.toml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("sparsity")]
    path.write_text("\n".join(lines) + "\n")
    assert _examine(folder) == ([], ())


def _reorder(path: Path) -> None:
    """The channels and neurons of each layer in another order, twice as large, and halved again."""
    tensors = load_file(path)
    layers = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    for layer, then in pairwise(layers):
        width = len(tensors[f"{layer}.bias"])
        order = torch.randperm(width, generator=torch.Generator().manual_seed(2))
        for name in (f"{layer}.weight", f"{layer}.bias"):
            tensors[name] = 2.0 * tensors[name][order]
        reads = tensors[f"{then}.weight"]
        parts = reads.reshape(len(reads), width, -1)[:, order]
        tensors[f"{then}.weight"] = 0.5 * parts.reshape(reads.shape)
    save_file({name: one.contiguous() for name, one in tensors.items()}, path)


def test_another_training_is_near_to_none(board: Path) -> None:
    assert _examine(_strangers(board, 0.9)) == ([], ())


@pytest.mark.slow
@pytest.mark.parametrize("track", ["digits", "fashion-mnist"])
def test_of_all_published_entries_only_conversions_are_near_each_other(track: str) -> None:
    """So that whoever merges is not told of every second entry."""
    try:
        images = torch.from_numpy(subset(load_test(track), NUM_ORDERED)[0])
    except DatasetError:
        pytest.skip("needs the images of the track")
    known = {
        path.parent.name: orders(load_submission(path.parent), images)
        for path in ROOT.glob(f"submissions/{track}-*/submission.toml")
    }
    near = {
        tuple(sorted(names))
        for names in combinations(known, 2)
        if is_near(known[names[0]], known[names[1]])
    }
    assert near
    assert all(second.removeprefix(first) in ("-bf16", "-int8") for first, second in near)


def test_an_entry_is_not_one_seed_of_a_training_twice(board: Path) -> None:
    folder = _copy(board)
    _change(folder, 0.9)
    faults, _ = _examine(folder)
    (fault,) = faults
    assert fault.startswith("submission.toml: `training.seed`: digits-ibp-lwm-10x says that it is")


def test_whoever_merges_is_told_what_an_entry_would_count_as(board: Path) -> None:
    folder = _copy(board, seed="7")
    _change(folder, 0.9)
    faults, (note,) = _examine(folder)
    assert faults == []
    assert "one more seed of a training by the corobench team" in note
    assert f"{ENTRY} (seed 0)" in note and OTHER not in note


@pytest.mark.parametrize(
    ("old", "new"), [('"the corobench team"', '"A. Stranger"'), ("LWM 10x", "LWM mine 10x")]
)
def test_others_are_no_seed_of_it(board: Path, old: str, new: str) -> None:
    folder = _copy(board)
    path = folder / "submission.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    _change(folder, 0.9)
    assert _examine(folder) == ([], ())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("CNN-small, IBP training, LWM 10x", " CNN-small,\u00a0ibp training, LWM 10x"),
        ("CNN-small, IBP training, LWM 10x", "CNN-small, IBP training, LWM 10\uff58"),
        ('"the corobench team",', '"the corobench team", "The  corobench team",'),
        ('licence = "MIT"', 'licence = "Apache-2.0"'),
    ],
)
def test_what_nobody_sees_makes_no_other_training(board: Path, old: str, new: str) -> None:
    folder = _copy(board)
    path = folder / "submission.toml"
    assert old in path.read_text("utf-8")
    path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")
    _change(folder, 0.9)
    faults, _ = _examine(folder)
    assert any("says that it is seed 0 of this very training" in fault for fault in faults)


def test_a_negative_seed_is_none(board: Path) -> None:
    faults, _ = _examine(_copy(board, seed="-1"))
    assert any("seed" in fault for fault in faults)


def test_two_results_of_one_seed_take_no_seed_from_the_others() -> None:
    """Results that are merged all the same: neither of the two counts, the others still do."""
    results = []
    for entry, seed in (("a", 0), ("b", 1), ("c", 2), ("copied", 0)):
        result = make_result(entry)
        training = result.submission.training.model_copy(update={"seed": seed})
        submission = result.submission.model_copy(update={"training": training, "title": "One"})
        results.append(result.model_copy(update={"submission": submission}))
    assert {identity(one)[0] for one in results[1:3]} == {key[0] for key in trainings(results)}
    assert len(trainings(results[:3])) == 3
