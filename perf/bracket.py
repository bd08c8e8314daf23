"""How far each certifier closes the bracket between what is proven and what no attack breaks.

    python perf/bracket.py ENTRY [--images DIR | --held-out RATE] [--epsilon 2/255] [--n 200]

ENTRY is a submission folder, such as the one that `corobench train cifar10/adv-dense-2 --out runs`
makes: a small network of the kind that verification benchmarks use. DIR holds
images_nhwc_float01.npy and labels.npy; without it the first n test images of the entry's track are
taken. With --held-out they are those that a recipe of this validation_rate and seed 0 holds out of
training: settings are chosen on them (docs/experiments.md). IBP, CROWN-IBP and CROWN are asked
about every correct image, the attack runs on every correct image, alpha-CROWN and branch and bound
are asked about what is left undecided; an image that BaB refutes counts as broken once it is re-
measured. A certified image that the attack breaks ends the script with exit code 3. Seconds are of
the processor, so that other work on the machine does not count; GiB is the most memory of the
process so far. The last line is the share of the gap between CROWN and the attack
that alpha-CROWN and BaB close, from both sides.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from common import verdict
from torch import Tensor

from corobench.baselines.training_data import load
from corobench.benchmark.attacks.autoattack import AutoAttackStandard
from corobench.benchmark.attacks.base import Attack
from corobench.benchmark.attacks.pgd import PGD
from corobench.benchmark.certify import BranchBudget, Prover
from corobench.benchmark.data import load_test, subset
from corobench.benchmark.referee import threat
from corobench.benchmark.submission import load_submission

DECIDED = ("certified", "refuted")
CHEAP = ("IBP", "CROWN-IBP", "CROWN")


class Bracket:
    """One model on n images: what is proven so far, and the table.

    Args:
        prover: of the model.
        model: the model itself.
        x: float32 (n, C, H, W).
        y: int64 (n,).
        epsilon: radius.
    """

    def __init__(
        self, prover: Prover, model: torch.nn.Module, x: Tensor, y: Tensor, epsilon: Fraction
    ) -> None:
        self.prover, self.model, self.x, self.y, self.epsilon = prover, model, x, y, epsilon
        with torch.no_grad():
            logits = torch.cat([model(image) for image in x.split(1)])
        self.correct = logits.argmax(dim=1) == y
        self.low, self.high = threat.box(x, epsilon)
        self.proven = torch.zeros(len(x), dtype=torch.bool)
        self.broken = torch.zeros(len(x), dtype=torch.bool)
        self.lines: list[tuple[str, int, int, int, float, float, str]] = []
        self.searches: list[tuple[int, float, str]] = []

    @property
    def robust(self) -> int:
        """Right and not broken so far: the upper end."""
        return int((self.correct & ~self.broken).sum())

    def ask(self, method: str, rows: Tensor) -> None:
        """One relaxation about some images."""
        start = time.process_time()
        if method not in self.prover.refusals and len(rows):
            found = self.prover.prove(method, self.low[rows], self.high[rows], self.y[rows])
            new = found.certified_B
            self.proven[rows] |= new
            note = f"{int(new.sum())} by itself"
        else:
            note = "not asked"
        self._line(method, rows, start, note)

    def search(self, certifier: str, rows: Tensor, budget: BranchBudget) -> None:
        """alpha-CROWN or branch and bound about some images."""
        start = time.process_time()
        if certifier in self.prover.refusals:
            self._line(certifier, rows, start, "not asked")
            return
        found, seconds = [], []
        for row in rows[:, None]:
            since = time.process_time()
            box = self.low[row], self.high[row]
            found += self.prover.search(certifier, *box, self.y[row], budget)
            seconds.append(time.process_time() - since)
        self.proven[rows] |= torch.tensor([one.is_certified for one in found], dtype=torch.bool)
        for row, one in zip(rows.tolist(), found, strict=True):
            if one.proposal is not None:
                self.broken[row] = self._is_broken(row, one.proposal[None])
        statuses = sorted({one.status for one in found})
        counts = [f"{sum(one.status == name for one in found)} {name}" for name in statuses]
        num = sum(one.num_subdomains for one in found)
        slowest = max(seconds, default=0.0)
        self.searches += [
            (one.num_subdomains, spent, one.status)
            for one, spent in zip(found, seconds, strict=True)
        ]
        counts.append(f"{num} subdomains, slowest image {slowest:.1f} s")
        self._line(certifier, rows, start, ", ".join(counts))

    def _is_broken(self, row: int, image: Tensor) -> bool:
        """Clip a proposal to the ball (the box is rounded outward) and ask the model itself."""
        clipped = threat.project(image, self.x[row : row + 1], self.epsilon)
        with torch.no_grad():
            return int(self.model(clipped).argmax()) != int(self.y[row])

    def attack(self, attack: Attack) -> None:
        """Attack every correct image."""
        rows = self.correct.nonzero().flatten()
        start = time.process_time()
        for part in rows.split(100):
            found = attack.run(self.model, self.x[part], self.y[part], self.epsilon, 0)
            self.broken[part] = found.broken_B
        self._line(attack.name, rows, start, f"{self.robust} not broken")

    def undecided(self) -> Tensor:
        """Rows neither proven nor broken nor misclassified."""
        return (self.correct & ~self.proven & ~self.broken).nonzero().flatten()

    def _line(self, name: str, rows: Tensor, start: float, note: str) -> None:
        seconds = (time.process_time() - start) / max(len(rows), 1)
        proven = int(self.proven.sum())
        self.lines.append((name, proven, self.robust, len(rows), seconds, peak_gib(), note))

    def print_budgets(self) -> None:
        """What smaller budgets of subdomains would have decided, and the seconds of that."""
        decided = [(num, s) for num, s, status in self.searches if status in DECIDED]
        for budget in (64, 125, 250, 500, 1000, 2000, 4000, 8000):
            within = [s for num, s in decided if num <= budget]
            print(f"decided with at most {budget} subdomains: {len(within)}, {sum(within):.0f} s")
        rest = [s for _, s, status in self.searches if status not in DECIDED]
        print(f"not decided: {len(rest)}, {sum(rest):.0f} s")

    def print(self) -> None:
        """The table; until the attack has run, the upper end is the clean count."""
        n = len(self.x)
        print(f"n {n}, epsilon {self.epsilon}, clean {int(self.correct.sum())}")
        heads = f"{'stage':<12}{'proven':>8}{'robust':>8}{'width':>8}{'asked':>7}{'s/image':>9}"
        print(f"{heads}{'GiB':>6}  note")
        for name, proven, robust, asked, seconds, memory, note in self.lines:
            width = f"{100 * (robust - proven) / n:.1f} %"
            print(
                f"{name:<12}{proven:>8}{robust:>8}{width:>8}{asked:>7}{seconds:>9.3f}{memory:>6.1f}"
                f"  {note}"
            )


def peak_gib() -> float:
    """Most memory of this process so far, libraries and weights included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def load_images(options: argparse.Namespace, track: str) -> tuple[Tensor, Tensor]:
    """Images (n, C, H, W) and labels."""
    if options.held_out is not None:
        held = load(track, 0, options.held_out, options.n, torch.device("cpu"), options.data_root)
        return held.held_x_NCHW, held.held_labels_N
    if options.images is None:
        images, labels, _ = subset(load_test(track, options.data_root), options.n)
        return torch.from_numpy(images), torch.from_numpy(labels)
    images = np.load(options.images / "images_nhwc_float01.npy")[: options.n]
    labels = np.load(options.images / "labels.npy")[: options.n]
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("entry", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--held-out", type=float, metavar="RATE")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--epsilon", type=Fraction, default=Fraction(2, 255))
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--attack", choices=("autoattack", "pgd"), default="autoattack")
    parser.add_argument("--max-subdomains", type=int, default=BranchBudget().max_subdomains)
    parser.add_argument("--at-least", type=float, default=0.85)
    options = parser.parse_args()
    submission = load_submission(options.entry)
    model, track = submission.model.eval().requires_grad_(False), submission.track
    x, y = load_images(options, track.name)
    prover = Prover(model, track.shape, track.num_classes)
    bracket = Bracket(prover, model, x, y, options.epsilon)
    for method in CHEAP:
        bracket.ask(method, bracket.correct.nonzero().flatten())
    attack = PGD() if options.attack == "pgd" else AutoAttackStandard(track.num_classes)
    bracket.attack(attack)
    before = len(bracket.undecided())
    budget = BranchBudget(max_subdomains=options.max_subdomains)
    for certifier in ("alpha-CROWN", "BaB"):
        bracket.search(certifier, bracket.undecided(), budget)
    bracket.print()
    bracket.print_budgets()
    if bool((bracket.proven & bracket.broken).any()):
        print("contradiction: a certified image was broken")
        sys.exit(3)
    after = len(bracket.undecided())
    verdict(1 - after / before if before else 1.0, at_least=options.at_least)


if __name__ == "__main__":
    main()
