"""The command ``recertify``: stored results brought to today's certificates."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from corobench.benchmark.cli import options as cli_options
from corobench.benchmark.errors import ContradictionError
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.records.reading.result_file import read_result


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
@cli_options.process_limits
def recertify(
    results: tuple[Path, ...],
    submissions: Path,
    out: Path,
    data_root: Path | None,
    force: bool,
    limits: Limits | None,
) -> None:
    """Bring stored results to the current certifiers.

    The current certifiers are asked about every image. Stored adversarial images are measured
    again and kept. Only images that lose their certificate are attacked, with the random numbers
    of the first evaluation. The new result names the stored one, which does not change.

    \b
    Examples:
      corobench recertify leaderboard/results/1.0/digits/digits-ibp-dense.json
      corobench recertify leaderboard/results/1.0/*/*.json --out /tmp/new
    """
    from corobench.benchmark.evaluation.settings import Settings
    from corobench.benchmark.executors import run_evaluation
    from corobench.benchmark.executors.limits import Limits
    from corobench.benchmark.scoring.terminal import scorecard

    console = Console()
    frozen = []
    for path in results:
        settings = Settings(
            data_root=data_root,
            out=out,
            force=force,
            is_limited=limits is not None and limits.is_less_than(Limits()),
            earlier=path,
        )
        done = run_evaluation(submissions / read_result(path).entry, settings, limits)
        console.print(scorecard(done.result))
        note = " (already there: same weights, settings and versions)" if done.reused else ""
        console.print(f"{done.path}{note}", soft_wrap=True, highlight=False, markup=False)
        frozen += [f"{done.path}: {line}" for line in done.result.audit.contradictions]
    if frozen:
        raise ContradictionError(
            "certified images were broken, so a certifier or an attack is wrong. The entry is "
            "frozen and will not be ranked:\n" + "\n".join(frozen)
        )
