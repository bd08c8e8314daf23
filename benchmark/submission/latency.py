"""Latency of one image on this machine's processor, through onnxruntime; for information only.

It depends on the machine and its load, so that it is shown with both and is no part of a result.
"""

from __future__ import annotations

import platform
import time
from pathlib import Path

import numpy as np
import torch

from corobench.benchmark.records.reports import Latency, Measured
from corobench.benchmark.submission.graph.exporting import export
from corobench.benchmark.submission.graph.runtime import Runtime
from corobench.benchmark.submission.load import Submission, load_submission

WARM_UP, REPEATS = 20, 200


def measure_latency(submission: Submission, repeats: int = REPEATS) -> Latency:
    """Time a submission in onnxruntime: its own ONNX file, or one that is exported from it.

    Args:
        submission: loaded, on the CPU.
        repeats: timed runs after `WARM_UP` others.

    Raises:
        SubmissionError: it cannot be written as ONNX.
        DependencyError: onnxruntime or the exporter is missing.
    """
    import onnxruntime

    reference = submission.reference
    if isinstance(reference, Runtime):
        runtime = Runtime(reference.content, reference.batch, layout=reference.layout)
    else:
        runtime = Runtime(export(submission.model, submission.track.shape))
    x = torch.rand(runtime.batch or 1, *submission.track.shape)
    for _ in range(WARM_UP):
        runtime(x)
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        runtime(x)
        spent.append(1000 * (time.perf_counter() - start) / len(x))
    low, median, high = np.percentile(spent, [5, 50, 95])
    version = f"onnxruntime {onnxruntime.__version__}"
    return Latency(float(median), float(low), float(high), repeats, processor(), version)


def weigh(folder: Path, *, latency: bool = False) -> Measured:
    """What a submission folder weighs, and, if asked, how long one image takes.

    Raises:
        SubmissionError: faults of the folder.
    """
    submission = load_submission(folder)
    timed = measure_latency(submission) if latency else None
    return Measured(submission.manifest.id, submission.measure(), timed, submission.weights_sha256)


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
