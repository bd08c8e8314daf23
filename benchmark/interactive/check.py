"""``corobench.check``: is a candidate less accurate, less robust or larger than its baseline?"""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from corobench.benchmark.errors import ConfigError
from corobench.benchmark.interactive.arguments import folder_of, path_of
from corobench.benchmark.interactive.processes import quiet_main

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from corobench.benchmark.gate.run import Checked

WIDTH = 80


@dataclass(frozen=True, repr=False)
class GateResult:
    """What the gate found; true unless it is red. Its text is the whole table.

    Attributes:
        checked: everything that was compared.
    """

    checked: Checked

    def __bool__(self) -> bool:
        """True unless the verdict is "fail"."""
        return str(self.checked.verdict) != "fail"

    @property
    def verdict(self) -> str:
        """ "pass", "warn" or "fail"."""
        return str(self.checked.verdict)

    def to_frame(self) -> pd.DataFrame:
        """One row per metric: counts of baseline and candidate out of n, drop in points, p."""
        import pandas as pd

        rows = [
            {
                "metric": one.paired.name,
                "n": one.paired.n,
                "baseline": one.paired.baseline,
                "candidate": one.paired.candidate,
                "drop": one.paired.drop,
                "p_corrected": one.p_corrected,
                "verdict": str(one.verdict),
            }
            for one in self.checked.judged
        ]
        return pd.DataFrame.from_records(rows)

    def __str__(self) -> str:
        from corobench.benchmark.files.console import plain_console
        from corobench.benchmark.gate.report import terminal_table

        text = io.StringIO()
        console = plain_console(file=text, width=WIDTH, force_terminal=False, color_system=None)
        console.print(terminal_table(self.checked))
        return "\n".join(line.rstrip() for line in text.getvalue().strip("\n").splitlines())

    def __repr__(self) -> str:
        return str(self)


def check(
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
) -> GateResult:
    """Compare a candidate with its baseline on the same images, as ``corobench check`` does.

    A network in memory is exported to an ONNX file first, so that what is compared is what could
    be shipped; its operators must be among those of RULES.md ("ONNX files").

    Args:
        candidate: a ``torch.nn.Module`` in eval mode, a submission folder, an ONNX file, or a
            result file.
        baseline: a result file with its outcome table beside it.
        max_drop: percentage points that a metric may truly lose, at least 0.
        alpha: chance of a false alarm over all metrics, in (0, 1).
        max_bytes_growth: percent that the packed weights may grow, at least 0.
        device: for evaluating, "cpu" or "cuda".
        data_root: folder of the dataset, or None for the usual search.
        whole: look at all images, also where the verdict is settled before.
        isolate: work on a network in a process of its own, with limits.

    Returns:
        What was found: false where a true loss beyond `max_drop` is proven, or the weights grew.

    Raises:
        CorobenchError: the two cannot be compared; says why.
        ContradictionError: a certified image of the candidate was broken.

    >>> import corobench
    >>> from corobench.leaderboard.frames import SHIPPED
    >>> better, worse = (
    ...     SHIPPED / "1.0" / "digits" / f"digits-adv-{arm}-10x.json" for arm in ("lwm", "mismatch")
    ... )
    >>> bool(corobench.check(better, worse)), bool(corobench.check(worse, better))
    (True, False)
    """
    from corobench.benchmark.executors import run_check
    from corobench.benchmark.executors.limits import Limits
    from corobench.benchmark.gate.rule import Rule

    rule = Rule(max_drop=max_drop, alpha=alpha, max_bytes_growth=max_bytes_growth)
    reference = path_of(baseline, "the baseline's result file")
    root = folder_of(data_root, "data_root")
    limits = Limits() if isolate else None
    with tempfile.TemporaryDirectory(prefix="corobench-") as place, quiet_main():
        path, name = _as_path(candidate, reference, Path(place))
        checked = run_check(
            path, reference, rule, limits, device=device, data_root=root, whole=whole
        )
    return GateResult(replace(checked, candidate=name))


def _as_path(candidate: object, baseline: Path, place: Path) -> tuple[Path, str]:
    """The candidate as a path, and what it is called."""
    import sys

    torch = sys.modules.get("torch")  # without it there is no network in memory
    if torch is None or not (isinstance(candidate, torch.nn.Module | type)):
        if not isinstance(candidate, str | Path):
            raise ConfigError(
                "candidate: expected a torch.nn.Module, a submission folder, an ONNX file or a "
                f"result file, but found {type(candidate).__name__}"
            )
        path = path_of(candidate, "a submission folder, an ONNX file or a result file")
        return path, str(path)
    from corobench.benchmark.interactive.export import as_onnx
    from corobench.benchmark.records.reading.result_file import read_result
    from corobench.benchmark.tracks import get_track

    content, name = as_onnx(candidate, get_track(read_result(baseline).track))
    path = place / f"{name}.onnx"
    path.write_bytes(content)
    return path, f"{name}, a network in memory"
