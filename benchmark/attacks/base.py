"""What every attack shares: the base class that has its claims measured again.

An attack proposes, :meth:`Attack.run` disposes: it clips the proposal into the ball, checks the
distance, runs the submitted model on each image alone and only then calls an image broken.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, nn

from corobench.benchmark.attacks.context import AttackContext, AttackSearch, Seats
from corobench.benchmark.attacks.guard import Guard
from corobench.benchmark.attacks.layout import is_large, laid_out, num_values
from corobench.benchmark.attacks.standing import Group, Standing, in_batches
from corobench.benchmark.attacks.tf32 import tf32
from corobench.benchmark.referee.judge import confirm


@dataclass
class Proposal:
    """What an attack claims; none of it is believed.

    Attributes:
        adversarial_BCHW: float32 (B, C, H, W), one image for each input image.
        attack_names: which attack made each image; empty where none claims success.
        flags: named warnings the attack raised of itself.
        flagged: flag -> bool (B,), the images that raise it, for flags that know them.
    """

    adversarial_BCHW: Tensor
    attack_names: list[str]
    flags: set[str] = field(default_factory=set)
    flagged: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class AttackResult:
    """What the referee found.

    Attributes:
        broken_B: bool (B,), the model errs on a stored image inside the ball.
        adversarial_BCHW: float32 (B, C, H, W) after projection; only rows with `broken_B` count.
        attack_names: which attack broke each image, empty where none did.
        flags: named health flags.
        seconds: wall-clock of attack and re-measurement.
        flagged: flag -> bool (B,) on the CPU, the images that raise it, for flags that know them.
    """

    broken_B: Tensor
    adversarial_BCHW: Tensor
    attack_names: list[str]
    flags: set[str]
    seconds: float
    flagged: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def none(cls, x_BCHW: Tensor) -> AttackResult:
        """Nothing is broken yet.

        Args:
            x_BCHW: float32 (B, C, H, W), the images.
        """
        broken_B = torch.zeros(len(x_BCHW), dtype=torch.bool, device=x_BCHW.device)
        return cls(broken_B, x_BCHW.detach().clone(), [""] * len(x_BCHW), set(), 0.0)

    def replace(self, rows: Tensor, other: AttackResult) -> None:
        """Put what was found about some images in the place of what was found before.

        Args:
            rows: int64, places of the other result's images in this one.
            other: of these images.
        """
        self.broken_B[rows] = other.broken_B
        self.adversarial_BCHW[rows] = other.adversarial_BCHW
        for row, name in zip(rows.tolist(), other.attack_names, strict=True):
            self.attack_names[row] = name
        self.flags |= other.flags
        for flag, found_B in other.flagged.items():
            mine_B = self.flagged.setdefault(flag, torch.zeros(len(self.broken_B)).bool())
            mine_B[rows.cpu()] |= found_B


class Attack(ABC):
    """An attack on correctly classified images under an l-infinity threat.

    It has stages, one after another; each attacks groups of images that still stand. A group is
    attacked by `run_group`, anywhere and in any order; `run` does all of them here.

    Attributes:
        name: what results call it.
        batch_size: images of a group; None for all that are attacked in a chunk.
    """

    name: str
    batch_size: int | None = None
    _laid: tuple[nn.Module, nn.Module] | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        """One after another; what a stage broke is not attacked by the next."""
        return (self.name,)

    def groups(self, stage: str, standing: Standing) -> list[Group]:
        """What a stage attacks, in groups that do not depend on each other."""
        return [
            Group(stage, places, standing.places)
            for places in in_batches(standing.attacked, self.batch_size)
        ]

    def flags_of(self, standing: Standing) -> set[str]:
        """Flags of a whole chunk, after the last stage."""
        return set()

    @abstractmethod
    def propose(
        self,
        model: nn.Module,
        x_BCHW: Tensor,
        y_B: Tensor,
        epsilon: Fraction,
        seed: int,
        search: AttackSearch,
    ) -> Proposal:
        """Look for adversarial images; deterministic given `seed` and the seats of `search`."""

    def run(
        self,
        model: nn.Module,
        x_BCHW: Tensor,
        y_B: Tensor,
        epsilon: Fraction,
        seed: int,
        context: AttackContext | None = None,
    ) -> AttackResult:
        """Attack the images of a chunk by all stages, then re-measure every claim.

        Args:
            model: the submitted model in eval mode.
            x_BCHW: float32 (B, C, H, W) in [0, 1].
            y_B: int64 (B,), true classes.
            epsilon: exact radius.
            seed: of the attack's random numbers.
            context: what the run tells the attack; by default nothing.
        """
        start = time.perf_counter()
        context = context or AttackContext()
        seats = context.seats or Seats.all(len(x_BCHW))
        own = replace(context, seats=seats)
        standing = Standing(seats.num_seats, seats.taken_B.numpy())
        result = AttackResult.none(x_BCHW)
        for stage in self.stages:
            for group in self.groups(stage, standing):
                rows = torch.from_numpy(np.searchsorted(standing.taken, group.places))
                rows = rows.to(x_BCHW.device)
                x, y = x_BCHW[rows], y_B[rows]
                found = self.run_group(group, model, x, y, epsilon, seed, own)
                result.replace(rows, found)
                standing.record(group, found.broken_B.cpu().numpy())
        result.flags |= self.flags_of(standing)
        result.seconds = time.perf_counter() - start
        return result

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
        """Attack one group, then re-measure every claim on the submitted model.

        Args:
            group: of `groups`.
            model: the submitted model in eval mode.
            x_BCHW: float32 (B, C, H, W) in [0, 1], the images of the group.
            y_B: int64 (B,), true classes.
            epsilon: exact radius.
            seed: of the attack's random numbers, the same for all groups of a chunk.
            context: what the run tells the attack; the seats of the whole chunk.
        """
        start = time.perf_counter()
        plain, in_tf32 = context.network or model, context.searches_in_tf32
        searched = self._laid_out(plain, x_BCHW, in_tf32)
        num_seats = len(group.standing) if context.seats is None else context.seats.num_seats
        search = AttackSearch(
            Seats(num_seats, torch.from_numpy(group.places), torch.from_numpy(group.standing)),
            group.part,
            1.0 if plain is model else num_values(plain) / max(1, num_values(model)),
            searched is not plain,
        )
        with tf32(in_tf32):
            found = self._search(searched, x_BCHW, y_B, epsilon, seed, search)
        result = self._judge(model, x_BCHW, y_B, found, epsilon)
        again = torch.nonzero(_claims(found) & ~result.broken_B.cpu())[:, 0]
        if len(again) and (in_tf32 or search.is_laid_out):
            once_more = replace(search, seats=search.seats.part(again), is_laid_out=False)
            rows = again.to(x_BCHW.device)
            x, y = x_BCHW[rows], y_B[rows]
            found = self._search(plain, x, y, epsilon, seed, once_more)
            result.replace(rows, self._judge(model, x, y, found, epsilon))
            again = again[_claims(found) & ~result.broken_B[rows].cpu()]
        if len(again):
            result.flags.add("claim-not-confirmed")
        result.seconds = time.perf_counter() - start
        return result

    def _search(
        self,
        network: nn.Module,
        x_BCHW: Tensor,
        y_B: Tensor,
        epsilon: Fraction,
        seed: int,
        search: AttackSearch,
    ) -> Proposal:
        """What the attack proposes on a watched network, and the points that it has overlooked."""
        guard = Guard(network, x_BCHW, y_B, epsilon)
        found = self.propose(guard, x_BCHW, y_B, epsilon, seed, search)
        found.flagged = guard.flagged()
        found.flags |= set(found.flagged)
        overlooked = [place for place in guard.met if not found.attack_names[place]]
        if overlooked:
            found.adversarial_BCHW = found.adversarial_BCHW.detach().clone()
        for place in overlooked:
            found.adversarial_BCHW[place] = guard.met[place]
            found.attack_names[place] = self.name
        return found

    def _laid_out(self, plain: nn.Module, x_BCHW: Tensor, in_tf32: bool) -> nn.Module:
        """The network in the layout to search in, made once: chunk after chunk has the same."""
        on_cpu = x_BCHW.device.type == "cpu"
        if not len(x_BCHW) or not (in_tf32 or (on_cpu and is_large(plain))):
            return plain
        if self._laid is None or self._laid[0] is not plain:
            self._laid = plain, laid_out(plain, x_BCHW)
        return self._laid[1]

    def _judge(
        self, model: nn.Module, x_BCHW: Tensor, y_B: Tensor, proposal: Proposal, epsilon: Fraction
    ) -> AttackResult:
        proposed = proposal.adversarial_BCHW.detach()
        broken, adversarial = confirm(model, x_BCHW, y_B, proposed, epsilon)
        names = [
            (name or self.name) if hit else ""
            for name, hit in zip(proposal.attack_names, broken.tolist(), strict=True)
        ]
        return AttackResult(
            broken, adversarial, names, set(proposal.flags), 0.0, dict(proposal.flagged)
        )


def _claims(proposal: Proposal) -> Tensor:
    """Bool (B,) on the CPU: the attack says that it broke the image."""
    return torch.tensor([bool(name) for name in proposal.attack_names], dtype=torch.bool)
