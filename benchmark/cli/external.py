"""Verifiers of somebody else: questions for them, and what they say, which changes nothing."""

from __future__ import annotations

from pathlib import Path

import click

from corobench.benchmark.cli import options as cli_options
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.files.console import say


@click.command("export-vnnlib")
@click.argument("result", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The new folder; must not exist."
)
@click.option(
    "--submission",
    type=click.Path(path_type=Path),
    help="Folder of the entry; submissions/<entry> by default.",
)
@click.option("--epsilon", help="One radius of the result, such as 2/255; all by default.")
@click.option(
    "--vnnlib-version",
    type=click.Choice(["1.0", "2.0"]),
    default="1.0",
    show_default=True,
    help="1.0 is what most verifiers read.",
)
@click.option(
    "--seconds",
    type=click.IntRange(1),
    default=300,
    show_default=True,
    help="Time for each file, as instances.csv tells the verifier.",
)
@cli_options.data_root
@cli_options.process_limits
def export_vnnlib(
    result: Path,
    out: Path,
    submission: Path | None,
    epsilon: str | None,
    vnnlib_version: str,
    seconds: int,
    data_root: Path | None,
    limits: Limits | None,
) -> None:
    """Write open images as ONNX and VNN-LIB, for any verifier.

    The folder gets model.onnx, one file for each image and radius that is neither proven nor
    broken, and instances.csv, which lists them as VNN-COMP does. A file asks for a counterexample:
    "unsat" means that the image holds, "sat" that it does not. `corobench contest --proof` reads
    the verdicts back.

    \b
    Examples:
      corobench export-vnnlib results/1.1/digits/my-model.json --out questions
      corobench export-vnnlib results/1.1/cifar10/my-model.json --epsilon 2/255 --out questions
    """
    from corobench.benchmark.executors.looking_again import run_vnnlib_export
    from corobench.benchmark.records.reading.result_file import read_result
    from corobench.benchmark.tracks import chosen_radii

    chosen_radii(read_result(result).epsilons, epsilon)  # a fault is told before the work
    folder = submission or cli_options.folder_of_entry(result, "--submission")
    found = run_vnnlib_export(
        result,
        folder,
        out,
        limits,
        data_root=data_root,
        epsilon=epsilon,
        version=vnnlib_version,
        seconds=seconds,
    )
    say(str(found))


def show_proofs(result: Path, verdicts: Path) -> None:
    """Print what verdicts would say of the lower end, if they were believed.

    Args:
        result: the result file.
        verdicts: CSV of file and verdict.
    """
    from corobench.benchmark.review.vnnlib_files import HOLDS, see_proofs
    from corobench.benchmark.scoring.ranking import bracket

    found = see_proofs(result, verdicts)
    n = found.result.n
    for epsilon, counts in found.seen.items():
        if not counts:
            continue
        told = ", ".join(f"{num} {verdict}" for verdict, num in sorted(counts.items()))
        low = bracket(found.result.epsilons[epsilon]).low
        high_low = 100 * (low + counts.get(HOLDS, 0)) / n
        say(
            f"{epsilon}: {told}; lower end {100 * low / n:.1f} %, and {high_low:.1f} % for who "
            "believes this verifier"
        )
    if found.num_unknown:
        say(f"{found.num_unknown} verdicts are about no image of this result")
    for line in found.against[:20]:
        say(f"  - {line}")
    if len(found.against) > 20:
        say(f"  - and {len(found.against) - 20} more")
    say(
        "Verdicts change no number: corobench believes only its own checker. An image that a "
        "verifier broke belongs into a contest, as an npz file."
    )
