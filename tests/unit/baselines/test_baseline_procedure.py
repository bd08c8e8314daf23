"""The procedure end to end on a slice of digits: stages, resume, pause, what is written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from corobench.baselines import procedure
from corobench.baselines.masks import prunable_weights
from corobench.baselines.progress import Progress
from corobench.baselines.pruners import PRUNERS, PruneContext, ScorePruner
from corobench.baselines.recipe import Recipe
from corobench.baselines.recipe_file import load_recipe
from corobench.benchmark.errors import ConfigError, OutputError
from corobench.benchmark.network.compactness import sparsity
from corobench.benchmark.submission import load_submission
from corobench.benchmark.submission.validate import validate

DENSE = """
id = "tiny-dense"
title = "tiny"
method = "dense"
track = "digits"
epsilon = "2/16"
validation_rate = 0.9
validation_images = 60
[model]
architecture = "cnn-small"
[pretrain]
objective = { name = "ibp" }
epochs = 4
batch_size = 32
clip_norm = 1.0
augmentation = "crop"
optimiser = { name = "sgd", lr = 0.05, weight_decay = 1e-3 }
ramp = { warmup_epochs = 1, epochs = 2 }
"""
PRUNED = """
id = "tiny-10x"
title = "tiny 10x"
method = "LWM 10x"
parent = "tiny-dense"
[prune]
pruner = { name = "lwm" }
keep_ratio = 0.1
schedule = "iterative"
num_steps = 2
epochs_between = 2
[finetune]
objective = { name = "pgd-at", num_steps = 2 }
epochs = 3
batch_size = 32
augmentation = "crop-flip"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "tiny-dense.toml").write_text(DENSE)
    (tmp_path / "tiny-10x.toml").write_text(PRUNED)
    return load_recipe(tmp_path / "tiny-10x.toml")


@pytest.fixture
def whole(recipe: Recipe, tmp_path: Path) -> bytes:
    """Weights of a run that nothing interrupts."""
    procedure.run(recipe, tmp_path / "whole")
    return (tmp_path / "whole" / "tiny-10x" / "model.safetensors").read_bytes()


def test_the_whole_procedure_gives_two_valid_submissions(recipe: Recipe, tmp_path: Path) -> None:
    told: list[Progress] = []
    trained = procedure.run(recipe, tmp_path / "out", progress=told.append)
    assert trained.is_finished and trained.folder == tmp_path / "out" / "tiny-10x"
    assert list(dict.fromkeys((p.entry, p.stage) for p in told)) == [
        ("tiny-dense", "pretrain"),
        ("tiny-10x", "prune-1"),
        ("tiny-10x", "recover-1"),
        ("tiny-10x", "prune-2"),
        ("tiny-10x", "finetune"),
    ]
    assert len(told) == 4 + 1 + 2 + 1 + 3
    assert trained.selected is not None and trained.selected.epoch in (1, 2, 3)

    pruned = load_submission(trained.folder)
    dense = load_submission(tmp_path / "out" / "tiny-dense")
    assert pruned.manifest.parent == "tiny-dense" and dense.manifest.parent is None
    assert pruned.sparsity == pytest.approx(0.9, abs=1e-4)
    assert pruned.manifest.sparsity == pytest.approx(pruned.sparsity, abs=1e-6)
    method = pruned.manifest.method
    assert (method.pretrain_objective, method.finetune_objective) == ("ibp", "pgd-at")
    assert (method.pipeline, method.schedule, method.scope) == ("after", "iterative", "layer-wise")
    assert dense.manifest.method.pipeline == "none" and dense.sparsity == 0.0
    assert [faults for _, faults in validate([trained.folder, dense.folder])] == [[], []]

    logs = tmp_path / "out" / ".train" / "tiny-10x"
    assert len((logs / "finetune.csv").read_text().splitlines()) == 4
    assert (logs / "curve.png").read_bytes()[:4] == b"\x89PNG"
    assert (logs / "summary.json").is_file()
    state = torch.load(logs / "finetune.pt", weights_only=True)["state"]
    assert set(state) == {"weights", "optimiser", "best", "history"}


def test_every_layer_holds_its_share_of_zeros_to_the_end(recipe: Recipe, tmp_path: Path) -> None:
    procedure.run(recipe, tmp_path / "out")
    state = load_file(tmp_path / "out" / "tiny-10x" / "model.safetensors")
    for name in prunable_weights(procedure.initial_model(recipe)):
        weight = state[name]
        zeros = int((weight == 0).sum())
        assert zeros == weight.numel() * 9 // 10, name


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_run_killed_again_and_again_ends_at_the_same_weights(
    recipe: Recipe, tmp_path: Path, whole: bytes, stop_after: int
) -> None:
    class Killed(BaseException):
        pass

    def run_for(num_epochs: int) -> bool:
        count = 0

        def kill(progress: Progress) -> None:
            nonlocal count
            count += progress.row is not None
            if count == num_epochs:
                raise Killed

        try:
            procedure.run(recipe, tmp_path / "out", checkpoint_every_s=0.0, progress=kill)
        except Killed:
            return False
        return True

    num_runs = 1
    while not run_for(stop_after):
        num_runs += 1
    assert num_runs > 9 // stop_after
    assert (tmp_path / "out" / "tiny-10x" / "model.safetensors").read_bytes() == whole
    log = (tmp_path / "out" / ".train" / "tiny-10x" / "finetune.csv").read_text()
    assert [line.split(",")[0] for line in log.splitlines()] == ["epoch", "1", "2", "3"]


