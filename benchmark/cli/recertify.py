"""The command ``recertify``: stored results brought to today's certificates."""

from __future__ import annotations

from pathlib import Path

import click

from corobench.benchmark.cli import many
from corobench.benchmark.cli import options as cli_options
from corobench.benchmark.executors.limits import Limits


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--submissions",
    type=click.Path(path_type=Path),
    default=Path("submissions"),
    show_default=True,
    help="Folder of the entries.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("leaderboard/results"),
    show_default=True,
    help="Folder of result files. New ones go into the round of the current protocol.",
)
@cli_options.data_root
@click.option("--force", is_flag=True, help="Replace another result of the same name.")
@many.scaling
@cli_options.process_limits
def recertify(
    results: tuple[Path, ...],
    submissions: Path,
    out: Path,
    data_root: Path | None,
    force: bool,
    wish: many.Wish,
    limits: Limits | None,
) -> None:
    """Bring stored results to the current certifiers.

    The current certifiers are asked about every image. Stored adversarial images are measured
    again and kept. Only images that lose their certificate are attacked, with the random numbers
    of the first evaluation. The new result names the stored one, which does not change. Several
    results share the workers.

    \b
    Examples:
      corobench recertify leaderboard/results/1.0/digits/digits-ibp-dense.json
      corobench recertify leaderboard/results/1.0/*/*.json --missing-only --workers 8
    """
    from corobench.benchmark.evaluation.settings import Settings
    from corobench.benchmark.executors.planning import plan_again

    many.require_isolation(limits, wish)
    settings = Settings(
        data_root=data_root,
        out=out,
        force=force,
        is_limited=limits is not None and limits.is_less_than(Limits()),
    )
    chosen = plan_again(
        results, submissions, settings, missing_only=wish.missing_only, shard=wish.shard
    )
    many.make(chosen, out, limits, wish.crew("cpu"))
