"""A long attack that was ended goes on from its finished batches, to the same images."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from corobench.benchmark.attacks.autoattack import AutoAttackStandard
from corobench.benchmark.attacks.base import AttackResult
from corobench.benchmark.attacks.context import AttackContext, Seats
from corobench.benchmark.attacks.parts import Parts
from corobench.benchmark.files.chunks import ChunkStore

EPSILON = Fraction(1, 16)
CHUNK = "attack-autoattack-1_16-0000"


class _Ended(Exception):  # noqa: N818
    """As if the process had been killed."""


def _attack(
    model: nn.Module, images: tuple[Tensor, Tensor], folder: Path | None, seats: Seats | None
) -> tuple[AttackResult, Parts | None]:
    attack = AutoAttackStandard(10, batch_size=8, square_queries=30)
    parts = None if folder is None else Parts(ChunkStore(folder, {"entry": "x"}), CHUNK)
    return attack.run(model, *images, EPSILON, 3, AttackContext(seats, parts=parts)), parts


@pytest.mark.parametrize("has_proofs", [False, True], ids=["all-attacked", "some-proven"])
def test_an_ended_attack_goes_on_to_the_same_images(
    has_proofs: bool,
    linear: nn.Module,
    digits: tuple[Tensor, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = digits[0][:30]
    y = linear(x).argmax(dim=1)
    seats = Seats(2 * len(x), torch.arange(0, 2 * len(x), 2)) if has_proofs else None
    whole, _ = _attack(linear, (x, y), None, seats)
    assert 0 < int(whole.broken_B.sum()) < len(x)

    perturb, calls = SquareAttack.perturb, []

    def ended(self: SquareAttack, *images: Tensor) -> Tensor:
        calls.append(len(images[0]))
        if len(calls) == 2:
            raise _Ended
        made: Tensor = perturb(self, *images)
        return made

    monkeypatch.setattr(SquareAttack, "perturb", ended)
    with pytest.raises(_Ended):
        _attack(linear, (x, y), tmp_path, seats)
    kept = sorted(path.name for path in tmp_path.rglob("*.chunk"))
    assert {name.split(".")[1].rsplit("-", 1)[0] for name in kept} >= {"apgd-ce", "apgd-t", "fab-t"}
    before = len(calls)

    resumed, parts = _attack(linear, (x, y), tmp_path, seats)
    assert torch.equal(resumed.adversarial_BCHW, whole.adversarial_BCHW)
    assert resumed.attack_names == whole.attack_names
    assert parts is not None
    assert parts.saved_s > 0
    assert resumed.seconds > parts.saved_s
    again, _ = _attack(linear, (x, y), tmp_path, seats)
    assert torch.equal(again.adversarial_BCHW, whole.adversarial_BCHW)
    assert len(calls) > before  # what had not been finished was computed, once


def test_what_was_kept_of_other_images_is_not_taken(tmp_path: Path) -> None:
    chunks = ChunkStore(tmp_path, {})
    x, y = torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64)

    def brighter(images: Tensor, labels: Tensor) -> Tensor:
        made = images.clone()
        made[1] += 0.1
        return made

    def never(images: Tensor, labels: Tensor) -> Tensor:
        raise AssertionError("attacked again")

    made = Parts(chunks, CHUNK).run("square", brighter, x, y)
    assert torch.equal(Parts(chunks, CHUNK).run("square", never, x, y), made)
    with pytest.raises(AssertionError, match="attacked again"):
        Parts(chunks, CHUNK).run("square", never, x + 0.5, y)
    with pytest.raises(AssertionError, match="attacked again"):
        Parts(chunks, CHUNK).run("fab-t", never, x, y)
    chunks.remove(f"{CHUNK}.*")
    assert not list(tmp_path.rglob("*.chunk"))
