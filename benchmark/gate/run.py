"""Compare a candidate with its baseline, a slice of images at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from corobench.benchmark.errors import ConfigError, ResultError
from corobench.benchmark.files.progress import Reporter
from corobench.benchmark.files.steps import Steps
from corobench.benchmark.gate.rule import (
    Judged,
    Rule,
    Size,
    Verdict,
    judge_size,
    lost_proofs,
    pair,
    worst,
)
from corobench.benchmark.gate.sequential import looks, settled
from corobench.benchmark.records.result import Result
from corobench.benchmark.records.weighing import require_weighed
from corobench.benchmark.scoring.scored import read_scored, require_join
from corobench.benchmark.submission.kinds import is_onnx, kind_of
from corobench.benchmark.tracks import round_of


@dataclass(frozen=True)
class CandidateRun:
    """How a candidate is evaluated; see `compare_with_baseline`."""

    device: str
    data_root: Path | None
    reporter: Callable[[str], Reporter]
    steps: Steps
    chunks: Path | None


_UNASKED = "not compared, because the baseline has proofs, but no certifier was asked about the "
"candidate"


@dataclass(frozen=True)
class Checked:
    """What the gate found.

    Attributes:
        verdict: of everything.
        judged: one for each metric.
        size: packed bytes.
        n: images compared.
        total: images of the baseline.
        is_settled_early: red was proven, or hardly possible any more, after n of `total` images.
        notes: what a reader should know about the comparison.
        rule: that was applied.
        candidate, baseline: what was compared.
        seconds: wall-clock.
    """

    verdict: Verdict
    judged: tuple[Judged, ...]
    size: Size
    n: int
    total: int
    is_settled_early: bool
    notes: tuple[str, ...]
    rule: Rule
    candidate: str
    baseline: str
    seconds: float


def compare_with_baseline(
    candidate: Path,
    baseline: Path,
    rule: Rule,
    *,
    device: str = "cpu",
    data_root: Path | None = None,
    whole: bool = False,
    even_if_equal: bool = False,
    reporter: Callable[[str], Reporter] = Reporter,
    steps: Steps | None = None,
    chunks: Path | None = None,
) -> Checked:
    """Compare a candidate with a baseline on the baseline's images.

    A submission folder, or an ONNX file by itself, is evaluated, in slices of the published order,
    until the verdict is settled. A result file is compared as it is.

    Args:
        candidate: submission folder, ONNX file, or a result file with its outcome table beside it.
        baseline: result file, with its outcome table beside it.
        rule: what is allowed.
        device: for evaluating.
        data_root: folder of the dataset, or None for the usual search.
        whole: look at all images even where the verdict is settled before.
        even_if_equal: compare outcomes also where both have the same weights.
        reporter: makes the progress of one slice from its title; standard error by default.
        steps: told of each step; those that ended an earlier process are not tried again.
        chunks: folder in which finished chunks of this comparison are kept; None to keep none.

    Raises:
        CorobenchError: anything a user can fix; the two cannot be compared.
        ContradictionError: a certified image of the candidate was broken.
    """
    start = time.monotonic()
    reference, table, _ = read_scored(baseline)
    if is_result(candidate):
        source: _Stored | _Evaluated = _Stored(candidate, reference, baseline)
    else:
        run = CandidateRun(device, data_root, reporter, steps or Steps(), chunks)
        source = _Evaluated(candidate, reference, baseline, run)
    size = judge_size(reference.compactness.bytes_packed, source.bytes_packed, rule)
    notes, total, sizes, slices = source.notes, source.total, source.sizes, source.slices()
    if source.weights_sha256 == reference.weights_sha256 and not even_if_equal:
        # The same weights: every image fares alike, and there is nothing to evaluate.
        notes = (*notes, "same weights as the baseline; nothing was evaluated")
        total, sizes, slices = reference.n, (reference.n,), iter([(reference.n, table)])
    sizes = (total,) if whole else sizes
    judged: list[Judged] | None = None
    n, unasked = 0, list[str]()
    for n, rows in slices:
        require_join(table, rows, baseline, candidate)
        if n not in sizes:
            continue
        unasked = lost_proofs(table, rows)
        judged = settled(pair(table, rows), n, sizes, rule)
        if judged is not None:
            break
    assert judged is not None, "the last look at the images always decides"
    lost = [Verdict.WARN for _ in unasked]
    notes = (*notes, *(f"certified {epsilon}: {_UNASKED}" for epsilon in unasked))
    return Checked(
        worst([size.verdict, *lost, *(one.verdict for one in judged)]),
        tuple(judged),
        size,
        n=n,
        total=total,
        is_settled_early=n < total,
        notes=(*notes, *source.unanswered),
        rule=rule,
        candidate=str(candidate),
        baseline=str(baseline),
        seconds=time.monotonic() - start,
    )


def is_result(candidate: Path) -> bool:
    """Whether a candidate is a result file, and neither a folder nor an ONNX file.

    Raises:
        ConfigError: it is a checkpoint, which is no network by itself.
    """
    if candidate.is_file() and kind_of(candidate) in ("torch", "safetensors"):
        raise ConfigError(
            f"{candidate}: weights alone are no candidate; make a folder of them with `corobench "
            "import`, or export the network to ONNX, and check that"
        )
    return candidate.is_file() and not is_onnx(candidate)


class _Stored:
    """A candidate whose result is there already."""

    def __init__(self, path: Path, reference: Result, baseline: Path) -> None:
        result, self._table, _ = read_scored(path)
        _require_same(result, reference, path, baseline)
        if result.weights_sha256 == reference.weights_sha256:
            require_weighed(result, reference.compactness, path, baseline)
        self.total = min(result.n, reference.n)
        self.sizes: tuple[int, ...] = (self.total,)
        self.bytes_packed = result.compactness.bytes_packed
        self.weights_sha256 = result.weights_sha256
        self.notes = _notes(result.versions, reference)
        self.unanswered: list[str] = []

    def slices(self) -> Iterator[tuple[int, pd.DataFrame]]:
        yield self.total, self._table


class _Evaluated:
    """A submission folder or ONNX file, evaluated slice by slice."""

    def __init__(self, folder: Path, reference: Result, baseline: Path, run: CandidateRun) -> None:
        from corobench.benchmark.evaluation.identity import versions
        from corobench.benchmark.submission import load_candidate

        self._submission = load_candidate(folder, reference.track)
        self._folder, self._reference, self._baseline = folder, reference, baseline
        self._run = run
        self.unanswered: list[str] = []
        run.steps.begin("measure")
        self.total = reference.n
        self.sizes = looks(self.total)
        measured = self._submission.measure()
        self.bytes_packed = measured.bytes_packed
        self.weights_sha256 = self._submission.weights_sha256
        if self.weights_sha256 == reference.weights_sha256:
            require_weighed(reference, measured, baseline, folder)
        self.notes = _notes(versions(), reference)

    def slices(self) -> Iterator[tuple[int, pd.DataFrame]]:
        from corobench.benchmark.gate.evaluation import outcomes_in_slices

        tables = []
        for n, rows, errors in outcomes_in_slices(
            self._submission,
            self._folder,
            self._reference,
            self._baseline,
            self.sizes,
            self._run,
        ):
            tables.append(rows)
            self.unanswered += [line for line in errors if line not in self.unanswered]
            yield n, pd.concat(tables, ignore_index=True)


def _notes(versions: dict[str, str], reference: Result) -> tuple[str, ...]:
    return tuple(
        f"{name} {versions.get(name, 'none')} here, {old} in the baseline"
        for name, old in sorted(reference.versions.items())
        if versions.get(name) != old
    )


def _require_same(result: Result, reference: Result, path: Path, baseline: Path) -> None:
    """Refuse to compare results of different images, radii or protocols.

    Raises:
        ResultError: names the key.
    """
    for key, mine, theirs in (
        ("protocol", round_of(result.protocol), round_of(reference.protocol)),
        ("track", result.track, reference.track),
        ("data.fingerprint", result.data.fingerprint, reference.data.fingerprint),
        ("epsilons", list(result.epsilons), list(reference.epsilons)),
    ):
        if mine != theirs:
            raise ResultError(
                f"{path}: {key}: expected {theirs!r} as in {baseline}, but found {mine!r}; "
                "only results of the same images, radii and protocol can be compared"
            )
