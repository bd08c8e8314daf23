"""`corobench train A B --workers N`: parents first, errors apart, the same weights as ever."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from corobench.baselines import many, procedure
from corobench.baselines.cli import train
from corobench.baselines.many import Options, plan
from corobench.baselines.recipe import Recipe
from corobench.baselines.recipe_file import load_recipe
from corobench.benchmark.errors import ConfigError, CorobenchError

DENSE = """
id = "tiny-dense"
title = "tiny"
method = "dense"
track = "digits"
epsilon = "2/16"
validation_rate = 0.9
validation_images = 40
[model]
architecture = "cnn-small"
[pretrain]
objective = { name = "natural" }
epochs = 1
"""
PRUNED = """
id = "tiny-pruned-NUMBER"
title = "tiny, pruned"
method = "LWM 2x"
parent = "tiny-dense"
[prune]
pruner = { name = "lwm" }
keep_ratio = 0.5
[finetune]
objective = { name = "natural" }
epochs = NUMBER
"""


@pytest.fixture
def recipes(tmp_path: Path) -> list[Recipe]:
    """A dense parent and two children, the second one trained longer."""
    (tmp_path / "tiny-dense.toml").write_text(DENSE)
    for number in ("1", "2"):
        text = PRUNED.replace("NUMBER", number)
        (tmp_path / f"tiny-pruned-{number}.toml").write_text(text)
    names = ("tiny-dense", "tiny-pruned-1", "tiny-pruned-2")
    return [load_recipe(str(tmp_path / f"{name}.toml")) for name in names]


class Noted:
    """Stands in for a process: the parent must be there; a mark makes a recipe fail."""

    def __init__(self, recipe: Recipe, options: Options) -> None:
        self.connection, theirs = Pipe(duplex=False)
        theirs.send_bytes(b"{}")
        self.told = {"kind": "done", "text": ""}
        if recipe.parent is not None and not (options.out / recipe.parent.id).is_dir():
            self.told = {"kind": "failed", "text": "its parent is not there"}
        if (options.out / f"{recipe.id}.fails").exists():
            self.told = {"kind": "failed", "text": "the loss is no number"}
        if self.told["kind"] == "done":
            (options.out / recipe.id).mkdir()

    def outcome(self) -> dict[str, Any] | None:
        return self.told

    def stop(self) -> None:
        pass


def dies(connection: Connection, recipe: Recipe, options: Options) -> None:
    """A process that ends without a word."""
    raise SystemExit(7)


def _run(recipes: list[Recipe], options: Options, told: list[str]) -> None:
    many.run(recipes, options, 2, told.append, Noted)  # type: ignore[arg-type]


def test_parents_come_before_children_and_the_longest_chain_first(recipes: list[Recipe]) -> None:
    _, one, two = recipes
    nodes = plan([one, two], None)
    assert [(node.recipe.id, node.needs) for node in nodes] == [
        ("tiny-dense", None),
        ("tiny-pruned-2", "tiny-dense"),
        ("tiny-pruned-1", "tiny-dense"),
    ]
    assert [node.epochs for node in nodes] == [3, 2, 1]


def test_a_published_parent_is_not_trained(recipes: list[Recipe], tmp_path: Path) -> None:
    (tmp_path / "published" / "tiny-dense").mkdir(parents=True)
    (tmp_path / "published" / "tiny-dense" / "submission.toml").write_text("")
    (node,) = plan(recipes[1:2], tmp_path / "published")
    assert (node.recipe.id, node.needs) == ("tiny-pruned-1", None)


def test_two_recipes_of_one_id_are_refused(recipes: list[Recipe]) -> None:
    other = recipes[0].model_copy(update={"title": "another"})
    with pytest.raises(ConfigError, match="tiny-dense"):
        plan([recipes[0], other], None)
    assert len(plan([recipes[0], recipes[0]], None)) == 1


def test_every_recipe_is_trained_after_its_parent(recipes: list[Recipe], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    _run(recipes[1:], Options(out), [])
    assert {path.name for path in out.iterdir()} == {recipe.id for recipe in recipes}


def test_what_goes_wrong_with_one_leaves_the_others_alone(
    recipes: list[Recipe], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "tiny-pruned-2.fails").touch()
    told: list[str] = []
    with pytest.raises(CorobenchError, match="the loss is no number"):
        _run(recipes, Options(out), told)
    assert (out / "tiny-pruned-1").is_dir() and not (out / "tiny-pruned-2").exists()
    assert [line.split(":")[0] for line in told] == ["tiny-pruned-2"]


def test_a_process_that_dies_is_an_error(recipes: list[Recipe], tmp_path: Path) -> None:
    with pytest.raises(CorobenchError, match="tiny-dense: its process ended with exit code 7"):
        many.run(recipes[:1], Options(tmp_path), 2, print, partial(many.Process, train=dies))


def test_children_of_what_failed_are_not_trained(recipes: list[Recipe], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "tiny-dense.fails").touch()
    with pytest.raises(CorobenchError) as raised:
        _run(recipes, Options(out), [])
    assert raised.value.message.count("not trained, because tiny-dense was not") == 2


def test_after_the_deadline_nothing_is_begun(recipes: list[Recipe], tmp_path: Path) -> None:
    told: list[str] = []
    _run(recipes, Options(tmp_path, deadline_s=0.0), told)
    assert told[0].startswith("not begun yet: tiny-dense, ") and "same command again" in told[0]


@pytest.mark.slow
def test_the_weights_are_those_of_one_by_one(recipes: list[Recipe], tmp_path: Path) -> None:
    together, alone = tmp_path / "together", tmp_path / "alone"
    names = [str(tmp_path / f"{recipe.id}.toml") for recipe in recipes[1:]]
    result = CliRunner().invoke(train, [*names, "--out", str(together), "--workers", "2"])
    assert result.exit_code == 0, result.output
    for recipe in recipes:
        procedure.run(recipe, alone)
        for name in ("model.safetensors", "submission.toml"):
            here, there = (root / recipe.id / name for root in (together, alone))
            assert here.read_bytes() == there.read_bytes(), name


PARENT = """
import sys, time
from pathlib import Path
from corobench.baselines.many import Options, Process
def sleep(connection, recipe, options):
    print("begun", flush=True)
    time.sleep(600)
if __name__ == "__main__":
    process = Process(None, Options(Path(sys.argv[1])), sleep)
    time.sleep(600)
"""


@pytest.mark.slow
def test_what_a_killed_command_began_ends(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    order = [sys.executable, str(script), str(tmp_path)]
    with subprocess.Popen(order, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.read(6) == b"begun\n"
        parent.kill()
        parent.wait(60)
        assert parent.stdout.read() == b""  # nobody holds the other end any more
