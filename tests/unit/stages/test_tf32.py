"""Searching in TF32: what was set is set again, and only what float32 confirms counts."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from corobench.benchmark.attacks.base import Attack, Proposal
from corobench.benchmark.attacks.context import AttackContext, AttackSearch, Seats
from corobench.benchmark.attacks.tf32 import is_close, tf32
from corobench.benchmark.cli.main import invoke

TEMPLATE = Path(__file__).parents[3] / "submissions" / "_template"
EPSILON = Fraction(1, 16)


def _is_on() -> bool:
    return torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32


@pytest.fixture(autouse=True)
def off() -> Iterator[None]:
    """As the harness sets it on a GPU."""
    with tf32(False):  # which sets what was set before
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        yield


def test_it_is_on_within_the_block_only_also_after_an_error() -> None:
    with tf32(False):
        assert not _is_on()
    with pytest.raises(ValueError, match="inside"), tf32():
        assert _is_on()
        raise ValueError("inside")
    assert not _is_on()


class _Brightness(nn.Module):
    """Class 1 where the mean of an image is above a half; it knows when it may round."""

    def __init__(self, off_by: float = 0.0) -> None:
        super().__init__()
        self.off_by = off_by

    def forward(self, x_BCHW: Tensor) -> Tensor:
        logit_B = x_BCHW.flatten(1).mean(dim=1) - 0.5 + (self.off_by if _is_on() else 0.0)
        return torch.stack([-logit_B, logit_B], dim=1)


class _Brighter(Attack):
    """Claims every image; in TF32 it stops short of what is needed."""

    name = "brighter"

    def __init__(self) -> None:
        self.asked: list[tuple[bool, list[int]]] = []

    def propose(
        self,
        model: nn.Module,
        x_BCHW: Tensor,
        y_B: Tensor,
        epsilon: Fraction,
        seed: int,
        search: AttackSearch,
    ) -> Proposal:
        self.asked.append((_is_on(), search.seats.taken_B.tolist()))
        step = float(epsilon) * (0.5 if _is_on() else 1.0)
        return Proposal(x_BCHW + step, [self.name] * len(x_BCHW), {"seen"})


def _images(*means: float) -> tuple[Tensor, Tensor]:
    x_BCHW = torch.tensor(means)[:, None, None, None].expand(-1, 1, 4, 4).clone()
    return x_BCHW, torch.zeros(len(means), dtype=torch.int64)


def test_a_claim_that_float32_does_not_confirm_is_attacked_once_more_in_float32() -> None:
    x, y = _images(0.48, 0.45, 0.2)  # broken in TF32, broken by the second try, never broken
    attack = _Brighter()
    context = AttackContext(Seats(7, torch.tensor([1, 4, 6])), searches_in_tf32=True)
    result = attack.run(_Brightness(), x, y, EPSILON, 0, context)
    assert result.broken_B.tolist() == [True, True, False]
    assert result.attack_names == ["brighter", "brighter", ""]
    assert attack.asked == [(True, [1, 4, 6]), (False, [4, 6])]
    assert result.flags == {"seen", "claim-not-confirmed"}  # of the third image
    torch.testing.assert_close(result.adversarial_BCHW[1].mean(), torch.tensor(0.45 + 1 / 16))


def test_nothing_is_tried_again_where_all_is_confirmed_or_the_search_was_in_float32() -> None:
    x, y = _images(0.48, 0.49)
    quick = _Brighter()
    context = AttackContext(searches_in_tf32=True)
    assert quick.run(_Brightness(), x, y, EPSILON, 0, context).flags == {"seen"}
    assert [is_on for is_on, _ in quick.asked] == [True]
    exact = _Brighter()
    assert exact.run(_Brightness(), *_images(0.2), EPSILON, seed=0).flags >= {"claim-not-confirmed"}
    assert [is_on for is_on, _ in exact.asked] == [False]


def test_it_is_not_used_where_logits_move_by_more_than_a_fiftieth_of_their_spread() -> None:
    x, _ = _images(0.4, 0.7)  # spreads 0.2 and 0.4
    assert is_close(_Brightness(), x)
    assert is_close(_Brightness(off_by=0.0039), x)
    assert not is_close(_Brightness(off_by=0.0041), x)


def test_without_a_gpu_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    asked = ["evaluate", str(TEMPLATE), "--subset", "5", "--out", str(out), "--tf32"]
    assert invoke(asked) == 2
    assert "--tf32: expected a GPU (--device cuda)" in capsys.readouterr().err
    assert not list(out.rglob("*.json"))
