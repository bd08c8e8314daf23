"""The command line ``corobench``: parses, calls, and turns errors into messages and exit codes.

The commands of other modules and packages are mounted here and imported only when called.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

import benchmark
from benchmark import cli_options
from benchmark.errors import (
    ContradictionError,
    CorobenchError,
    SubmissionError,
)

if TYPE_CHECKING:
    from benchmark.executors.limits import Limits

EXIT_CODES = """\b
Exit codes:
  0  done
  1  "check" is red or "drift" too large; otherwise a defect of corobench, please report it
  2  something you can mend: bad input, missing data, missing package
  3  a contradiction: an image was certified and attacked
"""

#: Commands that live in another module: name -> "module:attribute".
MOUNTED = {
    "architectures": "benchmark.cli_listing:architectures",
    "check": "benchmark.cli_gate:check",
    "compact": "benchmark.cli_formats:compact",
    "convert": "benchmark.cli_formats:convert",
    "contest": "benchmark.cli_results:contest",
    "doctor": "benchmark.cli_listing:doctor",
    "drift": "benchmark.cli_drift:drift",
    "freeze": "benchmark.cli_rounds:freeze",
    "import": "benchmark.cli_import:import_",
    "intake": "benchmark.cli_gate:intake",
    "measure": "benchmark.cli_measure:measure",
    "migrate": "benchmark.cli_rounds:migrate",
    "new": "benchmark.cli_new:new",
    "pack": "benchmark.cli_formats:pack",
    "pictures": "benchmark.cli_results:pictures",
    "recheck": "benchmark.cli_results:recheck",
    "render": "leaderboard.cli:render",
    "report": "leaderboard.cli:report",
    "score": "benchmark.cli_results:score",
    "serve": "leaderboard.cli_serve:serve",
    "tracks": "benchmark.cli_listing:tracks",
    "train": "baselines.cli:train",
    "recertify": "benchmark.cli_recertify:recertify",
    "unpack": "benchmark.cli_formats:unpack",
}


class FrontDoor(click.Group):
    """A group that imports mounted commands only when they are called."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted([*super().list_commands(context), *MOUNTED])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name in MOUNTED:
            module, attribute = MOUNTED[name].split(":")
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        return super().get_command(context, name)


@click.group(
    cls=FrontDoor,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.version_option(benchmark.__version__, prog_name="corobench")
def cli() -> None:
    """Score image classifiers that must be compact and robust at once.

    \b
    Examples:
      corobench quickstart
      corobench validate submissions/my-model
      corobench evaluate submissions/my-model --subset 100
      corobench render results --out build/site
    """


_paths = click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=False)
)


