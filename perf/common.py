"""What the speed scripts share: an evaluation without files, and the verdict on the last line."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corobench.benchmark.attacks.pgd import PGD
from corobench.benchmark.certify import Prover
from corobench.benchmark.data import load_test, subset
from corobench.benchmark.evaluation.facts import Facts
from corobench.benchmark.evaluation.pipeline import Evaluation
from corobench.benchmark.evaluation.prepared import CheckedNetwork, prepare
from corobench.benchmark.files.chunks import ChunkStore
from corobench.benchmark.files.progress import Reporter
from corobench.benchmark.referee import threat
from corobench.benchmark.submission import load_submission
from corobench.benchmark.tracks import Protocol

ALL_CERTIFIERS = Protocol().certifiers


@dataclass(frozen=True)
class Job:
    """An entry and the first n images it is evaluated on.

    Attributes:
        folder: of the entry.
        n: how many images.
        data_root: where the track's data lies.
        epsilons: radii instead of the track's.
        closes: whether alpha-CROWN and branch and bound are asked, too.
    """

    folder: Path
    n: int
    data_root: Path | None = None
    epsilons: tuple[str, ...] | None = None
    closes: bool = False

    def evaluate(self, title: str, *, verify_first: bool = True) -> Facts:
        """Run the pipeline with the protocol's settings; nothing is kept."""
        submission = load_submission(self.folder)
        track = submission.track
        protocol = Protocol() if self.closes else Protocol(closing_certifiers=())
        images, labels, _ = subset(load_test(track.name, self.data_root), self.n)
        x, y = torch.from_numpy(images), torch.from_numpy(labels)
        prepared = prepare(CheckedNetwork(submission.model, x, y, track), protocol)
        if not verify_first:
            not_asked = dict.fromkeys(ALL_CERTIFIERS, "attack only")
            prepared = replace(prepared, prover=None, not_asked=not_asked)
        with tempfile.TemporaryDirectory() as folder, Reporter(title) as report:
            return Evaluation(
                prepared,
                epsilons=self.epsilons or track.epsilons,
                seed=0,
                chunks=ChunkStore(Path(folder), {}),
                report=report,
            ).run()


@dataclass(frozen=True)
class Boxes:
    """The balls around images that a network gets right, and who is asked about them.

    Attributes:
        prover: of the network.
        low: float32 (n, C, H, W), lower corners.
        high: float32 (n, C, H, W), upper corners.
        labels: int64 (n,).
        left: of the balls that are open, the numbers in order.
    """

    prover: Prover
    low: Tensor
    high: Tensor
    labels: Tensor
    left: list[int]


def open_boxes(
    folder: Path, n: int, epsilon: Fraction, data_root: Path | None, methods: tuple[str, ...]
) -> Boxes:
    """Those of an entry's first n images that PGD-50 does not break and no method proves."""
    submission = load_submission(folder)
    model, track = submission.model.eval().requires_grad_(False), submission.track
    images, labels, _ = subset(load_test(track.name, data_root), n)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    with torch.no_grad():
        right = torch.cat([model(image) for image in x.split(1)]).argmax(dim=1) == y
    x, y = x[right], y[right]
    prover = Prover(model, track.shape, track.num_classes)
    low, high = threat.box(x, epsilon)
    left = ~PGD().run(model, x, y, epsilon, 0).broken_B
    for method in methods:
        left &= ~prover.prove(method, low, high, y).certified_B
    return Boxes(prover, low, high, y, left.nonzero().flatten().tolist())


def cpu_timed(spent: dict[str, float], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, adding its processor seconds to `spent`; torch must keep to one thread.

    Processor seconds of one thread say the same on a busy machine and on an idle one.
    """

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return call(*args, **kwargs)
        finally:
            spent[name] = spent.get(name, 0.0) + time.process_time() - start

    return wrapped


def verdict(ratio: float, *, at_least: float | None = None, at_most: float | None = None) -> None:
    """Print the ratio as the last line and exit 1 on the wrong side of the bar."""
    print(f"ratio {ratio:.3g}")
    missed = (at_least is not None and ratio < at_least) or (
        at_most is not None and ratio > at_most
    )
    sys.exit(1 if missed else 0)
