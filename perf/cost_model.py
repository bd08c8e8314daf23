"""Seconds per image and stage of each architecture: the table of `benchmark/executors/costs.py`.

    python perf/cost_model.py [NAME ...] [--data-root DIR]

One thread, processor seconds. Every network is asked about images that no attack breaks (the labels
are its own answers, the radius is tiny), so that each part of each attack runs to its end. Large
networks run ten and thirty steps on one target, from which the seconds of all steps and targets are
computed (`--large` does so with any network, to compare). The closing certifiers are asked about up
to eight images that PGD-50 does not break and CROWN does not prove at the radii of the track, with
the real labels. A network without an entry of its own has random weights.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from corobench.benchmark.attacks.autoattack import AutoAttackStandard
from corobench.benchmark.attacks.base import Proposal
from corobench.benchmark.attacks.pgd import PGD
from corobench.benchmark.certify import Prover
from corobench.benchmark.certify.stage import certify_chunk, close_chunk
from corobench.benchmark.data import load_test, subset
from corobench.benchmark.evaluation.prepared import certifier_stages, prepare_certifiers
from corobench.benchmark.referee.judge import predict_one_by_one
from corobench.benchmark.submission import load_submission
from corobench.benchmark.submission.architectures import build
from corobench.benchmark.tracks import Protocol, Track, get_track

ROOT = Path(__file__).parents[1]
TINY = Fraction(1, 100_000)
NUM_CLOSING = 8
#: Steps of the two runs of a large network.
FEW, MORE = 10, 30
PARTS = ("apgd-ce", "apgd-t", "fab-t", "square")


@dataclass(frozen=True)
class Case:
    """A network to measure.

    Attributes:
        architecture, track: the key of the table.
        entry: folder in `submissions/`, or empty for random weights.
        images: that the attacks run on.
        is_large: few steps and one target are run, and the seconds of all of them are computed.
    """

    architecture: str
    track: str
    entry: str = ""
    images: int = 32
    is_large: bool = False


CASES = (
    Case("cnn-small", "digits", "digits-adv-dense"),
    Case("cnn-small", "fashion-mnist", "fashion-mnist-adv-dense"),
    Case("cnn-small", "cifar10", "cifar10-adv-dense"),
    Case("cnn-large", "fashion-mnist", "fashion-mnist-adv-large-dense", 16, True),
    Case("cnn-large", "cifar10", "cifar10-adv-large-dense", 16, True),
    Case("cnn5", "cifar10", "cifar10-ibp-cnn5-dense", 8, True),
    Case("vgg16-bn", "cifar10", "", 2, True),
    Case("resnet8", "cifar10", "", 8, True),
    Case("resnet18", "cifar10", "", 2, True),
    Case("wrn-28-4", "cifar10", "", 2, True),
)


def seconds(call: Callable[[], object]) -> float:
    """Processor seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def images_of(track: Track, data_root: Path | None) -> tuple[Tensor, Tensor]:
    images, labels, _ = subset(load_test(track.name, data_root), 200)
    return torch.from_numpy(images), torch.from_numpy(labels)


def measure(case: Case, data_root: Path | None) -> dict[str, float | None]:
    """Seconds per image by stage; None where a certifier is not asked."""
    track, protocol = get_track(case.track), Protocol()
    x, labels = images_of(track, data_root)
    torch.manual_seed(0)
    if case.entry:
        model = load_submission(ROOT / "submissions" / case.entry).model
    else:
        model = build(case.architecture, track.shape, track.num_classes, {})
    model = model.eval().requires_grad_(False)
    num = case.images
    own = predict_one_by_one(model, x[:num]).argmax(dim=1)
    found: dict[str, float | None] = {
        "clean": seconds(lambda: predict_one_by_one(model, x[:num])) / num
    }
    prover, not_asked = prepare_certifiers(
        model, None, track.shape, track.num_classes, protocol, torch.device("cpu")
    )
    early, closing = certifier_stages(prover, protocol)
    for certifier in early:
        few = min(num, 8)
        found[certifier] = None
        if certifier not in not_asked:
            certify_chunk(prover, certifier, x[:few], own[:few], TINY)
            ask = partial(certify_chunk, prover, certifier, x[:few], own[:few], TINY)
            found[certifier] = seconds(ask) / few
    found |= _attacks(case, model, track, x[:num], own)
    asked = [certifier for certifier in closing if case.entry and certifier not in not_asked]
    images = _open(prover, model, x, labels, track) if asked else []
    num_open = sum(len(y) for _, y, _ in images)
    found |= dict.fromkeys(closing)
    for certifier in asked if num_open else []:
        ask = partial(close_chunk, prover, certifier, model)
        spent = [seconds(partial(ask, *one, protocol)) for one in images]
        found[certifier] = sum(spent) / num_open
    found["crown_closes"] = "CROWN" in closing and found["CROWN"] is not None
    found["weights"] = sum(value.numel() for value in model.parameters())
    return found


