"""The command ``evaluate``: submission folders in, result files out."""

from __future__ import annotations

from pathlib import Path

import click

from corobench.benchmark.cli import curves, many
from corobench.benchmark.cli import options as cli_options
from corobench.benchmark.errors import ConfigError
from corobench.benchmark.executors.limits import Limits


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=False))
@click.option("--track", help="Track, if it differs from the manifest's.")
@click.option(
    "--subset",
    "subsets",
    type=click.IntRange(min=1),
    multiple=True,
    help="Use the first N images of the published order. The smallest subset is quick: never "
    "ranked. May be given several times.",
)
@click.option(
    "--epsilons",
    help='Exact radii such as "1/255,2/255" instead of those of the track; never ranked.',
)
@click.option(
    "--device",
    default="cpu",
    show_default=True,
    help="cpu, cuda, several such as cuda:0,cuda:1, or all.",
)
@click.option(
    "--tf32",
    is_flag=True,
    help="On a GPU, attacks search in TF32, which is several times as fast. Every find is measured "
    "again in float32.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Folder of result files.",
)
@cli_options.data_root
@click.option(
    "--plain-attacks",
    is_flag=True,
    help="Run the package AutoAttack unchanged, on the submitted network; slower, never ranked.",
)
@click.option(
    "--certify-budget-s",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds of branch and bound per image, instead of those of the protocol; never ranked.",
)
@click.option(
    "--max-subdomains",
    type=click.IntRange(min=0),
    help="Cases of branch and bound per image, instead of those of the protocol: more prove more, "
    "and take longer; never ranked.",
)
@click.option(
    "--curve",
    is_flag=True,
    help="Afterwards measure proven and unbroken at more radii, with cheap certifiers and PGD-50, "
    "for a curve on the entry's page; never ranked. With --missing-only also of results that are "
    "there already, and with --force of curves that are.",
)
@click.option("--force", is_flag=True, help="Replace another result of the same name.")
@many.scaling
@cli_options.process_limits
def evaluate(
    paths: tuple[Path, ...],
    track: str | None,
    subsets: tuple[int, ...],
    epsilons: str | None,
    device: str,
    tf32: bool,
    seed: int,
    out: Path,
    data_root: Path | None,
    plain_attacks: bool,
    certify_budget_s: float | None,
    max_subdomains: int | None,
    curve: bool,
    force: bool,
    wish: many.Wish,
    limits: Limits | None,
) -> None:
    """Evaluate submission folders and write their results.

    Measures clean accuracy, certificates, attacks and size. To continue a stopped run, give the
    same command again. Each submission runs in a process of its own. A step that hangs, crashes or
    needs too much memory ends that process; its images become a timeout or an error, and the
    result names the reason.

    Many folders share the workers, longest first. What is wrong with one leaves the others alone;
    all errors are told at the end. "corobench status OUT" tells from another terminal how far it
    is.

    \b
    Examples:
      corobench evaluate submissions/my-model
      corobench evaluate submissions/my-model --subset 100 --out /tmp/quick
      corobench evaluate submissions/my-model --max-subdomains 20000 --out /tmp/patient
      corobench evaluate submissions/* --missing-only --workers 8
      corobench evaluate submissions/* --device all --workers-per-device 2 --tf32
      corobench evaluate submissions/* --missing-only --shard 3/20
      corobench evaluate submissions/my-model --curve
      corobench evaluate submissions/* --missing-only --curve --out leaderboard/results
    """
    from corobench.benchmark.evaluation.settings import Settings
    from corobench.benchmark.executors.planning import plan

    many.require_isolation(limits, wish)
    if wish.missing_only and force:
        raise ConfigError("--missing-only leaves results alone and --force replaces them: choose")
    crew = wish.crew(device)
    settings = Settings(
        track=track,
        epsilons=tuple(epsilons.split(",")) if epsilons else None,
        device=crew.devices[0],
        tf32=tf32,
        seed=seed,
        data_root=data_root,
        out=out,
        force=force,
        certify_budget_s=certify_budget_s,
        max_subdomains=max_subdomains,
        plain_attacks=plain_attacks,
        is_limited=limits is not None and limits.is_less_than(Limits()),
    )
    chosen = plan(paths, settings, subsets, missing_only=wish.missing_only, shard=wish.shard)
    many.make(chosen, out, limits, crew)
    if curve:
        curves.measure(paths, chosen, limits, crew.devices[0], data_root, force)
