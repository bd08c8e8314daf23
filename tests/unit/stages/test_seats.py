"""What is proven may stay away from an attack, and changes nothing for the others."""

from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from corobench.benchmark.attacks.autoattack import AutoAttackStandard
from corobench.benchmark.attacks.base import Attack, AttackResult
from corobench.benchmark.attacks.context import AttackContext, Seats
from corobench.benchmark.attacks.pgd import PGD

EPSILON = Fraction(1, 16)
ATTACKS = (
    pytest.param(PGD(5, 3), id="pgd"),
    pytest.param(AutoAttackStandard(10, square_queries=60), id="one-batch"),
    pytest.param(
        AutoAttackStandard(10, batch_size=13, square_queries=60),
        id="many-batches",
        marks=pytest.mark.slow,
    ),
    pytest.param(AutoAttackStandard(10, 26, square_queries=60, piece=9), id="pieces"),
)


@pytest.fixture(scope="module")
def curved() -> nn.Module:
    """A network with kinks, so that an attack's random start decides where it ends."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10)).eval()


@pytest.fixture(scope="module")
def chunk(curved: nn.Module, digits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    x = digits[0][:52]
    return x, curved(x).argmax(dim=1)


def _same(part: AttackResult, whole: AttackResult, taken: Tensor) -> bool:
    return (
        torch.equal(part.broken_B, whole.broken_B[taken])
        and torch.equal(part.adversarial_BCHW, whole.adversarial_BCHW[taken])
        and part.attack_names == [whole.attack_names[place] for place in taken.tolist()]
    )


@pytest.mark.parametrize("attack", ATTACKS)
def test_flags_do_not_depend_on_proven_neighbours(
    attack: Attack, curved: nn.Module, chunk: tuple[Tensor, Tensor]
) -> None:
    x, y = chunk
    whole = attack.run(curved, x, y, EPSILON, seed=1)
    standing = (~whole.broken_B).nonzero().flatten()
    assert 4 < len(standing) < len(x) - 4
    proven = torch.zeros(len(x), dtype=torch.bool)
    proven[standing[::2]] = True  # they would have stood to the end, as a proof promises
    taken = (~proven).nonzero().flatten()
    part = attack.run(curved, x[taken], y[taken], EPSILON, 1, AttackContext(Seats(len(x), taken)))
    assert _same(part, whole, taken)
    without = attack.run(curved, x[taken], y[taken], EPSILON, 1)
    assert not _same(without, whole, taken), "the random numbers play no part in this test"


@pytest.mark.parametrize("attack", ATTACKS)
def test_equal_images_have_seats_of_their_own(
    attack: Attack, curved: nn.Module, chunk: tuple[Tensor, Tensor]
) -> None:
    x, y = (part[:1].repeat(4, *[1] * (part.ndim - 1)) for part in chunk)
    taken = torch.tensor([1, 3])
    result = attack.run(curved, x[taken], y[taken], EPSILON, 1, AttackContext(Seats(4, taken)))
    assert len(result.broken_B) == 2


def test_pieces_of_batches_find_what_the_batches_find(
    curved: nn.Module, chunk: tuple[Tensor, Tensor]
) -> None:
    """Their random numbers are those of the whole batch, whoever else is attacked with them."""
    x, y = chunk
    whole, cut = (
        AutoAttackStandard(10, 26, square_queries=60, piece=piece).run(
            curved, x, y, EPSILON, seed=1
        )
        for piece in (None, 9)
    )
    assert torch.equal(whole.broken_B, cut.broken_B)
    assert whole.attack_names == cut.attack_names
    assert {"apgd-ce", "apgd-t", "square"} & set(whole.attack_names)
    assert torch.allclose(whole.adversarial_BCHW, cut.adversarial_BCHW, atol=1e-6)
