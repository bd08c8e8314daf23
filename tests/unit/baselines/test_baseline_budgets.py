"""How long entries are trained: counted by hand, and as the document says."""

from __future__ import annotations

from pathlib import Path

import pytest

from corobench.baselines.budgets import arm_of, budget_of, budget_table, family_of
from corobench.baselines.recipe import Recipe, packaged_names
from corobench.baselines.recipe_file import load_recipe

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "reference-entries.md"

DENSE = """
id = "tiny-dense"
title = "tiny"
method = "dense"
track = "digits"
epsilon = "2/16"
[model]
architecture = "cnn-small"
[pretrain]
objective = { name = "natural" }
epochs = 30
optimiser = { lr = 0.5 }
lr_schedule = { name = "steps", milestones = [0.5, 0.75], factor = 0.1 }
"""
PRUNED = """
id = "tiny-pruned"
title = "tiny"
method = "pruned"
parent = "tiny-dense"
[prune]
pruner = { name = "lwm" }
keep_ratio = 0.1
[finetune]
objective = { name = "natural" }
epochs = 7
optimiser = { lr = 0.25 }
lr_schedule = { name = "cosine" }
"""
ROUNDS = 'schedule = "iterative"\nnum_steps = 4\nepochs_between = 2\n'


def _recipe(folder: Path, *, prune: str = "", pruner: str = "") -> Recipe:
    (folder / "tiny-dense.toml").write_text(DENSE)
    text = PRUNED.replace("[finetune]", f"{prune}[finetune]")
    path = folder / "tiny-pruned.toml"
    path.write_text(text.replace('{ name = "lwm" }', pruner) if pruner else text)
    return load_recipe(path)


@pytest.mark.parametrize(
    ("prune", "pruner", "parts", "weights"),
    [
        ("", "", (30, 0, 7), 37),
        (ROUNDS, "", (30, 6, 7), 43),
        ('rewind = "init"\n', "", (30, 0, 7), 7),
        (f'{ROUNDS}rewind = "init"\n', "", (30, 6, 7), 7),
        ("", '{ name = "hydra", epochs = 5 }', (30, 5, 7), 37),
        (ROUNDS, '{ name = "hydra", epochs = 5 }', (30, 26, 7), 43),
        ("", '{ name = "snip" }', (30, 0, 7), 37),
    ],
)
def test_epochs_counted_by_hand(
    tmp_path: Path, prune: str, pruner: str, parts: tuple[int, int, int], weights: int
) -> None:
    budget = budget_of(_recipe(tmp_path, prune=prune, pruner=pruner))
    assert (budget.dense, budget.pruning, budget.last) == parts
    assert budget.total == sum(parts)
    assert budget.weights == weights


def test_learning_rates_end_where_their_schedule_does(tmp_path: Path) -> None:
    budget = budget_of(_recipe(tmp_path))
    assert budget.lr_dense == pytest.approx((0.5, 0.005))
    assert budget.lr_last == (0.25, 0.0)


def test_what_has_no_parent_is_counted_from_its_own_tables(tmp_path: Path) -> None:
    _recipe(tmp_path)
    dense = budget_of(load_recipe(tmp_path / "tiny-dense.toml"))
    assert (dense.dense, dense.pruning, dense.last, dense.weights) == (30, 0, 0, 30)
    assert dense.lr_last is None
    before = tmp_path / "tiny-before.toml"
    before.write_text(DENSE.split("[pretrain]")[0] + "[prune]" + PRUNED.split("[prune]")[1])
    snip = budget_of(load_recipe(before))
    assert (snip.dense, snip.pruning, snip.last, snip.weights) == (0, 0, 7, 7)
    assert snip.lr_dense is None


@pytest.mark.parametrize("family", ["adv", "ibp"])
@pytest.mark.parametrize(
    "arm",
    [
        "dense-long",
        "small-dense-long",
        "snip-long",
        "flyingbird-long",
        "lottery-long",
        "random-10x",
        "lamp-10x",
        "lwm-regrown-10x",
    ],
)
def test_a_fair_rival_trains_its_weights_as_long_as_the_papers(family: str, arm: str) -> None:
    ours = budget_of(load_recipe(f"fashion-mnist/{family}-lwm-10x"))
    theirs = budget_of(load_recipe(f"fashion-mnist/{family}-{arm}"))
    assert theirs.weights == ours.weights == ours.total
    assert theirs.total >= ours.total


@pytest.mark.parametrize("name", packaged_names())
def test_every_packaged_recipe_is_in_the_table_of_its_track_once(name: str) -> None:
    recipe = load_recipe(name)
    rows = [line.split(" | ") for line in budget_table(recipe.track).splitlines()]
    family = family_of(recipe)[: family_of(recipe).rindex("-dense")]
    assert f"{family}-{arm_of(recipe)}" == recipe.id
    found = [row for row in rows if row[0] == f"| {family}" and f"`{arm_of(recipe)}`" in row[1]]
    assert len(found) == 1
    assert found[0][5] == str(budget_of(recipe).total)


def test_the_document_holds_the_table_that_the_recipes_give() -> None:
    """`python perf/budget_table.py fashion-mnist` after a recipe is added or changed."""
    assert f"\n\n{budget_table('fashion-mnist')}\n" in DOCUMENT.read_text("utf-8")