class ShortSuite(AutoAttackStandard):
    """The suite with a few steps, one target and a few queries.

    Args:
        steps: of each part that takes gradients; of Square, ten times as many queries.
        arguments: of the suite.

    Attributes:
        whole: part -> targets, and how many times the steps stand for all of them.
    """

    def __init__(self, steps: int, *arguments: int) -> None:
        super().__init__(*arguments)
        self.steps = steps
        self.whole: dict[str, tuple[int, float]] = {}

    def build(self, model: nn.Module, epsilon: Fraction, seed: int, device: torch.device) -> Any:
        suite = super().build(model, epsilon, seed, device)
        parts = (suite.apgd, suite.apgd_targeted, suite.fab, suite.square)
        for name, part in zip(PARTS, parts, strict=True):
            key, few = (
                ("n_queries", 10 * self.steps) if name == "square" else ("n_iter", self.steps)
            )
            whole, targets = getattr(part, key), 1
            if name == "fab-t" and self.steps == MORE:
                few = whole  # its steps do not all cost the same
            setattr(part, key, few)
            if name.endswith("-t"):
                targets, part.n_target_classes = part.n_target_classes, 1
            self.whole[name] = targets, whole / few
        return suite


def _attacks(
    case: Case, model: nn.Module, track: Track, x: Tensor, y: Tensor
) -> dict[str, float | None]:
    """Seconds per image of PGD-50 and of each part of the suite."""
    protocol, sizes = Protocol(), (track.num_classes, len(x), Protocol().square_queries)
    if not case.is_large:
        pgd = PGD(protocol.pgd_steps, protocol.pgd_restarts, protocol.pgd_step_rate)
        found = {"pgd50": seconds(lambda: pgd.run(model, x, y, TINY, 0))}
        found |= _timed(AutoAttackStandard(*sizes), model, x, y)
        return {name: value / len(x) for name, value in found.items()}
    # Seconds are a + b * steps for each target and restart; two runs give both.
    spent: list[dict[str, float]] = []
    for steps in (FEW, MORE):
        pgd, suite = PGD(steps, 1, protocol.pgd_step_rate), ShortSuite(steps, *sizes)
        one = {"pgd50": seconds(partial(pgd.run, model, x, y, TINY, 0))}
        spent.append(one | _timed(suite, model, x, y))
    few, more = spent
    whole = {"pgd50": (protocol.pgd_restarts, protocol.pgd_steps / MORE), **suite.whole}
    found = {}
    for name, (targets, scale) in whole.items():
        each_step = (more[name] - few[name]) / (MORE - FEW)
        found[name] = targets * (more[name] + each_step * MORE * (scale - 1.0)) / len(x)
    return found


def _timed(suite: AutoAttackStandard, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Processor seconds of each part of the suite on images that none of them breaks."""
    spent: dict[str, float] = {}
    propose = suite.propose

    def timed(*given: Any) -> Proposal:
        start = time.process_time()
        made = propose(*given)
        part = given[-1].part
        spent[part] = spent.get(part, 0.0) + time.process_time() - start
        return made

    suite.propose = timed  # type: ignore[method-assign]
    suite.run(model, x, y, TINY, 0)
    return {part: spent[part] for part in PARTS}


def _open(
    prover: Prover, model: nn.Module, x: Tensor, y: Tensor, track: Track
) -> list[tuple[Tensor, Tensor, Fraction]]:
    """Images, labels and radius: of each radius the first ones that are open after CROWN."""
    protocol, found = Protocol(), []
    attack = PGD(protocol.pgd_steps, protocol.pgd_restarts, protocol.pgd_step_rate)
    right = predict_one_by_one(model, x).argmax(dim=1) == y
    for text in track.epsilons:
        epsilon = Fraction(text)
        rows = torch.nonzero(right)[:64, 0]
        rows = rows[~attack.run(model, x[rows], y[rows], epsilon, 0).broken_B]
        is_open = torch.zeros(len(x), dtype=torch.bool)
        for few in rows.split(NUM_CLOSING):  # seconds an image on large networks
            is_open[few] = ~certify_chunk(prover, "CROWN", x[few], y[few], epsilon).certified_B
            if is_open.sum() >= NUM_CLOSING:
                break
        rows = torch.nonzero(is_open)[:NUM_CLOSING, 0]
        if len(rows):
            found.append((x[rows], y[rows], epsilon))
    return found


def line(case: Case, found: dict[str, float | None]) -> str:
    """One row of the table, as it stands in the package."""
    names = {"IBP": "ibp", "CROWN-IBP": "crown_ibp", "CROWN": "crown", "BaB": "bab"}
    cells = []
    for name, value in found.items():
        key = names.get(name, name.replace("-", "_").lower())
        text = str(value) if value is None or isinstance(value, bool) else f"{value:.3g}"
        if key == "weights":
            text = f"{value:.0f}"
        cells.append(f"{key}={text}")
    return f'("{case.architecture}", "{case.track}"): Seconds({", ".join(sorted(cells))}),'


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="such as cnn-small, or cnn-small:digits")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--large", action="store_true", help="measure all as large ones")
    options = parser.parse_args()
    torch.set_num_threads(1)
    np.random.seed(0)
    for case in CASES:
        if not options.names or {case.architecture, f"{case.architecture}:{case.track}"} & set(
            options.names
        ):
            root = options.data_root if case.track == "cifar10" else None
            case = replace(case, is_large=case.is_large or options.large)
            print(line(case, measure(case, root)), flush=True)


if __name__ == "__main__":
    main()
