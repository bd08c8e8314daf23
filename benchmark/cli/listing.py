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
    """List the tracks: data, shapes, epsilons and subsets.

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
def doctor(data_root: Path | None) -> None:
    """Report what works here, and the command that mends what does not.

    Computes one bound and one attack of a model whose answers are known.

    \b
    Example:
      corobench doctor
    """
    from corobench.benchmark.cli.doctor import examine

    table = Table(show_header=False)
    findings = examine(data_root)
    for finding in findings:
        mark = "ok" if finding.ok else ("MISSING" if finding.needed else "not found")
        mend = f"\n-> {finding.mend}" if finding.mend and not finding.ok else ""
        table.add_row(finding.what, mark, finding.detail + mend)
    Console().print(table)
    if not all(finding.ok for finding in findings if finding.needed):
        raise click.exceptions.Exit(2)
