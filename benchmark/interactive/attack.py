"""``corobench.attack``: which images an attack breaks, on images of the caller's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from corobench.benchmark.errors import ConfigError, nearest
from corobench.benchmark.interactive.arguments import epsilon_of, whole_number
from corobench.benchmark.tracks import Protocol, derive_seed

if TYPE_CHECKING:
    import torch
    from torch import nn

    from corobench.benchmark.attacks.base import Attack
    from corobench.benchmark.interactive.arguments import Images, Labels

ATTACKS = ("pgd50", "autoattack")
#: Images that share random numbers, and images per batch of AutoAttack.
CHUNK, BATCH = 500, 100


@dataclass(eq=False)
class Attacked:
    """What an attack found about B images; all tensors are on the CPU.

    Attributes:
        epsilon: the radius.
        right: bool (B,), right without an attack.
        broken: bool (B,), right, and the stored adversarial image fools the network. Each was
            measured again: inside the ball at zero tolerance, in [0, 1], the network asked alone.
        unbroken: bool (B,), right and not broken.
        broken_by: part of the attack that broke each image, or empty.
        adversarial: float32 (B, C, H, W) in [0, 1]; only rows with `broken` count.
        flags: named doubts about the attack (docs/health.md).
    """

    epsilon: Fraction
    right: torch.Tensor
    broken: torch.Tensor
    broken_by: list[str]
    adversarial: torch.Tensor
    flags: set[str]

    @property
    def unbroken(self) -> torch.Tensor:
        return self.right & ~self.broken

    def __repr__(self) -> str:
        flags = f"; flags: {', '.join(sorted(self.flags))}" if self.flags else ""
        return (
            f"{int(self.unbroken.sum())} of {len(self.right)} images unbroken at {self.epsilon}, "
            f"{int(self.right.sum())} right without an attack{flags}"
        )


def attack(
    model: nn.Module,
    x: Images,
    y: Labels,
    epsilon: str | Fraction,
    *,
    attack: str = "autoattack",
    seed: int = 0,
) -> Attacked:
    """Attack the images that a network gets right, and measure every success again.

    Args:
        model: a ``torch.nn.Module`` in eval mode that keeps the model contract.
        x: float32 (B, C, H, W) in [0, 1], a tensor or an array.
        y: integers (B,), the labels.
        epsilon: exact l-infinity radius in (0, 1], such as "8/255" or ``Fraction(8, 255)``.
        attack: "autoattack" for the full standard suite, or "pgd50", as in the protocol.
        seed: of the attack's random numbers, from 0 on.

    Raises:
        ContractError: the model breaks a clause, with its name.
        ConfigError: an argument is not what it must be.

    >>> import torch, corobench
    >>> layer = torch.nn.Linear(4, 2, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]))
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), layer).eval()
    >>> x = torch.tensor([[0.9, 0.3, 0, 0], [0.6, 0.4, 0, 0]]).view(2, 1, 2, 2)
    >>> found = corobench.attack(model, x, [0, 0], "1/4", attack="pgd50")  # margins 0.6 and 0.2
    >>> found.broken.tolist(), found.broken_by
    ([False, True], ['', 'pgd50'])
    """
    import torch

    from corobench.benchmark.interactive.asking import asked

    radius = epsilon_of(epsilon)
    whole_number(seed, "seed", 0)
    if attack not in ATTACKS:
        raise ConfigError(f"attack: unknown {attack!r}: {nearest(str(attack), ATTACKS)}")
    given = asked(model, x, y)
    make = _maker(attack, given.num_classes)
    n = len(given.x_BCHW)
    adversarial = given.x_BCHW.cpu().clone()
    broken, flags, names = torch.zeros(n, dtype=torch.bool), set[str](), [""] * n
    right = torch.nonzero(given.right_B)[:, 0]
    for number, rows in enumerate(right.split(CHUNK)):
        chunk_seed = derive_seed(seed, "python", f"{attack}:{radius}", number)
        x_rows, y_rows = given.x_BCHW[rows], given.y_B[rows]
        found = make().run(given.model, x_rows, y_rows, radius, chunk_seed)
        places = rows.cpu()
        broken[places] = found.broken_B.cpu()
        adversarial[places] = found.adversarial_BCHW.cpu()
        for place, name in zip(places.tolist(), found.attack_names, strict=True):
            names[place] = name
        flags |= set(found.flags)
    return Attacked(radius, given.right_B.cpu(), broken, names, adversarial, flags)


def _maker(name: str, num_classes: int) -> Callable[[], Attack]:
    from corobench.benchmark.attacks.autoattack import AutoAttackStandard
    from corobench.benchmark.attacks.pgd import PGD

    protocol = Protocol()
    if name == "pgd50":
        return lambda: PGD(protocol.pgd_steps, protocol.pgd_restarts, protocol.pgd_step_rate)
    return lambda: AutoAttackStandard(
        num_classes, batch_size=BATCH, square_queries=protocol.square_queries
    )
