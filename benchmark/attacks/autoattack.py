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
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from corobench.benchmark.attacks.base import Attack, AttackResult, Proposal
from corobench.benchmark.attacks.context import AttackContext, AttackSearch
from corobench.benchmark.attacks.projection import without_sorting
from corobench.benchmark.attacks.seating import image_key, seat
from corobench.benchmark.attacks.sparing import spare
from corobench.benchmark.attacks.square import quicken
from corobench.benchmark.errors import DependencyError

#: Values of an image from which on, and share of the submitted network's parameters up to which,
#: sorting the values is what FAB spends most of its time on.
MIN_VALUES, MAX_SHARE = 500, 0.1

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
    """

    name = "autoattack"

    def __init__(self, num_classes: int, batch_size: int = 100, square_queries: int = 5000) -> None:
        self.num_classes = num_classes
        self.batch_size = batch_size
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
        batch_size = self.batch_size
        if len(x_BCHW) < search.seats.num_seats:
            seat(suite, x_BCHW, search.seats, batch_size)
            batch_size = len(x_BCHW)
        else:
            quicken(suite.square)
        for apgd in (suite.apgd, suite.apgd_targeted):
            apgd.attack_single_run = spare(apgd, apgd.attack_single_run)
        made_by: dict[bytes, str] = {}
        for part, attack in (
            ("apgd-ce", suite.apgd),
            ("apgd-t", suite.apgd_targeted),
            ("fab-t", suite.fab),
            ("square", suite.square),
        ):
            perturb = attack.perturb
            if search.parts is not None:
                perturb = partial(search.parts.run, part, perturb)
            attack.perturb = _recording(perturb, part, made_by, search.note)
        # The suite draws from torch's global generator; leave the caller's stream as it was.
        devices = [x_BCHW.device] if x_BCHW.device.type == "cuda" else []
        is_rounded = search.share <= MAX_SHARE or (
            search.is_laid_out and x_BCHW.device.type == "cpu"
        )
        is_sort_dear = is_rounded and x_BCHW[0].numel() >= MIN_VALUES
        with (
            torch.random.fork_rng(devices=devices),
            _captured_warnings() as flags,
            without_sorting(is_sort_dear),
        ):
            adversarial, _ = suite.run_standard_evaluation(x_BCHW, y_B, batch_size=batch_size)
        changed = (adversarial != x_BCHW).flatten(1).any(dim=1).tolist()
        names = [
            made_by.get(image_key(image), self.name) if moved else ""
            for image, moved in zip(adversarial, changed, strict=True)
        ]
        return Proposal(adversarial, names, flags)


class PlainAutoAttack(AutoAttackStandard):
    """The suite as its package runs it: nothing inside is changed, nothing is searched elsewhere.

    It attacks the submitted network itself, on the images that have no proof, with the package's
    own random numbers, steps and projections. It is slower, and which part broke an image is not
    known. What it finds is measured again like any claim.
    """

    def run(
        self,
        model: nn.Module,
        x_BCHW: Tensor,
        y_B: Tensor,
        epsilon: Fraction,
        seed: int,
        context: AttackContext | None = None,
    ) -> AttackResult:
        context = replace(context or AttackContext(), network=None, searches_in_tf32=False)
        return super().run(model, x_BCHW, y_B, epsilon, seed, context)

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
            adversarial, _ = suite.run_standard_evaluation(x_BCHW, y_B, batch_size=self.batch_size)
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


def _recording(
    perturb: Callable[..., Tensor],
    part: str,
    made_by: dict[bytes, str],
    note: Callable[[str], None],
) -> Callable[..., Tensor]:
    """`perturb`, noting which part of the suite made each image it returns."""
    num_done = 0

    def wrapped(*args: Any, **kwargs: Any) -> Tensor:
        nonlocal num_done
        note(f"{part} after {num_done} images")
        images = perturb(*args, **kwargs)
        num_done += len(images)
        for image in images:
            made_by.setdefault(image_key(image), part)
        return images

    return wrapped


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