@cli.command()
@_paths
@click.option("--track", help="Track, if it differs from the manifest's.")
@click.option(
    "--subset",
    type=click.IntRange(min=1),
    help="First N images of the published order; the smallest subset is quick and never ranked.",
)
@click.option(
    "--epsilons",
    help='Exact radii such as "1/255,2/255" instead of the track\'s; never ranked.',
)
@cli_options.device
@click.option(
    "--tf32",
    is_flag=True,
    help="On a GPU, let attacks search in TF32, several times as fast; what they find is measured "
    "in float32.",
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
    "--certify-budget-s",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds of branch and bound per image instead of the protocol's; never ranked.",
)
@click.option("--force", is_flag=True, help="Replace another result of the same name.")
@cli_options.process_limits
def evaluate(
    paths: tuple[Path, ...],
    track: str | None,
    subset: int | None,
    epsilons: str | None,
    device: str,
    tf32: bool,
    seed: int,
    out: Path,
    data_root: Path | None,
    certify_budget_s: float | None,
    force: bool,
    limits: Limits | None,
) -> None:
    """Evaluate submission folders: clean, certified, attacked, measured.

    Stopped runs go on where they were when the same command is given again. Each submission is
    worked on in a process of its own: what hangs, crashes or takes too much memory ends that
    process, and the images of the step become a timeout or an error, with the reason in the result.

    \b
    Examples:
      corobench evaluate submissions/my-model
      corobench evaluate submissions/my-model --subset 100 --out /tmp/quick
      corobench evaluate submissions/* --device cuda --tf32
    """
    from benchmark.executors import run_evaluation
    from benchmark.executors.limits import Limits
    from benchmark.settings import Settings
    from benchmark.terminal import scorecard

    settings = Settings(
        track=track,
        n=subset,
        epsilons=tuple(epsilons.split(",")) if epsilons else None,
        device=device,
        tf32=tf32,
        seed=seed,
        data_root=data_root,
        out=out,
        force=force,
        certify_budget_s=certify_budget_s,
        is_limited=limits is not None and limits.is_less_than(Limits()),
    )
    console = Console()
    frozen, refused = [], []
    for path in paths:
        try:
            done = run_evaluation(path, settings, limits)
        except SubmissionError as error:
            refused.append(error.message)
            continue
        console.print(scorecard(done.result))
        note = " (was there already: same weights, settings and versions)" if done.reused else ""
        console.print(f"{done.path}{note}", soft_wrap=True, highlight=False, markup=False)
        frozen += [f"{done.path}: {line}" for line in done.result.audit.contradictions]
        for line in done.result.errors:
            console.print(f"without an answer: {line}", soft_wrap=True, markup=False)
    if refused and frozen:
        Console(stderr=True).print("\n".join(refused), style="red", markup=False, soft_wrap=True)
    if frozen:
        raise ContradictionError(
            "certified images were broken, so a certifier or an attack is wrong; the entry is "
            "frozen and will not be ranked:\n" + "\n".join(frozen)
        )
    if refused:
        raise CorobenchError("\n".join(refused))


@cli.command()
@_paths
@cli_options.process_limits
def validate(paths: tuple[Path, ...], limits: Limits | None) -> None:
    """List every fault of submission folders at once; no dataset is needed.

    \b
    Examples:
      corobench validate submissions/my-model
      corobench validate submissions/*
    """
    from benchmark.executors import run_validation

    console = Console()
    num_bad = 0
    for path in paths:
        faults = run_validation(path, limits)
        num_bad += bool(faults)
        verdict = f"{len(faults)} fault{'s' * (len(faults) != 1)}" if faults else "valid"
        console.print(f"{path}: {verdict}", soft_wrap=True, highlight=False, markup=False)
        for fault in faults:
            console.print(f"  - {fault}", soft_wrap=True, highlight=False, markup=False)
    if num_bad:
        raise click.exceptions.Exit(2)


@cli.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("build"),
    show_default=True,
    help="Gets entries/, results/ and site/.",
)
@click.option(
    "--subset",
    type=click.IntRange(min=1),
    help="Images per entry; 500 by default, fewer are a quick look and never ranked.",
)
@click.option("--workers", type=click.IntRange(1, 8), default=2, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def quickstart(out: Path, subset: int | None, workers: int, seed: int) -> None:
    """Train, prune, attack, verify and render eight entries on real data, in minutes.

    Trains a dense parent on scikit-learn's digits once for empirical and once for certified
    robustness, prunes each 10x in three ways, evaluates all and writes a page.

    \b
    Examples:
      corobench quickstart
      corobench quickstart --out /tmp/first --subset 100
    """
    from benchmark.quickstart import run

    run(out, subset=subset, workers=workers, seed=seed)


def invoke(arguments: Sequence[str]) -> int:
    """Run a command line within this process; returns the exit code.

    Args:
        arguments: as after ``corobench``.
    """
    try:
        code = cli.main(args=list(arguments), prog_name="corobench", standalone_mode=False)
    except CorobenchError as error:
        Console(stderr=True).print(
            f"error: {error.message}", style="red", markup=False, soft_wrap=True, highlight=False
        )
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (click.exceptions.Abort, KeyboardInterrupt):
        Console(stderr=True).print("stopped; the same command goes on from here", style="yellow")
        return 130
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point of ``corobench``."""
    sys.exit(invoke(sys.argv[1:]))
