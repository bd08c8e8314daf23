"""Recipes: what is refused, and how it is said; what the packaged ones promise."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch

from corobench.baselines.objectives import OBJECTIVES, Objective
from corobench.baselines.pruners import PRUNERS
from corobench.baselines.publish import manifest_of
from corobench.baselines.recipe import packaged_names
from corobench.baselines.recipe_file import load_recipe
from corobench.baselines.schedules import keep_ratios, lr_factor, ramp
from corobench.baselines.stages import Prune, Train, plan
from corobench.benchmark.errors import ConfigError

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
epochs = 3
"""
PRUNED = """
id = "tiny-10x"
title = "tiny"
method = "LWM 10x"
parent = "tiny-dense"
[prune]
pruner = { name = "lwm" }
keep_ratio = 0.1
[finetune]
objective = { name = "pgd-at", num_steps = 2 }
epochs = 2
"""


def _write(folder: Path, text: str, name: str = "tiny-dense") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epochs = 3", "epoch = 3", "[pretrain] unknown key 'epoch': did you mean 'epochs'?"),
        ("title", "titel", "unknown key 'titel': did you mean 'title'?"),
        ("natural", "natura", "unknown objective 'natura': did you mean 'natural'?"),
        ('"2/16"', '"0.125"', "0.031 is not 8/255"),
        ("digits", "digit", "unknown track 'digit': did you mean 'digits'?"),
        ("epochs = 3", "epochs = 0", "[pretrain] epochs: Input should be greater than"),
        ("epochs = 3", "", "[pretrain] key 'epochs' is missing"),
        ('name = "natural"', 'naem = "natural"', "[pretrain.objective]: key 'name' is missing"),
        (
            '{ name = "natural" }',
            '{ name = "pgd-at", steps = 3 }',
            "[pretrain.objective] unknown key 'steps': did you mean 'num_steps'?",
        ),
        (
            "epochs = 3",
            "epochs = 3\noptimiser = { name = 'adam', l = 1.0 }",
            "[pretrain.optimiser] unknown key 'l': did you mean 'lr'?",
        ),
        ("epochs = 3", "epochs = 3\nramp = { epochs = 3 }", "the ramp must end before"),
        ("[model]", "[modle]", "unknown key 'modle': did you mean 'model'?"),
        ("[pretrain]", "[pretrain", "not valid TOML"),
    ],
)
def test_a_fault_names_file_table_key_and_the_nearest_known(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in DENSE
    path = _write(tmp_path, DENSE.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert str(path) in caught.value.message
    assert said in caught.value.message


def test_all_faults_are_listed_at_once(tmp_path: Path) -> None:
    text = DENSE.replace("title", "titel").replace("epochs = 3", "epochs = -1")
    with pytest.raises(ConfigError) as caught:
        load_recipe(_write(tmp_path, text.replace("natural", "nature")))
    assert caught.value.message.count("\n  - ") == 4


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("keep_ratio = 0.1", "keep_ratio = 1.5", "[prune] keep_ratio: Input should be less than"),
        ("keep_ratio", "keep_rate", "[prune] unknown key 'keep_rate': did you mean 'keep_ratio'?"),
        ('"lwm"', '"lwn"', "[prune.pruner] name: unknown pruner 'lwn': did you mean 'lwm'?"),
        ("keep_ratio = 0.1", "keep_ratio = 0.1\nnum_steps = 3", "iterative is 2 or more"),
        ('"tiny-dense"', '"tiny-dens"', "parent 'tiny-dens': no recipe of that id beside it"),
        ('"tiny-dense"', '"tiny-10x"', "cannot be its own ancestor"),
        ("[prune]", 'counterpart = "x"\n[prune]', "compared with it: remove counterpart"),
        ("[prune]", 'track = "digits"\n[prune]', "track: is taken from the parent 'tiny-dense'"),
    ],
)
def test_faults_of_a_pruned_recipe(tmp_path: Path, old: str, new: str, said: str) -> None:
    _write(tmp_path, DENSE)
    path = _write(tmp_path, PRUNED.replace(old, new), "tiny-10x")
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert said in caught.value.message


