"""An entry whose weights are mostly another's, or that says it is another's training."""

from __future__ import annotations

import shutil
from itertools import combinations, pairwise
from pathlib import Path

import pytest
import torch
from leaderboard_factory import make_result
from safetensors.torch import load_file, save_file

from corobench.benchmark.cli import intake
from corobench.benchmark.submission import load_submission
from corobench.benchmark.submission.likeness import is_near
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


def test_whoever_merges_is_told_of_a_copy_in_another_order(board: Path) -> None:
    """No weight is where it was, and one is gone, so that it is smaller."""
    folder = _strangers(board, 0.0)
    path = folder / "model.safetensors"
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
    faults, (note,) = _examine(folder)
    assert faults == []
    assert f"computes nearly what {ENTRY} does, by the corobench team" in note


def test_another_training_is_near_to_none(board: Path) -> None:
    assert _examine(_strangers(board, 0.9)) == ([], ())


@pytest.mark.slow
def test_of_all_published_entries_only_conversions_are_near_each_other() -> None:
    """So that whoever merges is not told of every second entry."""
    board = [load_submission(path.parent) for path in ROOT.glob("submissions/*/submission.toml")]
    near = {
        tuple(sorted((one.manifest.id, other.manifest.id)))
        for one, other in combinations(board, 2)
        if is_near(one, other)
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
