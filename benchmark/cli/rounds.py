"""Commands that keep results over time: freeze, migrate."""

from __future__ import annotations

from pathlib import Path

import click

from corobench.benchmark.cli import options as cli_options
from corobench.benchmark.errors import ResultError
from corobench.benchmark.files.console import say


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Compare with the checksums instead of writing them.")
def freeze(folder: Path, check: bool) -> None:
    """Freeze the round in FOLDER: checksums of its files.

    Every result must be publishable and must follow from its outcome table. SHA256SUMS gets the
    checksum of every file (`sha256sum -c SHA256SUMS` reads it). After that, evaluate, contest,
    score and migrate refuse to write there, and render refuses a round that has changed.

    \b
    Exit codes:
      0  frozen, or with --check: unchanged
      2  a result cannot be published
         with --check: a file was changed, added or removed

    \b
    Examples:
      corobench freeze leaderboard/results/1.0
      corobench freeze leaderboard/results/1.0 --check
    """
    from corobench.benchmark.scoring import rounds

    if not check:
        num_files = rounds.freeze(folder)
        say(f"{folder / rounds.SUMS}: {num_files} files frozen")
        return
    changed = rounds.changes(folder)
    if changed:
        raise ResultError("\n".join(changed))
    say(f"{folder}: unchanged since it was frozen")


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--write", is_flag=True, help="Replace the result files and their outcome tables.")
@click.option(
    "--images",
    is_flag=True,
    help="Store adversarial images as changes of the clean ones, too; needs the dataset.",
)
@cli_options.data_root
def migrate(files: tuple[Path, ...], write: bool, images: bool, data_root: Path | None) -> None:
    """Bring older result FILES to the current format.

    Says what each file lacks; --write adds it. No number changes: the result is computed again
    from its outcome table and must be the same. All files are checked before the first is written.
    A file of a newer schema is an error.

    With --images the adversarial images take about a tenth of the space. Every file is decoded
    again before it is kept, and must have the bits it had. This is also done in a frozen round: its
    checksums are made anew for these files alone, and RECODED there keeps the old ones.

    \b
    Examples:
      corobench migrate old/1.0/digits/my-model.json
      corobench migrate old/1.0/*/*.json --write
      corobench migrate leaderboard/results/1.1/digits/*.json --images --write
    """
    from corobench.benchmark.scoring.migration import migrate as bring

    found = [bring(path) for path in files]
    for done in found:
        say(f"{done.path}: {'; '.join(done.steps) or 'is already in the current format'}")
        if done.steps and write:
            bring(done.path, write=True)
            say(f"{done.path}: written")
    missing = any(done.steps for done in found)
    if images:
        from corobench.benchmark.review.recoding import recode

        for path in files:
            change = recode(path, data_root, write=write)
            say(f"{path}: {change or 'its images are coded'}")
            missing |= bool(change)
    if missing and not write:
        say("nothing was written; add --write")
