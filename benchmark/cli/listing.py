"""Commands that list what there is: tracks, architectures, and what works here."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from corobench.benchmark.cli import options as cli_options
from corobench.benchmark.errors import DependencyError
from corobench.benchmark.files.console import plain_console
from corobench.benchmark.tracks import PROTOCOL, TRACKS

if TYPE_CHECKING:
    from corobench.benchmark.cli.doctor import Finding


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
    plain_console().print(table)


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
    plain_console().print(table)


@click.command()
@cli_options.data_root
@click.option("--fix", is_flag=True, help="Install missing packages with pip, after asking.")
@click.option("--yes", is_flag=True, help="With --fix, do not ask.")
def doctor(data_root: Path | None, fix: bool, yes: bool) -> None:
    """Check the installation; --fix installs what is missing.

    Computes one bound and one attack on a model whose answers are known, and shows the command that
    fixes what does not work. --fix asks, then runs pip in this Python environment. It does not
    download datasets.

    \b
    Examples:
      corobench doctor
      corobench doctor --fix
    """
    from corobench.benchmark.cli.doctor import examine, installs

    findings = examine(data_root)
    _show(findings)
    calls = installs(findings) if fix else []
    if fix and not calls:
        click.echo("Nothing to install.")
    for arguments in calls:
        command = [sys.executable, "-m", "pip", *arguments]
        click.echo(shlex.join(command))
    if calls and (yes or click.confirm("Run this?", default=False)):
        for arguments in calls:
            if subprocess.run([sys.executable, "-m", "pip", *arguments]).returncode:  # noqa: S603
                raise DependencyError(f"pip {shlex.join(arguments)} failed; its output is above")
        # Another process, because this one did not find the packages.
        done = subprocess.run([sys.executable, "-m", "corobench", "doctor"])
        raise click.exceptions.Exit(done.returncode)
    if not all(finding.ok for finding in findings if finding.needed):
        raise click.exceptions.Exit(2)


def _show(findings: Sequence[Finding]) -> None:
    table = Table(show_header=False)
    for finding in findings:
        mark = "ok" if finding.ok else ("MISSING" if finding.needed else "not found")
        mend = f"\n-> {finding.mend}" if finding.mend and not finding.ok else ""
        table.add_row(finding.what, mark, finding.detail + mend)
    plain_console().print(table)
