"""Options that several commands share, with one wording."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from corobench.benchmark.errors import DatasetError, SubmissionError
from corobench.benchmark.executors.limits import GIB, Limits

Command = TypeVar("Command", bound=Callable[..., Any])


def _existing_folder(
    context: click.Context, option: click.Parameter, value: Path | None
) -> Path | None:
    """A folder that was named must be there: nothing else may be used in its place."""
    if value is None:
        return None
    value = value.expanduser()
    if not value.is_dir():
        raise DatasetError(
            f"--data-root (or COROBENCH_DATA): expected a folder with images, but {value} is not "
            "one; name the folder, or leave it out for the usual places"
        )
    return value


data_root = click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    envvar="COROBENCH_DATA",
    callback=_existing_folder,
    help="Folder of the dataset. By default, system copies and downloads are tried.",
)
json_path = click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Write a JSON report."
)
device = click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
certifiers = click.option(
    "--certifiers/--no-certifiers",
    default=True,
    show_default=True,
    help="List the certifiers that an evaluation will ask, and why not the others.",
)
isolate = click.option(
    "--isolate/--no-isolate",
    default=True,
    show_default=True,
    help="Run each submission in a process of its own, with limits.",
)
step_limit_s = click.option(
    "--step-limit-s",
    type=click.FloatRange(min=0, min_open=True),
    default=Limits.step_s,
    show_default=True,
    help="Seconds that one step may take, such as one chunk of an attack. After that its images "
    "are a timeout.",
)
memory_limit_gib = click.option(
    "--memory-limit-gib",
    type=click.FloatRange(min=0, min_open=True),
    default=Limits.memory_bytes / GIB,
    show_default=True,
    help="Memory of the process. If a step needs more, its images are an error.",
)


def folder_of_entry(result: Path, option: str) -> Path:
    """The folder submissions/<entry> that a result belongs to, where none was named.

    Args:
        result: result file.
        option: that names another folder.

    Raises:
        ResultError: no result file.
        SubmissionError: no such folder here.
    """
    from corobench.benchmark.records.reading.result_file import read_result

    folder = Path("submissions") / read_result(result).entry
    if not folder.is_dir():
        raise SubmissionError(
            folder, [f"expected the folder of the entry, but there is none; name it with {option}"]
        )
    return folder


def process_limits(command: Command) -> Command:
    """The three options above, given to a command as one value, `limits`: Limits, or None."""

    @isolate
    @step_limit_s
    @memory_limit_gib
    @functools.wraps(command)
    def limited(
        *arguments: Any, isolate: bool, step_limit_s: float, memory_limit_gib: float, **more: Any
    ) -> Any:
        limits = Limits(step_s=step_limit_s, memory_bytes=int(memory_limit_gib * GIB))
        return command(*arguments, limits=limits if isolate else None, **more)

    return limited  # type: ignore[return-value]
