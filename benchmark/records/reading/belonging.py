"""Whether the rows of an outcome table are the images that its run names."""

from __future__ import annotations

import numpy as np

from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.reading.columns import Columns
from corobench.benchmark.records.reading.published import images_fault, labels_fault
from corobench.benchmark.records.result import Run
from corobench.benchmark.tracks import TRACKS, get_track


def require_belonging(columns: Columns, run: Run, where: str) -> None:
    """Refuse a table of other images, labels or radii than its run's.

    The rows of a table stand in one order: by epsilon as in the run, then by position. At each
    epsilon the images are the first n of the published order, with the same labels and predictions.

    Args:
        columns: the table.
        run: inside it.
        where: file or entry, for messages.

    Raises:
        ResultError: names `where`, the column, what was expected and what was found.
    """
    fault = _fault(columns, run)
    if fault:
        raise ResultError(f"{where}: {fault}")


def _fault(columns: Columns, run: Run) -> str:
    if run.track not in TRACKS:
        return f"track: expected one of {', '.join(TRACKS)}, found {run.track[:40]!r}"
    if not run.epsilons or len(set(run.epsilons)) != len(run.epsilons):
        return "run record: epsilons: expected at least one, without repetition"
    n, num_epsilons = run.n, len(run.epsilons)
    if len(columns) != n * num_epsilons:
        return (
            f"expected one row for each of {n} images at each of {num_epsilons} epsilons, "
            f"{n * num_epsilons}, but found {len(columns)} rows"
        )
    numbers, first = columns.numbers, slice(0, n)
    for number, epsilon in enumerate(run.epsilons):
        here = slice(number * n, (number + 1) * n)
        if not columns.texts["epsilon"].equals(epsilon)[here].all():
            return f"epsilon: expected rows {here.start} to {here.stop - 1} at {epsilon}"
        if not np.array_equal(numbers["position"][here], np.arange(n)):
            return f"position: expected 0 to {n - 1} in this order at {epsilon}"
        for name in ("image", "label", "predicted"):
            if not np.array_equal(numbers[name][here], numbers[name][first]):
                return f"{name}: expected the same at {epsilon} as at {run.epsilons[0]}"
    predicted, num_classes = numbers["predicted"][first], get_track(run.track).num_classes
    if predicted.min() < -1 or predicted.max() >= num_classes:
        return f"predicted: expected classes from 0 to {num_classes - 1}, or -1"
    return images_fault(run.track, run.data, numbers["image"][first]) or labels_fault(
        run.track, run.data, numbers["label"][first]
    )
