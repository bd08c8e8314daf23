"""What checkpoints must agree on: keys added later are in it only where a recipe uses them."""

from __future__ import annotations

import json
from typing import Annotated, ClassVar

import pytest
from pydantic import BaseModel

from corobench.baselines.objectives.pgd_at import PgdAt
from corobench.baselines.pruners.lwm import Lwm
from corobench.baselines.recipe_file import load_recipe
from corobench.baselines.settings import LATER, Registered
from corobench.baselines.train_stage import Awp, Regrowth, Thresholding, TrainStage

#: As they are in stored checkpoints, character by character.
FINETUNE = (
    '{"objective": {"name": "pgd-at", "num_steps": 7, "step_rate": 0.25, "clean_rate": 0.0, '
    '"label_smoothing": 0.0}, "epochs": 12, "epsilon": null, "batch_size": 128, '
    '"clip_norm": null, "augmentation": "none", "precision": "float32", "l1": 0.0, '
    '"averaging": null, "norm_batches": 0, "optimiser": {"name": "adam", "lr": 0.002, '
    '"momentum": 0.9, "nesterov": false, "weight_decay": 0.0}, "lr_schedule": {"name": '
    '"cosine", "milestones": [0.5, 0.75], "factor": 0.1}, "ramp": {"warmup_epochs": 0.0, '
    '"epochs": 2.0}}'
)
PRUNE = (
    '{"pruner": {"name": "lwm", "exempt": []}, "keep_ratio": 0.1, "schedule": "one-shot", '
    '"num_steps": 1, "cumulative": "geometric", "epochs_between": 1, "rewind": "none"}'
)
HYDRA = (
    '{"name": "hydra", "exempt": [], "epochs": 5, "lr": 0.1, "momentum": 0.9, '
    '"score_decay": 0.0, "augmentation": "none", "trains_norms": false}'
)


def written(table: BaseModel | None) -> str:
    assert table is not None
    return json.dumps(table.model_dump(mode="json"))


def test_a_recipe_without_younger_keys_is_written_as_its_checkpoints_have_it() -> None:
    recipe = load_recipe("fashion-mnist/adv-lwm-10x")
    assert written(recipe.finetune) == FINETUNE
    assert written(recipe.prune) == PRUNE
    hydra = load_recipe("fashion-mnist/ibp-hydra-10x").prune
    assert hydra is not None and written(hydra.pruner) == HYDRA


@pytest.mark.parametrize(
    ("update", "added"),
    [
        ({"awp": Awp()}, {"awp": {"gamma": 0.01, "warmup_epochs": 0.0}}),
        ({"thresholding": Thresholding()}, {"thresholding": {"every": 1}}),
        ({"regrowth": Regrowth()}, {"regrowth": {"every": 100, "share": 0.3, "until": 0.75}}),
    ],
)
def test_a_younger_key_that_is_used_is_written(
    update: dict[str, object], added: dict[str, object]
) -> None:
    stage = TrainStage(objective=PgdAt(), epochs=2)
    before, after = stage.model_dump(mode="json"), stage.model_copy(update=update)
    assert after.model_dump(mode="json") == before | added


def test_a_distribution_that_is_used_is_written() -> None:
    assert "distribution" not in Lwm().model_dump(mode="json")
    assert Lwm(distribution="erk").model_dump(mode="json")["distribution"] == "erk"


def test_younger_keys_are_left_out_of_subclasses_too() -> None:
    class Old(Registered):
        name: ClassVar[str] = "old"
        plain: int = 1
        young: Annotated[int, LATER] = 2

    class New(Old):
        name: ClassVar[str] = "new"
        own: int = 3

    assert New().model_dump() == {"name": "new", "plain": 1, "own": 3}
    assert New(young=4).model_dump()["young"] == 4
