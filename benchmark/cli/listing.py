"""Commands that list what there is: tracks, architectures, and what works here."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from corobench.benchmark.cli import options as cli_options
from corobench.benchmark.tracks import PROTOCOL, TRACKS


@click.command()
def tracks() -> None:
    """List the tracks: data, shapes, epsilons, subsets.

    \b
    Example:
      corobench tracks
    """
    table = Table(title=f"Tracks of protocol {PROTOCOL}", title_justify="left")
    table.add_column("track", no_wrap=True)
    for column in ("data", "shape", "classes", "epsilons (l-inf)", "subsets"):
        table.add_column(column)
    for track in TRACKS.values():
        quick, *ranked = (f"{size:,}" for size in track.subsets)
        table.add_row(
            track.name,
            track.title,
            "x".join(map(str, track.shape)),
            str(track.num_classes),
            ", ".join(track.epsilons),
            f"{quick} (quick), {', '.join(ranked)}",
        )
    Console().print(table)


@click.command()
def architectures() -> None:
    """List the architectures a submission may name.

    \b
    Example:
      corobench architectures
    """
    from corobench.benchmark.submission.architectures import ARCHITECTURES

    table = Table(title="Architectures", title_justify="left")
    table.add_column("name")
    table.add_column("what it is")
    for name, info in sorted(ARCHITECTURES.items()):
        table.add_row(name, info.summary)
    Console().print(table)


@click.command()
@cli_options.data_root
@click.option("--fix", is_flag=True, help="Install missing packages with pip, then check again.")
def doctor(data_root: Path | None, fix: bool) -> None:
    """Check the installation; --fix installs what is missing.

    Computes one bound and one attack on a model whose answers are known. --fix runs the pip
    commands that are shown, in this Python environment. It does not download datasets.

    \b
    Examples:
      corobench doctor
      corobench doctor --fix
    """
    from corobench.benchmark.cli.doctor import examine, install_missing

    if fix:
        install_missing(click.echo)
    table = Table(show_header=False)
    findings = examine(data_root)
    for finding in findings:
        mark = "ok" if finding.ok else ("MISSING" if finding.needed else "not found")
        mend = f"\n-> {finding.mend}" if finding.mend and not finding.ok else ""
        table.add_row(finding.what, mark, finding.detail + mend)
    Console().print(table)
    if not all(finding.ok for finding in findings if finding.needed):
        raise click.exceptions.Exit(2)