def test_a_recipe_of_ones_own_starts_from_a_packaged_network(tmp_path: Path) -> None:
    recipe = load_recipe(_write(tmp_path, PRUNED.replace("tiny-dense", "digits-adv-dense"), "own"))
    assert recipe.parent == load_recipe("digits/adv-dense")
    assert (recipe.track, recipe.epsilon) == ("digits", "2/16")


@pytest.mark.parametrize(
    ("parent", "said"),
    [
        ("digits-adv-dens", "did you mean 'digits-adv-dense'"),
        ("digits/adv-dense", "is 'digits-adv-dense'; write that"),
        ("adv-dense", "adv-dense'; write that"),
    ],
)
def test_a_parent_is_named_by_its_id(tmp_path: Path, parent: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_recipe(_write(tmp_path, PRUNED.replace("tiny-dense", parent), "own"))


def test_an_unknown_recipe_names_the_nearest_packaged_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'digits/adv-dense'"):
        load_recipe("digits/adv-dens")


def test_file_name_and_id_find_the_same_packaged_recipe() -> None:
    assert load_recipe("digits/adv-lwm-10x") == load_recipe("digits-adv-lwm-10x")


def test_another_seed_is_another_entry_and_so_is_its_parent() -> None:
    recipe = load_recipe("digits/adv-lwm-10x").with_seed(2)
    assert recipe.id == "digits-adv-lwm-10x-s2" and recipe.seed == 2
    assert recipe.parent is not None
    assert recipe.parent.id == "digits-adv-dense-s2" and recipe.parent.seed == 2
    assert recipe.with_seed(None) is recipe


@pytest.mark.parametrize(
    ("name", "criterion"),
    [
        ("ibp-lwm-10x", "least-weight-magnitude"),
        ("ibp-lottery-10x", "lottery-ticket (least-weight-magnitude)"),
        ("ibp-lwm-exempt-10x", "least-weight-magnitude (first and last layer dense)"),
        ("ibp-snip-10x", "gradient"),
        ("ibp-lwm-erk-10x", "least-weight-magnitude (ERK)"),
        ("ibp-lwm-regrown-10x", "least-weight-magnitude (regrown by gradient)"),
        ("ibp-flyingbird-long", "random (ERK, regrown by gradient)"),
    ],
)
def test_the_manifest_tells_variants_of_a_pruner_apart(name: str, criterion: str) -> None:
    manifest = manifest_of(load_recipe(f"fashion-mnist/{name}"), 0.9, "canonical")
    assert manifest.method.criterion == criterion
    assert manifest.parent == "fashion-mnist-ibp-dense"


def test_the_counterpart_of_another_seed_has_that_seed() -> None:
    for arm in ("snip-10x", "small-dense"):
        recipe = load_recipe(f"fashion-mnist/adv-{arm}").with_seed(2)
        assert recipe.parent is None and recipe.compared_with == "fashion-mnist-adv-dense-s2"


@pytest.mark.parametrize("name", packaged_names())
def test_every_counterpart_is_a_dense_recipe(name: str) -> None:
    recipe = load_recipe(name)
    if recipe.counterpart is not None:
        dense = load_recipe(recipe.counterpart)
        assert dense.prune is None and dense.track == recipe.track
        assert dense.model.architecture == recipe.model.architecture


@pytest.mark.parametrize("name", packaged_names())
def test_packaged_recipes_load_and_are_called_after_their_file(name: str) -> None:
    assert load_recipe(name).id == name.replace("/", "-")


@pytest.mark.parametrize("name", [n for n in packaged_names() if n.endswith("-mismatch-10x")])
def test_the_mismatched_arm_differs_in_its_objective_and_ramp_alone(name: str) -> None:
    """No arm is tuned against: the other settings are those of the paper's arm."""
    arm, paper = load_recipe(name), load_recipe(name.replace("mismatch", "lwm"))
    assert arm.prune == paper.prune and arm.parent == paper.parent
    assert arm.finetune is not None and paper.finetune is not None
    same = {"objective": arm.finetune.objective, "ramp": arm.finetune.ramp}
    assert paper.finetune.model_copy(update=same) == arm.finetune
    assert arm.finetune.objective.name == "natural"
    assert paper.parent is not None and paper.parent.pretrain is not None
    assert paper.finetune.objective.name == paper.parent.pretrain.objective.name


@pytest.mark.parametrize("family", ["adv", "ibp"])
@pytest.mark.parametrize(
    ("longer", "shorter"),
    [
        ("small-dense-long", "small-dense"),
        ("dense-long", "dense"),
        ("snip-long", "snip-10x"),
        ("lottery-long", "lottery-10x"),
    ],
)
def test_a_longer_arm_differs_in_its_epochs_alone(family: str, longer: str, shorter: str) -> None:
    """It is trained as long as the dense parent and its pruned child together."""
    long, short, paper = (
        load_recipe(f"fashion-mnist/{family}-{arm}") for arm in (longer, shorter, "lwm-10x")
    )
    assert paper.parent is not None and paper.parent.pretrain is not None
    assert paper.finetune is not None
    epochs = paper.parent.pretrain.epochs + paper.finetune.epochs
    table = "pretrain" if short.prune is None else "finetune"
    stage = getattr(short, table).model_copy(update={"epochs": epochs})
    names = {"id": long.id, "title": long.title, "method": long.method}
    # What is trained longer is measured against the dense network that all others come from.
    against = {} if short.compared_with else {"counterpart": short.id}
    assert long == short.model_copy(update={**names, **against, table: stage})
    assert long.compared_with == paper.parent.id
    assert (long.title, long.method) == (
        f"{short.title}, trained longer",
        f"{short.method}, trained longer",
    )


@pytest.mark.parametrize("name", [n for n in packaged_names() if n.endswith("-random-10x")])
def test_the_random_arm_differs_in_its_pruner_alone(name: str) -> None:
    arm, paper = load_recipe(name), load_recipe(name.replace("random", "lwm"))
    assert arm.finetune == paper.finetune and arm.parent == paper.parent
    assert arm.prune is not None and paper.prune is not None
    assert arm.prune.model_copy(update={"pruner": paper.prune.pruner}) == paper.prune


@pytest.mark.parametrize(
    ("arm", "other", "differs"),
    [
        ("adv-rslad-10x", "adv-lwm-10x", {"finetune": {"objective"}}),
        (
            "ibp-vericompress-long",
            "ibp-snip-long",
            {"prune": {"pruner"}, "finetune": {"thresholding"}},
        ),
        ("ibp-ad-cert-10x", "ibp-lwm-10x", {"finetune": {"objective"}}),
        ("ibp-feature-cert-10x", "ibp-ad-cert-10x", {"finetune": {"objective"}}),
        ("adv-lwm-awp-10x", "adv-lwm-10x", {"finetune": {"awp"}}),
        *(
            (f"{family}-{arm}", f"{family}-{other}", differs)
            for family in ("adv", "ibp")
            for arm, other, differs in (
                ("lwm-erk-10x", "lwm-10x", {"prune": {"pruner"}}),
                ("lamp-10x", "lwm-10x", {"prune": {"pruner"}}),
                ("harp-10x", "hydra-10x", {"prune": {"pruner"}}),
                ("s2ap-10x", "hydra-10x", {"prune": {"pruner"}}),
                ("filter-l1-live-10x", "filter-l1-10x", {"prune": {"pruner"}}),
                ("lwm-regrown-10x", "lwm-10x", {"finetune": {"regrowth"}}),
                ("flyingbird-long", "snip-long", {"prune": {"pruner"}, "finetune": {"regrowth"}}),
            )
        ),
    ],
)
def test_an_arm_differs_in_what_it_is_named_after_alone(
    arm: str, other: str, differs: dict[str, set[str]]
) -> None:
    one, two = (
        load_recipe(f"fashion-mnist/{name}").model_dump(mode="json") for name in (arm, other)
    )
    found = {key for key in one if one[key] != two[key]}
    assert found == {"id", "title", "method", *differs}
    for table, keys in differs.items():
        both = {*one[table], *two[table]}
        assert {key for key in both if one[table].get(key) != two[table].get(key)} == keys
    assert one["title"] != one["method"] and one["method"] != two["method"]


def test_a_manifest_tells_that_weights_were_perturbed() -> None:
    method = manifest_of(load_recipe("fashion-mnist/adv-lwm-awp-10x"), 0.9, "canonical").method
    assert (method.pretrain_objective, method.finetune_objective) == ("pgd-at", "pgd-at with AWP")


def test_the_plan_of_an_iterative_recipe(tmp_path: Path) -> None:
    _write(tmp_path, DENSE)
    rounds = 'keep_ratio = 0.125\nschedule = "iterative"\nnum_steps = 3\nepochs_between = 4'
    recipe = load_recipe(_write(tmp_path, PRUNED.replace("keep_ratio = 0.1", rounds), "tiny-10x"))
    stages = plan(recipe)
    names = ["prune-1", "recover-1", "prune-2", "recover-2", "prune-3", "finetune"]
    assert [stage.name for stage in stages] == names
    assert [s.keep_ratio for s in stages if isinstance(s, Prune)] == [0.5, 0.25, 0.125]
    assert [s.settings.epochs for s in stages if isinstance(s, Train)] == [4, 4, 2]


def test_a_recipe_without_pretraining_prunes_first(tmp_path: Path) -> None:
    text = DENSE.split("[pretrain]")[0] + "[prune]" + PRUNED.split("[prune]")[1]
    names = [stage.name for stage in plan(load_recipe(_write(tmp_path, text)))]
    assert names == ["prune", "finetune"]


def test_an_objective_is_added_by_one_class_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Constant(Objective):
        """A loss that is always `value`."""

        name: ClassVar[str] = "constant"
        metric: ClassVar = "clean"
        value: float = 1.0

        def loss(self, model, x_BCHW, labels_B, moment):  # type: ignore[no-untyped-def]
            return torch.tensor(self.value)

    monkeypatch.setitem(OBJECTIVES, "constant", Constant)
    text = DENSE.replace('name = "natural"', 'name = "constant", value = 2.5')
    recipe = load_recipe(_write(tmp_path, text))
    assert recipe.pretrain is not None and recipe.pretrain.objective == Constant(value=2.5)
    written = recipe.model_dump(mode="json")["pretrain"]["objective"]
    assert written == {"name": "constant", "value": 2.5}


def test_registries_are_keyed_by_the_classes_own_names() -> None:
    for registry in (OBJECTIVES, PRUNERS):
        assert all(name == cls.name for name, cls in registry.items())


def test_schedules_end_where_they_should() -> None:
    assert ramp(0.0, 0.0, 0.0) == 1.0
    assert keep_ratios(0.1, 1, "harmonic") == (0.1,)
    for cumulative in ("linear", "geometric", "harmonic"):
        ratios = keep_ratios(0.01, 6, cumulative)
        assert ratios[-1] == 0.01 and list(ratios) == sorted(ratios, reverse=True)
    assert keep_ratios(0.1, 10, "harmonic")[0] == pytest.approx(1 - 0.9 * (1 / 11) / 0.5)
    assert lr_factor("constant", 0.99, (0.5,), 0.1) == 1.0


def test_a_recipe_of_ones_own_does_not_sign_with_our_name(tmp_path: Path) -> None:
    own = load_recipe(_write(tmp_path, PRUNED.replace("tiny-dense", "digits-adv-dense"), "own"))
    manifest = manifest_of(own, 0.9, "canonical")
    assert (manifest.authors, manifest.licence, manifest.links) == (("unknown",), "unknown", ())


def test_a_recipe_names_its_authors_licence_and_links(tmp_path: Path) -> None:
    said = 'authors = ["A. Author"]\nlicence = "CC0-1.0"\nlinks = ["https://example.org/paper"]\n'
    text = said + PRUNED.replace("tiny-dense", "digits-adv-dense")
    manifest = manifest_of(load_recipe(_write(tmp_path, text, "own")), 0.9, "canonical")
    assert manifest.authors == ("A. Author",)
    assert manifest.licence == "CC0-1.0"
    assert manifest.links == ("https://example.org/paper",)


def test_the_packaged_recipes_are_ours() -> None:
    manifest = manifest_of(load_recipe("digits/adv-lwm-10x"), 0.9, "canonical")
    assert manifest.authors == ("the corobench team",)
    assert manifest.licence == "MIT"
