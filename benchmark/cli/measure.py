"""The command `measure`: what submissions weigh, layer by layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich import box
from rich.table import Table

from corobench.benchmark.cli import options as cli_options
from corobench.benchmark.errors import ConfigError
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.files.console import plain_console, say

if TYPE_CHECKING:
    from corobench.benchmark.records.result import Compactness


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--latency", is_flag=True, help="Time one image in onnxruntime on this machine.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="Compare with these result files: one file, or a folder that is searched.",
)
@click.option(
    "--submissions",
    type=click.Path(path_type=Path),
    default=Path("submissions"),
    show_default=True,
    help="Folder of the entries of --results.",
)
@click.option("--write", is_flag=True, help="Add missing keys to --results.")
@cli_options.process_limits
def measure(
    paths: tuple[Path, ...],
    as_json: bool,
    latency: bool,
    results: Path | None,
    submissions: Path,
    write: bool,
    limits: Limits | None,
) -> None:
    """Measure the size of submissions, layer by layer.

    Parameters, multiply-adds, bytes and memory. No images are needed. Latency depends on the
    machine and is not part of a result.

    \b
    Examples:
      corobench measure submissions/my-model
      corobench measure submissions/my-model --latency
      corobench measure --results leaderboard/results
      corobench measure --results leaderboard/results --write
    """
    if bool(paths) == bool(results) or (write and not results):
        raise ConfigError("expected submission folders, or --results (with or without --write)")
    if results is not None:
        _measure_results(results, submissions, write, limits)
    for path in paths:
        _measure_folder(path, as_json, latency, limits)


def _measure_results(results: Path, submissions: Path, write: bool, limits: Limits | None) -> None:
    from corobench.benchmark.executors.looking_again import run_remeasure
    from corobench.benchmark.records.reading.result_file import read_result

    files = [results] if results.is_file() else sorted(results.rglob("*.json"))
    if not files:
        raise ConfigError(f"--results {results}: expected result files, but found none")
    for path in files:
        done = run_remeasure(path, submissions / read_result(path).entry, limits, write=write)
        word = "added" if write else "missing"
        new = f"{word}: {', '.join(done.added)}" if done.added else "complete"
        say(f"{path}: agrees with the weights; {new}")


def _measure_folder(path: Path, as_json: bool, latency: bool, limits: Limits | None) -> None:
    from corobench.benchmark.executors import run_measure

    done = run_measure(path, limits, latency=latency)
    size, timed = done.compactness, done.latency
    if as_json:
        found = {"entry": done.entry, "compactness": size.model_dump(mode="json")}
        if timed is not None:
            found["latency"] = vars(timed)
        click.echo(json.dumps(found, indent=1))
        return
    console = plain_console()
    console.print(_layers(size, str(path)))
    for line in summary(size):
        say(line)
    if timed is not None:
        say(f"latency          {timed}")


def _layers(size: Compactness, title: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer")
    table.add_column("kind")
    for name in ("weights", "kept", "zero %", "multiply-adds", "non-zero"):
        table.add_column(name, justify="right")
    for layer in size.layers:
        zero = 100 * (1 - layer.num_nonzero / layer.num_weights) if layer.num_weights else 0.0
        table.add_row(
            layer.name,
            layer.kind,
            f"{layer.num_weights:,}",
            f"{layer.num_nonzero:,}",
            f"{zero:.1f}",
            f"{layer.macs_dense:,}",
            f"{layer.macs_nonzero:,}",
        )
    return table


def summary(size: Compactness) -> list[str]:
    """The whole in a few lines, for people."""
    lines = [
        f"format           {size.format}",
        f"parameters       {size.num_nonzero:,} of {size.num_parameters:,} are not zero",
        f"multiply-adds    {size.macs_nonzero:,} of {size.macs_dense:,} per image",
        f"bytes            dense {size.bytes_dense:,}, packed {size.bytes_packed:,}, packed + "
        f"zstd {size.bytes_packed_zstd:,}, coded {size.bytes_coded:,}",
    ]
    if size.num_live is not None:
        lines.append(
            f"live weights     {size.num_live:,} of {size.num_weights_kept:,} kept ones lie on a "
            "path from the image to a logit"
        )
    if size.peak_activation_bytes is not None:
        lines.append(f"activations      {size.peak_activation_bytes:,} bytes at the peak")
    if size.equivalent is not None:
        equal = size.equivalent
        lines.append(
            f"equivalent       {equal.num_removed:,} of {equal.num_channels:,} channels can be "
            f"removed: {equal.num_parameters:,} parameters, {equal.macs_dense:,} multiply-adds"
        )
    return lines
