"""The command ``drift``: what moved under other library versions."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.table import Table

from corobench.benchmark.cli import options as cli_options
from corobench.benchmark.errors import ContradictionError, ResultError
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.files.atomic import write_atomic
from corobench.benchmark.files.console import plain_console
from corobench.benchmark.records.reading.result_file import read_payload, read_scorecard
from corobench.benchmark.records.result import Result
from corobench.benchmark.review import drift as drifting
from corobench.benchmark.tracks import get_track


@click.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path), required=False)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Images to evaluate again.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the sample."
)
@click.option(
    "--max-moved",
    type=click.FloatRange(min=0, max=100),
    default=5.0,
    show_default=True,
    help="Percent of the images whose outcome may change in a stage.",
)
@cli_options.json_path
@click.option(
    "--since",
    type=click.Path(path_type=Path),
    help="JSON report of an earlier drift of the same entry; its logits are compared as well.",
)
@cli_options.device
@cli_options.data_root
@cli_options.process_limits
def drift(
    old: Path,
    new: Path | None,
    sample: int,
    seed: int,
    max_moved: float,
    json_path: Path | None,
    since: Path | None,
    device: str,
    data_root: Path | None,
    limits: Limits | None,
) -> None:
    """What changes in the result OLD under other library versions?

    If NEW is a submission folder (by default submissions/<entry>), a seeded sample of the images of
    OLD is evaluated again with the installed versions and the same random numbers, and the stored
    adversarial images are measured again. If NEW is a result file of the same evaluation under
    other versions, all images are compared.

    \b
    Exit codes:
      0  no change beyond --max-moved
      1  a clean prediction changed, a stored adversarial image is not
         confirmed, or more than --max-moved percent changed in a stage
      2  something you can fix
      3  a contradiction: one evaluation broke what the other certified

    \b
    Examples:
      corobench drift leaderboard/results/1.1/digits/my-model.json
      corobench drift old.json submissions/my-model --sample 50 --json drift.json
      corobench drift results-torch-2.4/my-model.json results-torch-2.9/my-model.json
    """
    earlier = None if since is None else _logits(since, read_scorecard(old))
    if new is not None and new.is_file():
        found = drifting.between(old, new, max_moved)
    else:
        from corobench.benchmark.executors.looking_again import run_replay

        folder = new or cli_options.folder_of_entry(old, "NEW")
        found = run_replay(
            old,
            folder,
            limits,
            num_images=sample,
            seed=seed,
            max_moved=max_moved,
            device=device,
            data_root=data_root,
        )
    if earlier is not None:
        change = drifting.logit_change(earlier, found.logits or {})
        found = replace(found, logit_change=change)
    _show(found)
    if json_path is not None:
        write_atomic(json_path, as_json(found).encode())
    if found.contradictions:
        raise ContradictionError(f"{old}: " + "\n".join(found.contradictions))
    if found.moved_too_much:
        raise click.exceptions.Exit(1)


def as_json(found: drifting.Drift) -> str:
    """Everything, as a JSON document."""
    content: dict[str, Any] = {"schema": drifting.SCHEMA}
    for key, value in asdict(found).items():
        content["unheld" if key == "no_longer_wrong" else key] = value  # as in every report so far
    content["stages"] = [
        {**asdict(stage), "num_moved": stage.num_moved, "at_most_rate": stage.at_most_rate}
        for stage in found.stages
    ]
    content["moved_too_much"] = list(found.moved_too_much)
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _logits(path: Path, result: Result) -> dict[str, list[float]]:
    """Image -> logits, as an earlier report of a result's entry has them.

    Raises:
        ResultError: no report, or of another entry, or logits at fault.
    """
    entry, num_classes = result.entry, get_track(result.track).num_classes
    payload: dict[str, Any] = read_payload(path)
    if payload.get("schema") != drifting.SCHEMA or payload.get("entry") != entry:
        raise ResultError(
            f"{path}: expected a report of `corobench drift --json` on {entry}, but found schema "
            f"{payload.get('schema')!r}, entry {payload.get('entry')!r}"
        )
    logits = payload.get("logits")
    if not isinstance(logits, dict) or not logits:
        raise ResultError(f"{path}: logits: missing; the report of two result files has none")
    for image, row in logits.items():
        if not (isinstance(row, list) and len(row) == num_classes and all(map(_is_number, row))):
            raise ResultError(
                f"{path}: logits.{image[:20]}: expected {num_classes} numbers, one for each class, "
                f"found {json.dumps(row)[:60]}"
            )
    return logits


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _show(found: drifting.Drift) -> None:
    console = plain_console()
    versions = [f"{name} {then} → {now}" for name, (then, now) in found.versions.items()]
    title = f"{found.entry}: {found.num_images} of {found.n} images"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("stage", "compared", "lost", "won", "moved", "at most", "one only"):
        table.add_column(name, justify="left" if name == "stage" else "right", no_wrap=True)
    for stage in found.stages:
        table.add_row(
            f"{stage.name} {stage.epsilon}".strip(),
            str(stage.num_compared),
            str(len(stage.lost)),
            str(len(stage.won)),
            f"{100 * stage.rate:.1f} %",
            f"{100 * stage.at_most_rate:.1f} %",
            str(stage.num_unanswered),
            style="bold red" if stage.num_moved else "",
        )
    console.print(table)
    lines = [f"versions: {', '.join(versions) or 'the same'}"]
    for epsilon, change in found.margin_change.items():
        lines.append(f"largest change of a certified margin at {epsilon}: {_number(change)}")
    if found.logits:
        lines.append(f"largest change of a clean logit: {_number(found.logit_change)}")
    lines += found.no_longer_wrong[:20]
    lines += [f"too much drift: {reason}" for reason in found.moved_too_much]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _number(change: float | None) -> str:
    return "nothing to compare" if change is None else f"{change:.3g}"
