"""The AutoAttack suite ``standard`` (Croce & Hein 2020) through its authors' package.

The suite runs seeded, so that its flags equal those of calling the package directly on the same
images (`benchmark.attacks.seating` keeps that true where some of them are proven and stay away;
`benchmark.attacks.square` takes the same steps for less, `benchmark.attacks.sparing` fewer where an
image has broken). On a far smaller equivalent and on a CPU on a copy in another layout, whose
logits are rounded differently anyway, FAB projects without sorting
(`benchmark.attacks.projection`). Its targeted parts are sized to the number of classes, its own
warnings become named flags, and the part that broke each image is recorded.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from corobench.benchmark.attacks.base import Attack, AttackResult, Proposal
from corobench.benchmark.attacks.context import AttackContext, AttackSearch
from corobench.benchmark.attacks.projection import without_sorting
from corobench.benchmark.attacks.seating import group, seat
from corobench.benchmark.attacks.sparing import spare
from corobench.benchmark.attacks.standing import Group, Standing, in_pieces
from corobench.benchmark.errors import DependencyError

#: Values of an image from which on, and share of the submitted network's parameters up to which,
#: sorting the values is what FAB spends most of its time on.
MIN_VALUES, MAX_SHARE = 500, 0.1

#: The parts of the suite, in its order, and the look at the network before the first.
PARTS = ("apgd-ce", "apgd-t", "fab-t", "square")
CHECKS = "checks"
#: The part that draws again after each target, for the images of the batch that still stand.
DRAWS_AGAIN = "apgd-t"
#: Share of the attacked images from which on what Square alone breaks is a flag, as in the suite.
SQUARE_HELPS_RATE = 0.002

#: A part of the suite's warning -> the name of our flag (docs/health.md).
WARNING_FLAGS = {
    "randomized defense": "randomized",
    "probability distribution": "probabilities",
    "dynamic defense": "dynamic",
    "not possible to use": "few-classes",
    "more target classes": "few-classes",
    "too many target classes": "few-classes",
    "zero gradient": "zero-gradient",
    "Square Attack has decreased": "square-helps",
}


class AutoAttackStandard(Attack):
    """APGD-CE, targeted APGD-DLR, targeted FAB and Square, in that order, on what survives.

    Args:
        num_classes: of the model; targeted attacks use ``min(9, num_classes - 1)`` targets.
        batch_size: images per call inside the suite.
        square_queries: query budget of Square.
        piece: images at once in the parts of the suite whose random numbers depend on no
            neighbour's fate, which may be cut smaller than its batches; None to keep them whole.
    """

    name = "autoattack"

    def __init__(
        self,
        num_classes: int,
        batch_size: int = 100,
        square_queries: int = 5000,
        piece: int | None = None,
    ) -> None:
        self.num_classes = num_classes
        self.suite_batch, self.piece = batch_size, piece
        self.square_queries = square_queries

    def build(self, model: nn.Module, epsilon: Fraction, seed: int, device: torch.device) -> Any:
        """The package's own object with its ``standard`` settings."""
        try:
            import pyautoattack
        except ImportError as error:
            raise DependencyError(
                "AutoAttack is not installed: pip install pyautoattack"
            ) from error
        suite = pyautoattack.AutoAttack(
            model, norm="Linf", eps=float(epsilon), seed=seed, version="standard", device=device
        )
        targets = min(9, self.num_classes - 1)
        suite.apgd_targeted.n_target_classes = targets
        suite.fab.n_target_classes = targets
        suite.square.n_queries = self.square_queries
        if self.num_classes <= 3:  # the targeted DLR loss needs four classes
            suite.attacks_to_run = ["apgd-ce", "fab-t", "square"]
        return suite

    @property
    def stages(self) -> tuple[str, ...]:
        """The parts of the suite, in its order."""
        return tuple(part for part in PARTS if self.num_classes > 3 or part != "apgd-t")

    def groups(self, stage: str, standing: Standing) -> list[Group]:
        """Batches of the suite, or pieces of them; before the first a look at the network."""
        attacked, places = standing.attacked, standing.places
        draws_again = stage == DRAWS_AGAIN
        together, size = (self.piece, None) if draws_again else (None, self.piece)
        parts = [
            Group(stage, part, places)
            for batch in group(attacked, places, self.suite_batch, together)
            for part in in_pieces(batch, size)
        ]
        if stage == PARTS[0] and parts:
            is_whole = len(attacked) == standing.num_seats
            looked_at = attacked[: self.suite_batch] if is_whole else attacked
            parts.insert(0, Group(CHECKS, looked_at, places))
        return parts

    def flags_of(self, standing: Standing) -> set[str]:
        """Square alone breaks what gradients do not: more than a few are a flag."""
        share = standing.num_broken["square"] / max(1, len(standing.taken))
        return {"square-helps"} if share > SQUARE_HELPS_RATE else set()

    def propose(
        self,
        model: nn.Module,
        x_BCHW: Tensor,
        y_B: Tensor,
        epsilon: Fraction,
        seed: int,
        search: AttackSearch,
    ) -> Proposal:
        suite = self.build(model, epsilon, seed, x_BCHW.device)
        # The suite draws from torch's global generator; leave the caller's stream as it was.
        devices = [x_BCHW.device] if x_BCHW.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), _captured_warnings() as flags:
            if search.part == CHECKS:
                suite.attacks_to_run = []
                suite.run_standard_evaluation(x_BCHW, y_B, batch_size=len(x_BCHW))
                return Proposal(x_BCHW, [""] * len(x_BCHW), flags)
            made = self._run_part(suite, search, x_BCHW, y_B)
            with torch.no_grad():
                errs = (model(made).argmax(dim=1) != y_B).tolist()
        return Proposal(made, [search.part if err else "" for err in errs], flags)

    def _run_part(self, suite: Any, search: AttackSearch, x_BCHW: Tensor, y_B: Tensor) -> Tensor:
        """What one part makes of the images of a group, seeded and seated."""
        seat(suite, x_BCHW, search.seats, self.suite_batch)
        for apgd in (suite.apgd, suite.apgd_targeted):
            apgd.attack_single_run = spare(apgd, apgd.attack_single_run)
        suite.apgd.loss, suite.fab.targeted, suite.fab.n_restarts = "ce", True, 1
        part = {
            "apgd-ce": suite.apgd,
            "apgd-t": suite.apgd_targeted,
            "fab-t": suite.fab,
            "square": suite.square,
        }[search.part]
        part.seed = suite.get_seed()
        on_cpu = x_BCHW.device.type == "cpu"
        is_rounded = search.share <= MAX_SHARE or (search.is_laid_out and on_cpu)
        is_sort_dear = is_rounded and x_BCHW[0].numel() >= MIN_VALUES
        with torch.no_grad(), without_sorting(is_sort_dear):
            made: Tensor = part.perturb(x_BCHW, y_B)
        return made.detach()


