"""pytest's fixture ``corobench_gate``: the gate as an assertion in a project's own tests.

    def test_robustness(corobench_gate):
        assert corobench_gate.holds("model", baseline="robustness.json")

Loaded through the entry point ``pytest11`` wherever corobench is installed; it imports nothing of
weight before the fixture is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from corobench.benchmark.gate.run import Checked


@dataclass(frozen=True)
class Holding:
    """Whether the gate holds; shown in full where an assertion on it fails.

    Attributes:
        checked: everything the gate found.
    """

    checked: Checked

    def __bool__(self) -> bool:
        """True unless the verdict is "fail"."""
        return str(self.checked.verdict) != "fail"

    def __repr__(self) -> str:
        from corobench.benchmark.gate.report import markdown

        return f"\n{markdown(self.checked)}"


class Gate:
    """The fixture's value."""

    def holds(
        self,
        candidate: str | Path,
        baseline: str | Path,
        *,
        max_drop: float = 1.0,
        alpha: float = 0.05,
        max_bytes_growth: float = 0.0,
        device: str = "cpu",
        data_root: str | Path | None = None,
        whole: bool = False,
        isolate: bool = True,
    ) -> Holding:
        """Compare a candidate with its baseline, as ``corobench check`` does.

        Args:
            candidate: submission folder, ONNX file or result file.
            baseline: result file, with its outcome table beside it.
            max_drop: percentage points that a metric may lose.
            alpha: chance of a false alarm over all metrics.
            max_bytes_growth: percent that the packed weights may grow.
            device: for evaluating.
            data_root: folder of the dataset, or None for the usual search.
            whole: look at all images, also where the verdict is settled before.
            isolate: work on a folder in a process of its own, with limits.

        Raises:
            CorobenchError: the two cannot be compared; says why.
        """
        from corobench.benchmark.executors import run_check
        from corobench.benchmark.executors.limits import Limits
        from corobench.benchmark.gate.rule import Rule

        rule = Rule(max_drop=max_drop, alpha=alpha, max_bytes_growth=max_bytes_growth)
        root = None if data_root is None else Path(data_root)
        limits = Limits() if isolate else None
        checked = run_check(
            Path(candidate),
            Path(baseline),
            rule,
            limits,
            device=device,
            data_root=root,
            whole=whole,
        )
        return Holding(checked)


@pytest.fixture
def corobench_gate() -> Gate:
    """``corobench_gate.holds(candidate, baseline=...)``: true unless the gate is red."""
    return Gate()