def test_kill_9_and_resume_with_epochs_lost_since_the_last_save(
    recipe: Recipe, tmp_path: Path, whole: bytes
) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from corobench.baselines import procedure
from corobench.baselines.recipe_file import load_recipe
def kill(progress):
    if progress.stage == "finetune" and progress.row.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
procedure.run(load_recipe(sys.argv[1]), Path(sys.argv[2]), progress=kill)
"""
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "tiny-10x.toml"), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not (out / "tiny-10x" / "model.safetensors").exists()
    procedure.run(recipe, out)
    assert (out / "tiny-10x" / "model.safetensors").read_bytes() == whole


def test_slices_of_no_time_still_end_at_the_same_weights(
    recipe: Recipe, tmp_path: Path, whole: bytes
) -> None:
    pauses = []
    while not (trained := procedure.run(recipe, tmp_path / "out", max_minutes=1e-9)).is_finished:
        pauses.append((trained.entry, trained.stage, trained.epoch))
        assert not (trained.folder / "model.safetensors").exists()
    assert pauses[:3] == [("tiny-dense", "pretrain", epoch) for epoch in (1, 2, 3)]
    assert ("tiny-10x", "finetune", 2) in pauses
    assert (tmp_path / "out" / "tiny-10x" / "model.safetensors").read_bytes() == whole


def test_a_finished_recipe_trains_nothing_again(recipe: Recipe, tmp_path: Path) -> None:
    first = procedure.run(recipe, tmp_path / "out")
    told: list[Progress] = []
    again = procedure.run(recipe, tmp_path / "out", progress=told.append)
    assert all(progress.row is None for progress in told)
    assert again == first


def test_arms_share_one_parent(recipe: Recipe, tmp_path: Path) -> None:
    procedure.run(recipe, tmp_path / "out")
    assert recipe.finetune is not None
    other = recipe.model_copy(update={"id": "tiny-other"})
    told: list[Progress] = []
    procedure.run(other, tmp_path / "out", progress=told.append)
    assert {progress.entry for progress in told} == {"tiny-other"}


def test_a_published_parent_is_read_instead_of_trained(
    recipe: Recipe, tmp_path: Path, whole: bytes
) -> None:
    told: list[Progress] = []
    procedure.run(recipe, tmp_path / "out", parents=tmp_path / "whole", progress=told.append)
    assert {progress.entry for progress in told} == {"tiny-10x"}
    assert (tmp_path / "out" / "tiny-10x" / "model.safetensors").read_bytes() == whole
    assert not (tmp_path / "out" / "tiny-dense").exists()
    # A folder without it: the parent is trained as ever.
    (tmp_path / "empty").mkdir()
    procedure.run(recipe, tmp_path / "again", parents=tmp_path / "empty")
    assert (tmp_path / "again" / "tiny-10x" / "model.safetensors").read_bytes() == whole


def test_weights_stored_in_bf16_are_what_the_child_starts_from_and_what_is_measured(
    recipe: Recipe, tmp_path: Path
) -> None:
    assert recipe.parent is not None
    dense = recipe.parent.model_copy(update={"stored": "bf16"})
    child = recipe.model_copy(update={"parent": dense, "stored": "bf16"})
    at_once = procedure.run(child, tmp_path / "at-once")
    procedure.run(dense, tmp_path / "first")
    after = procedure.run(child, tmp_path / "after", parents=tmp_path / "first")
    files = [done.folder / "model.safetensors" for done in (at_once, after)]
    assert files[0].read_bytes() == files[1].read_bytes()
    stored = load_file(files[1]).values()
    assert {tensor.dtype for tensor in stored if tensor.ndim > 1} == {torch.bfloat16}
    assert {tensor.dtype for tensor in stored if tensor.ndim == 1} == {torch.float32}
    submission = load_submission(after.folder)
    assert sparsity(submission.model) == pytest.approx(0.9, abs=0.01)
    assert validate([after.folder]) == [(after.folder, [])]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('objective = "ibp"', 'objective = "natural"', "`method`: expected"),
        ("seed = 0", "seed = 7", r"`training.seed`: expected 0.* found 7"),
    ],
)
def test_a_published_parent_of_another_recipe_is_refused(
    recipe: Recipe, tmp_path: Path, whole: bytes, old: str, new: str, message: str
) -> None:
    manifest = tmp_path / "whole" / "tiny-dense" / "submission.toml"
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        procedure.run(recipe, tmp_path / "out", parents=tmp_path / "whole")


def test_seeds_differ_and_repeat(recipe: Recipe, tmp_path: Path, whole: bytes) -> None:
    other = procedure.run(recipe, tmp_path / "out", seed=1)
    assert other.entry == "tiny-10x-s1"
    assert load_submission(other.folder).manifest.parent == "tiny-dense-s1"
    assert (other.folder / "model.safetensors").read_bytes() != whole


def test_a_changed_recipe_does_not_go_on_from_another_ones_checkpoint(
    recipe: Recipe, tmp_path: Path
) -> None:
    procedure.run(recipe, tmp_path / "out")
    assert recipe.finetune is not None
    changed = recipe.model_copy(
        update={"finetune": recipe.finetune.model_copy(update={"batch_size": 16})}
    )
    with pytest.raises(ConfigError, match="batch_size: 32 -> 16"):
        procedure.run(changed, tmp_path / "out")


def test_a_damaged_checkpoint_is_named(recipe: Recipe, tmp_path: Path) -> None:
    procedure.run(recipe, tmp_path / "out")
    path = tmp_path / "out" / ".train" / "tiny-10x" / "finetune.pt"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"finetune\.pt: not a readable checkpoint"):
        procedure.run(recipe, tmp_path / "out")


def test_a_folder_that_cannot_be_written_fails_before_training(
    recipe: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        procedure.run(recipe, tmp_path / "file" / "out")


def test_an_unknown_device_is_an_error(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--device gpu: not usable here"):
        procedure.run(recipe, tmp_path / "out", device="gpu")


def test_a_diverging_loss_is_an_error_that_says_what_to_do(recipe: Recipe, tmp_path: Path) -> None:
    dense = recipe.parent
    assert dense is not None and dense.pretrain is not None
    wild = dense.pretrain.optimiser.model_copy(update={"lr": 1e30})
    stage = dense.pretrain.model_copy(update={"optimiser": wild, "clip_norm": None})
    with pytest.raises(ConfigError, match=r"pretrain: the loss became .* lower"):
        procedure.run(dense.model_copy(update={"pretrain": stage}), tmp_path / "out")


def test_rewinding_puts_kept_weights_back_to_their_first_values(
    recipe: Recipe, tmp_path: Path
) -> None:
    assert recipe.prune is not None
    rewound = recipe.model_copy(
        update={"prune": recipe.prune.model_copy(update={"rewind": "init"})}
    )
    procedure.run(rewound, tmp_path / "out")
    path = tmp_path / "out" / ".train" / "tiny-10x" / "prune-2.pt"
    weights = torch.load(path, weights_only=True)["state"]["weights"]
    first = procedure.initial_model(recipe).state_dict()
    for name, value in weights.items():
        kept = value != 0
        assert torch.equal(value[kept], first[name][kept])


def test_a_pruner_is_added_by_one_class_and_one_line(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Largest(ScorePruner):
        """Remove the largest magnitudes."""

        name: ClassVar[str] = "largest"
        criterion: ClassVar[str] = "most-weight-magnitude"

        def scores(self, model: nn.Module, context: PruneContext) -> Mapping[str, Tensor]:
            assert not hasattr(context, "objective")
            return {name: -weight.abs() for name, weight in prunable_weights(model).items()}

    monkeypatch.setitem(PRUNERS, "largest", Largest)
    (tmp_path / "tiny-largest.toml").write_text(
        PRUNED.replace('"lwm"', '"largest"').replace("tiny-10x", "tiny-largest")
    )
    trained = procedure.run(load_recipe(tmp_path / "tiny-largest.toml"), tmp_path / "out")
    submission = load_submission(trained.folder)
    assert submission.manifest.method.criterion == "most-weight-magnitude"
    assert sparsity(submission.model) == pytest.approx(0.9, abs=1e-4)


@pytest.mark.parametrize("pruner", ["filter-l1", "snip", "hydra", "lwm-global"])
def test_every_pruner_runs_end_to_end(recipe: Recipe, tmp_path: Path, pruner: str) -> None:
    more = ", epochs = 1" if pruner == "hydra" else ""
    text = PRUNED.replace('name = "lwm"', f'name = "{pruner}"{more}').replace(
        "keep_ratio = 0.1", "keep_ratio = 0.4"
    )
    (tmp_path / "tiny-10x.toml").write_text(text)
    trained = procedure.run(load_recipe(tmp_path / "tiny-10x.toml"), tmp_path / "out")
    assert load_submission(trained.folder).sparsity == pytest.approx(0.6, abs=0.02)
