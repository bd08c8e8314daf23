"""The command line ``corobench``: parses, calls, and turns errors into messages and exit codes.

The commands of other modules and packages are mounted here and imported only when called.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from corobench import benchmark
from corobench.benchmark.cli import options as cli_options
from corobench.benchmark.errors import CorobenchError
from corobench.benchmark.files.console import plain_console

if TYPE_CHECKING:
    from corobench.benchmark.executors.limits import Limits

EXIT_CODES = """\b
Exit codes:
  0  done
  1  "check" fails or "drift" is too large; from any other command a defect of
     corobench, please report it
  2  something you can fix: bad input, missing data, missing package
  3  a contradiction: an image was certified and attacked
"""

#: What the light core lacks, and how to get it.
EVALUATE_HINT = (
    "To load and measure networks: pip install 'corobench[evaluate]', then corobench doctor --fix"
)
#: Packages of the extra `evaluate` that a command may find missing.
_OF_EVALUATE = (
    *("torch", "torchvision", "pyautoattack", "onnx", "onnxruntime", "onnxscript", "zstandard"),
    *("safetensors", "sklearn", "threadpoolctl", "platformdirs", "matplotlib"),
)

#: Commands that live in another module: name -> "module:attribute".
MOUNTED = {
    "architectures": "corobench.benchmark.cli.listing:architectures",
    "check": "corobench.benchmark.cli.gate:check",
    "compact": "corobench.benchmark.cli.formats:compact",
    "convert": "corobench.benchmark.cli.formats:convert",
    "contest": "corobench.benchmark.cli.results:contest",
    "demo": "corobench.leaderboard.cli_demo:demo",
    "doctor": "corobench.benchmark.cli.listing:doctor",
    "drift": "corobench.benchmark.cli.drift:drift",
    "evaluate": "corobench.benchmark.cli.evaluate:evaluate",
    "export-vnnlib": "corobench.benchmark.cli.external:export_vnnlib",
    "freeze": "corobench.benchmark.cli.rounds:freeze",
    "hub": "corobench.benchmark.cli.hub:hub",
    "import": "corobench.benchmark.cli.importing:import_",
    "intake": "corobench.benchmark.cli.gate:intake",
    "leaderboard": "corobench.leaderboard.cli_board:leaderboard",
    "measure": "corobench.benchmark.cli.measure:measure",
    "migrate": "corobench.benchmark.cli.rounds:migrate",
    "new": "corobench.benchmark.cli.new:new",
    "pack": "corobench.benchmark.cli.formats:pack",
    "pictures": "corobench.benchmark.cli.results:pictures",
    "recheck": "corobench.benchmark.cli.results:recheck",
    "render": "corobench.leaderboard.cli:render",
    "report": "corobench.leaderboard.cli:report",
    "score": "corobench.benchmark.cli.results:score",
    "serve": "corobench.leaderboard.cli_serve:serve",
    "status": "corobench.benchmark.cli.status:status",
    "tracks": "corobench.benchmark.cli.listing:tracks",
    "train": "corobench.baselines.cli:train",
    "recertify": "corobench.benchmark.cli.recertify:recertify",
    "unpack": "corobench.benchmark.cli.formats:unpack",
}

#: The commands by what one wants to do, in the order of `corobench --help`.
GROUPS = {
    "Start": ("quickstart", "demo", "doctor", "tracks", "architectures"),
    "Score a model": (
        *("new", "import", "validate", "evaluate", "status", "score"),
        *("measure", "pack", "unpack", "convert", "compact"),
    ),
    "Gate a repository": ("check", "drift"),
    "Publish": (
        *("render", "serve", "leaderboard", "report", "intake", "recheck", "contest"),
        *("hub", "export-vnnlib"),
    ),
    "Maintain": ("train", "recertify", "migrate", "freeze", "pictures"),
}


class FrontDoor(click.Group):
    """A group that imports mounted commands only when they are called."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted([*super().list_commands(context), *MOUNTED])

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Commands by purpose, each with the whole first paragraph of its help."""
        width = max(map(len, self.list_commands(context)))
        for title, names in GROUPS.items():
            rows = [(name.ljust(width), self._summary(context, name)) for name in names]
            with formatter.section(title):
                formatter.write_dl(rows)

    def _summary(self, context: click.Context, name: str) -> str:
        command = self.get_command(context, name)
        assert command is not None, name
        return " ".join((command.help or "").split("\n\n")[0].split()).removesuffix(".")

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


def _has_torch() -> bool:
    try:
        return importlib.util.find_spec("torch") is not None
    except ImportError:
        return False


@cli.command()
@_paths
@click.option(
    "--headers",
    is_flag=True,
    help="Check manifests and headers only: about a second, and no torch is needed.",
)
@cli_options.certifiers
@cli_options.process_limits
def validate(
    paths: tuple[Path, ...], headers: bool, certifiers: bool, limits: Limits | None
) -> None:
    """List faults of submissions, and the certifiers to be asked.

    All faults are listed at once, and no dataset is needed. A warning is valid for you, but an
    intake refuses it: a licence, data or objective that says "unknown". Of a valid folder the last
    lines say which certifiers an evaluation will ask, and why not the others. Without torch, only
    the manifest and the header of the weights are checked, and the last line says so.

    \b
    Examples:
      corobench validate submissions/my-model
      corobench validate submissions/*
      corobench validate --headers submissions/my-model
    """
    from corobench.benchmark.executors import run_certifiers, run_validation
    from corobench.benchmark.submission.headers import find_header_faults, intake_warnings

    console = plain_console()
    num_bad = 0
    without_torch = not _has_torch()
    for path in paths:
        only_headers = headers or without_torch
        faults = find_header_faults(path) if only_headers else run_validation(path, limits)
        num_bad += bool(faults)
        well = "manifest and header are valid" if only_headers else "valid"
        verdict = f"{len(faults)} fault{'s' * (len(faults) != 1)}" if faults else well
        console.print(f"{path}: {verdict}", soft_wrap=True, highlight=False, markup=False)
        for fault in faults:
            console.print(f"  - {fault}", soft_wrap=True, highlight=False, markup=False)
        for warning in () if faults else intake_warnings(path):
            text = f"  warning: an intake refuses this: {warning}"
            console.print(text, soft_wrap=True, highlight=False, markup=False)
        if certifiers and not faults and not only_headers:
            for line in run_certifiers(path, limits):
                console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False)
    if without_torch and not headers:
        hint = f"The networks were not loaded, because torch is missing. {EVALUATE_HINT}"
        console.print(hint, soft_wrap=True, highlight=False, markup=False)
    if num_bad:
        raise click.exceptions.Exit(2)


@cli.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("build"),
    show_default=True,
    help="Folder for entries/, results/ and site/.",
)
@click.option(
    "--subset",
    type=click.IntRange(min=1),
    help="Images per entry, 500 by default. With fewer, results are quick and never ranked.",
)
@click.option("--workers", type=click.IntRange(1, 8), default=2, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--open", "opens", is_flag=True, help="Open the page in the browser at the end.")
def quickstart(out: Path, subset: int | None, workers: int, seed: int, opens: bool) -> None:
    """Train, prune, evaluate and render eight entries.

    Takes minutes. Trains a dense parent on scikit-learn's digits, once for empirical and once for
    certified robustness. Prunes each 10x in three ways, evaluates all, and writes a page.

    \b
    Examples:
      corobench quickstart
      corobench quickstart --open
      corobench quickstart --out /tmp/first --subset 100
    """
    from corobench.benchmark.cli.quickstart import run
    from corobench.benchmark.files.browser import open_page

    page = run(out, subset=subset, workers=workers, seed=seed)
    if opens:
        click.echo(open_page(page))


def invoke(arguments: Sequence[str]) -> int:
    """Run a command line within this process; returns the exit code.

    Args:
        arguments: as after ``corobench``.
    """
    try:
        code = cli.main(args=list(arguments), prog_name="corobench", standalone_mode=False)
    except CorobenchError as error:
        plain_console(stderr=True).print(
            f"error: {error.message}", style="red", markup=False, soft_wrap=True, highlight=False
        )
        return error.exit_code
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in _OF_EVALUATE:
            raise
        plain_console(stderr=True).print(
            f"error: this command needs {missing}, which is not installed. {EVALUATE_HINT}",
            style="red",
            markup=False,
            soft_wrap=True,
            highlight=False,
        )
        return 2
    except click.ClickException as error:
        error.show()
        return 2
    except (click.exceptions.Abort, KeyboardInterrupt):
        plain_console(stderr=True).print(
            "stopped; to continue, give the same command again", style="yellow"
        )
        return 130
    return code if isinstance(code, int) else 0