class PlainAutoAttack(AutoAttackStandard):
    """The suite as its package runs it: nothing inside is changed, nothing is searched elsewhere.

    It attacks the submitted network itself, on the images that have no proof, with the package's
    own random numbers, steps and projections. It is slower, and which part broke an image is not
    known. What it finds is measured again like any claim.
    """

    @property
    def stages(self) -> tuple[str, ...]:
        """The package orders its own work."""
        return (self.name,)

    def groups(self, stage: str, standing: Standing) -> list[Group]:
        """All that is attacked at once; the package makes its own batches."""
        attacked = standing.attacked
        return [Group(stage, attacked, standing.places)] if len(attacked) else []

    def flags_of(self, standing: Standing) -> set[str]:
        """The package raises its own."""
        return set()

    def run_group(
        self,
        group: Group,
        model: nn.Module,
        x_BCHW: Tensor,
        y_B: Tensor,
        epsilon: Fraction,
        seed: int,
        context: AttackContext,
    ) -> AttackResult:
        context = replace(context, network=None, searches_in_tf32=False)
        return super().run_group(group, model, x_BCHW, y_B, epsilon, seed, context)

    def propose(
        self,
        model: nn.Module,
        x_BCHW: Tensor,
        y_B: Tensor,
        epsilon: Fraction,
        seed: int,
        search: AttackSearch,
    ) -> Proposal:
        suite = self.build(model, epsilon, seed, x_BCHW.device)
        devices = [x_BCHW.device] if x_BCHW.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), _captured_warnings() as flags:
            adversarial, _ = suite.run_standard_evaluation(x_BCHW, y_B, batch_size=self.suite_batch)
        changed = (adversarial != x_BCHW).flatten(1).any(dim=1).tolist()
        return Proposal(adversarial, [self.name if moved else "" for moved in changed], flags)

    def _search(
        self,
        network: nn.Module,
        x_BCHW: Tensor,
        y_B: Tensor,
        epsilon: Fraction,
        seed: int,
        search: AttackSearch,
    ) -> Proposal:
        return self.propose(network, x_BCHW, y_B, epsilon, seed, search)

    def _laid_out(self, plain: nn.Module, x_BCHW: Tensor, in_tf32: bool) -> nn.Module:
        return plain


class _FlagHandler(logging.Handler):
    """Turns the suite's warnings into named flags."""

    def __init__(self, flags: set[str]) -> None:
        super().__init__(logging.WARNING)
        self.flags = flags

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        known = {flag for text, flag in WARNING_FLAGS.items() if text in message}
        self.flags.update(known or {"autoattack-warning"})


@contextlib.contextmanager
def _captured_warnings() -> Iterator[set[str]]:
    """The suite's warnings as flags; its logger and the interpreter's trace left as they were."""
    flags: set[str] = set()
    logger = logging.getLogger("auto-attack")
    handler = _FlagHandler(flags)
    propagate, level, trace = logger.propagate, logger.level, sys.gettrace()
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    try:
        yield flags
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        logger.setLevel(level)
        sys.settrace(trace)
