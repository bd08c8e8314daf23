"""The command ``status``: what runs, is finished or was interrupted below a folder of results."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from corobench.benchmark.cli.screens import length
from corobench.benchmark.errors import CorobenchError, printable
from corobench.benchmark.executors.outputs import Finished, Unfinished, finished, unfinished
from corobench.benchmark.executors.status import Found, find_commands
from corobench.benchmark.files.console import plain_console

#: Results and interrupted evaluations that are shown one by one.
MAX_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Status:
    """All that a folder tells.

    Attributes:
        commands: that run, or were killed and left their file.
        faults: what is wrong with files.
        results: that are finished.
        interrupted: evaluations with chunks that no running command works on.
    """

    commands: list[Found]
    faults: list[str]
    results: list[Finished]
    interrupted: list[Unfinished]


def look(root: Path) -> Status:
    """What a folder of results tells now.

    Args:
        root: folder of results.

    Raises:
        CorobenchError: there is no such folder.
    """
    if not root.is_dir():
        raise CorobenchError(
            f"{root}: expected a folder of results, as --out names it, but there is none"
        )
    commands, faults = find_commands(root)
    running = {
        row.entry for found in commands if not found.is_stale for row in found.command.running
    }
    left = [
        one for one in unfinished(root) if not {one.entry, one.entry.rpartition("@")[0]} & running
    ]
    return Status(commands, faults, finished(root), left)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("results"))
@click.option("--watch", is_flag=True, help="Refresh every two seconds until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(folder: Path, watch: bool, as_json: bool) -> None:
    """Show how far the evaluations in a folder are.

    Works from another terminal, and on another machine that sees the folder: what runs and how
    far each entry is, what is finished, and what was interrupted. The same command as before goes
    on with what was interrupted.

    \b
    Examples:
      corobench status results
      corobench status results --watch
      corobench status results --json
    """
    if as_json:
        click.echo(json.dumps(as_table(look(folder)), indent=1))
        return
    console = plain_console(highlight=False)
    if not watch:
        console.print(shown(look(folder)))
        return
    with Live(shown(look(folder)), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(2.0)
            live.update(shown(look(folder)), refresh=True)


def as_table(at: Status) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "schema": 1,
        "commands": [
            {
                **found.command.model_dump(by_alias=True, exclude={"schema_version"}),
                "age_s": round(found.age_s, 1),
                "is_stale": found.is_stale,
                "is_gone": found.is_gone,
            }
            for found in at.commands
        ],
        "results": [_plain(dataclasses.asdict(one)) for one in at.results],
        "interrupted": [_plain(dataclasses.asdict(one)) for one in at.interrupted],
        "faults": at.faults,
    }


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    """Paths as text, seconds rounded."""
    return {
        key: str(value) if isinstance(value, Path) else round(value, 1) if key == "age_s" else value
        for key, value in table.items()
    }


def shown(at: Status) -> Group:
    """The status for people."""
    parts: list[Table | Text] = []
    for found in at.commands:
        parts += _command(found)
    if not at.commands:
        parts.append(Text("nothing runs"))
    parts.append(_results(at.results))
    parts += _interrupted(at.interrupted)
    parts += [Text(fault, style="yellow") for fault in at.faults]
    return Group(*parts)


def _command(found: Found) -> list[Table | Text]:
    """One command: its head, and a table of its entries."""
    told = found.command
    counts = f"{told.num_done} done, {told.num_running} running, {told.num_waiting} waiting"
    if told.failed:
        counts += f", {len(told.failed)} failed"
    head = f"{printable(told.host)}, process {told.pid}: {counts}; {length(told.seconds)}"
    if told.workers:
        head += f"; {printable(told.workers)}"
    parts: list[Table | Text] = [Text(head, style="bold")]
    if found.is_gone:
        text = (
            f"  ended without a word, last seen {length(found.age_s)} ago; give its command again"
        )
        parts.append(Text(text, style="yellow"))
    elif found.is_stale:
        parts.append(
            Text(f"  silent for {length(found.age_s)}: stopped, or cut off", style="yellow")
        )
    if told.running:
        table = Table(box=None, pad_edge=True, show_header=False)
        for overflow in ("fold", "fold", "fold", "ellipsis", "fold"):
            is_note = overflow == "ellipsis"
            table.add_column(no_wrap=True, overflow=overflow, ratio=1 if is_note else None)
        for row in told.running:
            done = f"{row.done}/{row.total}" if row.total else ""
            cells = (row.entry, row.stage, done, row.note, length(row.seconds))
            table.add_row(*(Text(printable(cell)) for cell in cells))
        parts.append(table)
    parts += [Text(f"  failed: {printable(entry)}", style="red") for entry in told.failed]
    return parts


def _results(results: list[Finished]) -> Text:
    """How many there are on each track, and the latest."""
    counts: dict[tuple[str, str], int] = {}
    for one in results:
        counts[one.round, one.track] = counts.get((one.round, one.track), 0) + 1
    if not counts:
        return Text("no results yet")
    where = ", ".join(f"{num} in {round_}/{track}" for (round_, track), num in counts.items())
    some = "result is" if len(results) == 1 else "results are"
    lines = [f"{len(results)} {some} finished: {where}"]
    latest = sorted(results, key=lambda one: (one.age_s, one.name))[:MAX_SHOWN]
    lines += [f"  {one.track}/{one.name}, {length(one.age_s)} ago" for one in latest]
    if len(results) > MAX_SHOWN:
        lines.append(f"  and {len(results) - MAX_SHOWN} earlier ones")
    return Text("\n".join(lines))


def _interrupted(left: list[Unfinished]) -> list[Text]:
    """Evaluations that the same command goes on with."""
    if not left:
        return []
    some = "evaluation was" if len(left) == 1 else "evaluations were"
    lines = [f"{len(left)} {some} interrupted; give the same command again to go on"]
    for one in left[:MAX_SHOWN]:
        name = f"{one.entry} ({one.track})" if one.entry else "an entry that is not named"
        chunks = "chunk" if one.num_chunks == 1 else "chunks"
        last = f"the last one, {one.last}, {length(one.age_s)} ago"
        lines.append(f"  {name}: {one.num_chunks} finished {chunks}, {last}")
    if len(left) > MAX_SHOWN:
        lines.append(f"  and {len(left) - MAX_SHOWN} more")
    return [Text("\n".join(lines), style="yellow")]
