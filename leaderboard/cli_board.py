"""``corobench leaderboard``: the boards in a terminal, or as CSV and JSON for machines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import click

from corobench.benchmark.errors import ConfigError
from corobench.benchmark.files.console import plain_console
from corobench.benchmark.records.result import Result
from corobench.benchmark.tracks import TRACKS, parse_epsilon
from corobench.leaderboard.boards import Group, group_results
from corobench.leaderboard.columns import Value
from corobench.leaderboard.discovery import find_result_files
from corobench.leaderboard.evidence import read_all
from corobench.leaderboard.exports import csv_value, records
from corobench.leaderboard.frames import SHIPPED
from corobench.leaderboard.loading import load_results
from corobench.leaderboard.terminal import terminal_table


@click.command(name="leaderboard")
@click.argument("track", required=False, type=click.Choice(list(TRACKS)))
@click.option("--epsilon", help="One radius, such as 8/255; all by default.")
@click.option("--n", type=click.IntRange(1), help="One number of images; all by default.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="A folder of result files, or one file; by default those that corobench ships.",
)
@click.option("--csv", "form", flag_value="csv", help="Print CSV: one line per entry and radius.")
@click.option("--json", "form", flag_value="json", help="Print JSON: one object for each.")
def leaderboard(
    track: str | None, epsilon: str | None, n: int | None, results: Path | None, form: str | None
) -> None:
    """Print the boards: those of TRACK, or all.

    With --csv and --json the keys are those of the files of the pages, after `track`, `data`,
    `ranked` and `place`. Rows of another track, protocol, data, n or radius are not comparable.
    Rank groups need the outcome tables beside the results.

    \b
    Examples:
      corobench leaderboard digits
      corobench leaderboard cifar10 --epsilon 8/255 --csv
      corobench leaderboard --results results --json
    """
    radius = parse_epsilon(epsilon) if epsilon else None
    found, groups = _read(results or SHIPPED, track, n, with_tables=form is not None)
    if form is None:
        plain_console().print(terminal_table(found))
        return
    rows = [
        {
            "track": group.track.name,
            "data": group.kind,
            "ranked": group.ranked,
            "place": place,
            **record,
        }
        for group in groups
        for board in group.boards
        if radius is None or parse_epsilon(board.epsilon) == radius
        for place, record in enumerate(records(board), start=1)
    ]
    if not rows:
        raise ConfigError(f"expected results at {epsilon}, but found none")
    click.echo(_csv(rows) if form == "csv" else json.dumps(rows, indent=1, ensure_ascii=False))


def _read(
    place: Path, track: str | None, n: int | None, *, with_tables: bool
) -> tuple[tuple[Result, ...], tuple[Group, ...]]:
    """The results that were asked for, and their boards."""
    paths = [place]
    if track is not None and place.is_dir():
        known, _ = find_result_files([place])
        paths = [one.path for one in known if one.path.resolve().parent.name == track]
    if not paths or not place.exists():
        raise ConfigError(f"{place}: expected results{f' of {track}' if track else ''}, found none")
    loaded = load_results(paths)
    kept = [
        (result, path)
        for result, path in zip(loaded.results, loaded.paths, strict=True)
        if n in (None, result.n) and track in (None, result.track)
    ]
    if not kept:
        raise ConfigError(f"{place}: expected results with n = {n}, but found none")
    results, files = (tuple(column) for column in zip(*kept, strict=True))
    return results, group_results(results, read_all(results, files) if with_tables else {})  # type: ignore[arg-type]


def _csv(rows: Sequence[dict[str, Value]]) -> str:
    """CSV of records that may have different keys, in the order in which keys first come."""
    text = io.StringIO()
    keys = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, keys, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: csv_value(value) for key, value in row.items()} for row in rows)
    return text.getvalue().rstrip("\n")
