"""``corobench evaluate --curve``: what follows once the results are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.executors.planning import Plan, place_of
from corobench.benchmark.files.console import plain_console


def measure(
    folders: Sequence[Path],
    plan: Plan,
    limits: Limits | None,
    device: str,
    data_root: Path | None,
    force: bool,
) -> None:
    """Measure the curve of every result of a plan, one after another, each in its own process.

    Args:
        folders: of the submissions.
        plan: whose results are there by now.
        limits: of each process, or None to work in this one.
        device: to measure on.
        data_root: folder of the dataset, or None for the usual search.
        force: measure curves anew that are there already.

    Raises:
        CorobenchError: a result or a submission is at fault.
    """
    from corobench.benchmark.executors.curves import run_curve
    from corobench.benchmark.submission.manifest import load_manifest

    by_entry = {load_manifest(folder).id: folder for folder in folders}
    console = plain_console()
    for path in (*(place_of(work) for work in plan.works), *plan.there):
        entry = path.stem.partition("@")[0]
        found = run_curve(
            path, by_entry[entry], limits, device=device, data_root=data_root, force=force
        )
        console.print(str(found), soft_wrap=True, highlight=False, markup=False)
