"""pytest's fixture ``corobench_gate``: the gate as an assertion in a project's own tests.

    def test_robustness(corobench_gate):
        assert corobench_gate.holds("model", baseline="robustness/model.json")

    def test_my_network(corobench_gate):
        assert corobench_gate.holds(build_network(), baseline="robustness/model.json")

A test that fails shows the whole table below its traceback. Loaded through the entry point
``pytest11`` wherever corobench is installed; it imports nothing of weight before the fixture is
used.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import nn

    from corobench.benchmark.gate.run import Checked
    from corobench.benchmark.interactive.check import GateResult


@dataclass(frozen=True, repr=False)
class Holding:
    """Whether the gate holds.

    Attributes:
        found: everything the gate found, with its table as text.
    """

    found: GateResult

    @property
    def checked(self) -> Checked:
        """Everything that was compared."""
        return self.found.checked

    def __bool__(self) -> bool:
        """True unless the verdict is "fail"."""
        return bool(self.found)

    def __str__(self) -> str:
        return str(self.found)

    def __repr__(self) -> str:
        """One line, for pytest cuts and joins longer ones; the table stands below the failure."""
        from corobench.benchmark.gate.report import headline

        return f"<{headline(self.checked)}>"


@dataclass
class Gate:
    """The fixture's value.

    Attributes:
        held: what was asked of it in this test.
    """

    held: list[Holding] = field(default_factory=list, repr=False)

    def holds(
        self,
        candidate: nn.Module | str | Path,
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
        """Compare a candidate with its baseline; see `corobench.check`, which has the arguments.

        Args:
            candidate: a ``torch.nn.Module`` in eval mode, a submission folder, an ONNX file or a
                result file.
            baseline: result file, with its outcome table beside it.
            max_drop: percentage points that a metric may lose.
            alpha: chance of a false alarm over all metrics.
            max_bytes_growth: percent that the packed weights may grow.
            device: for evaluating.
            data_root: folder of the dataset, or None for the usual search.
            whole: look at all images, also where the verdict is settled before.
            isolate: work on a network in a process of its own, with limits.

        Raises:
            CorobenchError: the two cannot be compared; says why.
        """
        from corobench.benchmark.interactive.check import check

        found = check(
            candidate,
            baseline,
            max_drop=max_drop,
            alpha=alpha,
            max_bytes_growth=max_bytes_growth,
            device=device,
            data_root=data_root,
            whole=whole,
            isolate=isolate,
        )
        self.held.append(Holding(found))
        return self.held[-1]


@pytest.fixture
def corobench_gate() -> Gate:
    """``corobench_gate.holds(candidate, baseline=...)``: true unless the gate is red."""
    return Gate()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, pytest.TestReport]:
    """Below a failed test the whole table of each gate that is red."""
    report: pytest.TestReport = yield
    if report.failed and report.when in ("setup", "call"):
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Gate):
                report.sections += [("corobench gate", str(one)) for one in value.held if not one]
    return report
