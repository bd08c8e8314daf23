"""The command ``corobench train``: parses and calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from corobench.benchmark.cli import options as cli_options
from corobench.benchmark.files.console import say

if TYPE_CHECKING:
    from corobench.baselines.own_parent import OwnParent
    from corobench.baselines.recipe import Recipe


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Parent of the submission folders. Checkpoints go to OUT/.train.",
)
@click.option(
    "--parents",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of submissions. A dense parent in it is read instead of trained.",
)
@click.option(
    "--parent",
    "own",
    metavar="FILE|MODULE:NAME",
    help="Prune and fine-tune this network as RECIPE does its own parent: an ONNX file, or a "
    "network of your Python code. Its entry is an ONNX file.",
)
@click.option("--id", "entry", help="With --parent: id of the entry.")
@cli_options.data_root
@cli_options.device
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Seed instead of that of the recipe. The entry is then called <id>-s<seed>.",
)
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Save everything and pause before so many minutes have passed. The exit code is 0 in any "
    "case; the entry is finished when OUT/<id>/model.safetensors exists.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Recipes that are trained at once, each in a process with one thread.",
)
def train(
    recipes: tuple[str, ...],
    out: Path,
    parents: Path | None,
    own: str | None,
    entry: str | None,
    data_root: Path | None,
    device: str,
    seed: int | None,
    max_minutes: float | None,
    workers: int,
) -> None:
    """Train reference entries from recipes.

    Pre-trains, prunes and fine-tunes. RECIPE is a TOML file, or the name of a packaged recipe such
    as digits/adv-lwm-10x. If the dense parent of a recipe is not yet in OUT, it is trained first;
    with --parents, the published one is used. OUT/<id>/ is then a submission like any other. To
    continue a stopped or killed run, give the same command again; the weights will be the same.

    With --parent, the method runs on your own architecture: only the recipe's [prune] and
    [finetune] are used. The network takes images in [0, 1] and returns logits. Name Python code
    only if it is yours, for it is run.

    With --workers, parents are trained before what is pruned from them, and what goes wrong with
    one recipe leaves the others alone.

    \b
    Examples:
      corobench train digits/adv-lwm-10x --out runs
      corobench train digits/ibp-dense digits/ibp-lwm-10x --out runs --seed 1
      corobench train fashion-mnist/ibp-hydra-10x --out runs --parents submissions
      corobench train my-recipe.toml --out runs --device cuda --max-minutes 9
      corobench train digits/adv-lwm-10x digits/ibp-lwm-10x --out runs --workers 2
      corobench train cifar10/adv-lwm-10x --parent my-dense.onnx --out runs
      corobench train cifar10/adv-lwm-10x --parent my_project.nets:trained --id mine-10x
      corobench evaluate runs/digits-adv-lwm-10x
    """
    import time

    from corobench.baselines import many, procedure
    from corobench.baselines.display import Display
    from corobench.baselines.recipe_file import load_recipe

    loaded = [load_recipe(recipe) for recipe in recipes]
    if entry is not None and (own is None or len(loaded) > 1):
        raise click.UsageError("--id: expected one recipe with --parent")
    if own is not None and (workers > 1 or parents is not None):
        raise click.UsageError("--parent: expected neither --workers nor --parents with it")
    start = None
    if own is not None:
        start, loaded = _adopted(own, loaded, entry)
    started_s = time.monotonic()
    if workers > 1:
        deadline_s = None if max_minutes is None else started_s + 60.0 * max_minutes
        options = many.Options(out, data_root, device, parents, deadline_s)
        chosen = [recipe.with_seed(seed) for recipe in loaded]
        many.run(chosen, options, workers, lambda text: say(text, err=True))
        return
    with Display() as display:
        for recipe in loaded:
            left = max_minutes
            if left is not None:
                left = max(left - (time.monotonic() - started_s) / 60.0, 0.0)
            trained = procedure.run(
                recipe,
                out,
                data_root=data_root,
                device=device,
                seed=seed,
                max_minutes=left,
                progress=display,
                parents=parents,
                own=start,
            )
            display.finish(trained)
            if not trained.is_finished:
                break


def _adopted(own: str, recipes: list[Recipe], entry: str | None) -> tuple[OwnParent, list[Recipe]]:
    """The network that --parent names, and the recipes as they prune it."""
    from corobench.baselines.own_parent import adopt, load_own_parent
    from corobench.benchmark.tracks import get_track

    tracks = {recipe.track for recipe in recipes}
    if len(tracks) > 1:
        raise click.UsageError(f"--parent: expected recipes of one track, but found {len(tracks)}")
    parent = load_own_parent(own, get_track(tracks.pop()))
    return parent, [adopt(recipe, parent, entry) for recipe in recipes]
