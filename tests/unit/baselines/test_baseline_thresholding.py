"""Masks that are chosen anew from all weights, and groups of weights by L2 norm (VeriCompress)."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_recipes import DENSE
from torch import nn

from corobench.baselines import procedure
from corobench.baselines.masks import Masks, prunable_weights
from corobench.baselines.measures import LazyBounds
from corobench.baselines.objectives.natural import Natural
from corobench.baselines.pruners import PRUNERS, PruneContext
from corobench.baselines.pruners.group_l2 import GroupL2, group_norms
from corobench.baselines.recipe_file import load_recipe
from corobench.baselines.train_stage import Optimiser, Thresholding, TrainStage
from corobench.baselines.trainer import StageTrainer
from corobench.baselines.training_data import TrainingData
from corobench.benchmark.errors import ConfigError
from corobench.benchmark.submission import load_submission

PRUNED = """
[prune]
pruner = { name = "group-l2" }
keep_ratio = 0.3
[finetune]
objective = { name = "ibp" }
epochs = 4
batch_size = 32
optimiser = { lr = 0.01 }
thresholding = { every = 2 }
"""


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10), nn.ReLU(), nn.Linear(10, 2)
    )


def _context(previous: Masks | None = None) -> PruneContext:
    def nothing(*_: object) -> torch.Tensor:
        raise AssertionError("the weights alone decide")

    generator = torch.Generator().manual_seed(0)
    return PruneContext(previous or Masks(), generator, nothing, lambda: iter(()))


def _any(mask: torch.Tensor, along: int | tuple[int, ...]) -> torch.Tensor:
    return mask.float().sum(dim=along) > 0


def test_the_groups_of_least_norm_go() -> None:
    model = _network()
    masks = GroupL2().masks(model, 0.3, _context())
    weights = prunable_weights(model)
    assert set(masks) == set(weights)
    total = sum(weight.numel() for weight in weights.values())
    # 216, 2880 and 20 weights; the layer in the middle loses twice the share.
    share = Fraction(7, 10) * total / (2880 + Fraction(216 + 20, 2))
    for (name, weight), rate in zip(weights.items(), (share / 2, share, share / 2), strict=True):
        along = (1, 2, 3) if weight.dim() == 4 else 0
        norms, kept = torch.linalg.vector_norm(weight.detach(), dim=along), _any(masks[name], along)
        assert torch.equal(~_any(~masks[name], along), kept)  # whole groups
        assert int((~kept).sum()) == int(rate * len(norms))
        assert norms[kept].min() > norms[~kept].max()
    left = sum(int(mask.sum()) for mask in masks.values())
    assert (
        0.3 * total
        <= left
        <= 0.3 * total
        + sum(weight.numel() / len(group_norms(weight)) for weight in weights.values())
    )


def test_what_an_earlier_round_removed_goes_first() -> None:
    model = _network()
    first = GroupL2().masks(model, 0.6, _context())
    later = GroupL2().masks(model, 0.3, _context(first))
    assert all(not (later[name] & ~first[name]).any() for name in first)


def test_a_share_that_leaves_a_layer_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="would have nothing left"):
        GroupL2().masks(_network(), 0.01, _context())


def _trainer(every: int, averaging: float | None = None) -> StageTrainer:
    model = _network()
    x = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    data = TrainingData(x, torch.arange(40) % 2, x[:2], torch.arange(2), "canonical", "")
    settings = TrainStage(
        objective=Natural(),
        epochs=4,
        batch_size=8,
        averaging=averaging,
        optimiser=Optimiser(lr=0.05),
        thresholding=Thresholding(every=every),
    )

    def choose() -> Masks:
        return GroupL2().masks(model, 0.3, _context())

    masks = choose()
    masks.apply(model)
    bounds = LazyBounds(model, (3, 8, 8), 2)
    epsilon = Fraction(1, 10)
    return StageTrainer(
        "finetune", settings, model, masks, data, epsilon, lambda *_: 0, bounds, None, choose
    )


def _gone(made: StageTrainer) -> list[torch.Tensor]:
    weights = prunable_weights(made.model)
    return [weights[name][~mask] for name, mask in made.masks.items()]


def test_removed_weights_train_until_the_next_choice() -> None:
    made = _trainer(every=1)
    assert not any(gone.any() for gone in _gone(made))
    made._step(torch.arange(8), 0.0)
    weights = prunable_weights(made.model)
    assert weights["3.weight"][~made.masks["3.weight"]].any()
    before = {name: mask.clone() for name, mask in made.masks.items()}
    made._epoch(0)
    assert not any(gone.any() for gone in _gone(made))
    wanted = GroupL2().masks(made.model, 0.3, _context())
    assert all(torch.equal(wanted[name], mask) for name, mask in made.masks.items())
    assert any(not torch.equal(before[name], mask) for name, mask in made.masks.items())


def test_epochs_between_two_choices_are_never_selected() -> None:
    made = _trainer(every=2)
    rows = [made._epoch(epoch) for epoch in range(4)]
    assert not rows[0].is_best and not rows[2].is_best
    assert any(row.is_best for row in rows)
    made.model.load_state_dict(made._best["weights"])
    made.masks = Masks(made._best["masks"])
    assert not any(gone.any() for gone in _gone(made))


def test_averages_are_thresholded_with_the_weights() -> None:
    made = _trainer(every=1, averaging=0.9)
    made._epoch(0)
    assert made._average is not None
    with made._average.in_place():
        assert not any(gone.any() for gone in _gone(made))


def _write(folder: Path, child: str = PRUNED) -> Path:
    head = DENSE.split("[pretrain]")[0].replace("tiny-dense", "tiny-3x")
    (folder / "tiny-3x.toml").write_text(head + child)
    return folder / "tiny-3x.toml"


def test_a_network_is_thresholded_end_to_end_and_resumed_to_the_same_weights(
    tmp_path: Path,
) -> None:
    recipe = load_recipe(_write(tmp_path))
    whole = procedure.run(recipe, tmp_path / "whole")
    while not procedure.run(recipe, tmp_path / "slices", max_minutes=1e-9).is_finished:
        pass
    name = "tiny-3x/model.safetensors"
    assert (tmp_path / "slices" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    method = load_submission(whole.folder).manifest.method
    assert (method.pipeline, method.structure) == ("during", "structured")
    assert method.criterion == "group-l2-norm (chosen anew in training)"
    logs = tmp_path / "whole" / ".train" / "tiny-3x"
    best = torch.load(logs / "finetune.pt", weights_only=True)["state"]["best"]
    weights = load_file(tmp_path / "whole" / name)
    assert best["masks"]
    for key, mask in best["masks"].items():
        assert not weights[key][~mask].any()


def test_another_pruner_does_not_go_on_from_the_same_checkpoint(tmp_path: Path) -> None:
    """The pruner decides every mask; its first ones may even be the same."""
    out = tmp_path / "out"
    procedure.run(load_recipe(_write(tmp_path)), out)
    other = PRUNED.replace('"group-l2"', '"group-l2", exempt = ["first"]')
    (out / ".train" / "tiny-3x" / "prune.pt").unlink()
    with pytest.raises(ConfigError, match="pruner"):
        procedure.run(load_recipe(_write(tmp_path, other)), out)


@pytest.mark.parametrize("name", sorted(PRUNERS))
def test_only_pruners_that_read_weights_alone_are_asked_again(name: str, tmp_path: Path) -> None:
    path = _write(tmp_path, PRUNED.replace('"group-l2"', f'"{name}"'))
    if PRUNERS[name].reads_weights_alone:
        assert load_recipe(path).prune is not None
        return
    with pytest.raises(ConfigError, match="decides by more than the weights"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("every = 2", "evry = 2", "unknown key 'evry': did you mean 'every'"),
        ("every = 2", "every = 3", "must be a multiple"),
        ("thresholding", "regrowth = {}\nthresholding", "both change the masks"),
        (
            "keep_ratio = 0.3",
            'keep_ratio = 0.3\nschedule = "iterative"\nnum_steps = 2',
            "one-shot",
        ),
        ('"group-l2"', '"group-l2", distribution = "erk"', "decides itself how much"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in PRUNED
    with pytest.raises(ConfigError) as caught:
        load_recipe(_write(tmp_path, PRUNED.replace(old, new)))
    assert said in caught.value.message


def test_dense_training_has_no_masks_to_choose(tmp_path: Path) -> None:
    path = tmp_path / "tiny-dense.toml"
    path.write_text(f"{DENSE}\nthresholding = {{ every = 1 }}\n")
    with pytest.raises(ConfigError, match=r"thresholding: \[pretrain\] has no masks"):
        load_recipe(path)
