"""Networks that know the published images, or change between calls, are flagged by name."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_factory import make_evaluation, use_attacks
from models import Clipped, Later, Plateau, Shattered, Stored
from scipy.stats import binomtest, fisher_exact
from torch import Tensor, nn

from corobench.benchmark.attacks import gradients
from corobench.benchmark.data import load_train
from corobench.benchmark.evaluation import recognition
from corobench.benchmark.evaluation.pipeline import Evaluation
from corobench.benchmark.network.compactness import measure
from corobench.benchmark.records.result import Recognition
from corobench.benchmark.tracks import Protocol


def _unseen(number: int = 500) -> tuple[Tensor, Tensor]:
    train = load_train("digits")
    return torch.from_numpy(train.take(range(number))), torch.from_numpy(train.labels[:number])


def _weak(inner: nn.Module) -> nn.Module:
    """Right on about half of the images: the label's neighbours are mixed up."""

    class Mixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = inner(x)
            return torch.where(x.flatten(1).mean(1, True) > 0.31, logits.flip(1), logits)

    return Mixed().eval()


def _check(
    model: nn.Module, digits: tuple[Tensor, Tensor], folder: Path
) -> tuple[set[str], Recognition, Evaluation]:
    evaluation = make_evaluation(model, *digits, folder, protocol=Protocol())
    evaluation.clean()
    found = recognition.run_recognition_checks(evaluation, _unseen())
    at = {frozenset(known.flags) for known in evaluation.facts.epsilons.values()}
    assert len(at) == 1, "the same at every epsilon"
    return set(at.pop()), found, evaluation


def test_an_honest_network_raises_nothing(
    linear: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    flags, found, _ = _check(linear, digits, tmp_path)
    assert flags == set()
    assert found.num_images == 100
    assert found.num_unseen == 500


def test_exact_memory_is_seen_by_a_shift_within_a_grey_level(
    linear: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    flags, found, _ = _check(Stored(_weak(linear), *digits, 0.0), digits, tmp_path)
    assert {recognition.RECOGNISES, recognition.BETTER} <= flags
    assert found.right == 100
    assert found.shifted < 80


def test_memory_with_tolerance_is_seen_on_other_images(
    linear: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    """It holds against every shift, as the whole ball is stored."""
    flags, found, _ = _check(Stored(_weak(linear), *digits, 2 / 16), digits, tmp_path)
    assert flags == {recognition.BETTER}
    assert found.shifted == found.right == 100


def test_stored_images_count_as_weights(linear: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    size = measure(Stored(linear, *digits, 0.0), (1, 8, 8))
    assert size.num_parameters == 650 + 100 * 64 + 100 * 10


@pytest.mark.parametrize("late", [lambda calls: calls > 50, lambda calls: calls % 7 == 3])
def test_a_network_that_changes_with_the_calls_is_flagged(
    late: Callable[[int], bool],
    linear: nn.Module,
    digits: tuple[Tensor, Tensor],
    tmp_path: Path,
) -> None:
    flags, _, _ = _check(Later(linear, late), digits, tmp_path)
    assert recognition.CHANGES in flags


def test_a_network_that_changes_with_time_is_flagged(
    linear: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    """By a clock that the test sets: honest until the attacks are over."""
    clock = [0.0]
    model = Later(linear, lambda calls: clock[0] > 3600)
    evaluation = make_evaluation(model, *digits, tmp_path, protocol=Protocol())
    evaluation.clean()
    recognition.run_recognition_checks(evaluation, None)
    assert not evaluation.facts.epsilons["1/16"].flags
    clock[0] = 4000.0
    recognition.run_recognition_checks(evaluation, None)
    assert recognition.CHANGES in evaluation.facts.epsilons["1/16"].flags


def test_clipped_logits_are_flagged(
    linear: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    flags, _, _ = _check(Clipped(linear), digits, tmp_path)
    assert recognition.CLIPPED in flags


def test_without_a_training_set_it_is_not_asked(
    linear: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    evaluation = make_evaluation(linear, *digits, tmp_path, protocol=Protocol())
    evaluation.clean()
    found = recognition.run_recognition_checks(evaluation, None)
    assert found.num_unseen is None
    assert found.unseen is None


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (3, 1), (10, 0), (40, 21)])
def test_the_rule_of_the_shift_is_the_exact_one_sided_test(lost: int, won: int) -> None:
    expected = 1.0
    if lost + won:
        expected = binomtest(lost, lost + won, alternative="greater").pvalue
    assert recognition.chance_of_losing(lost, won) == pytest.approx(expected)


@pytest.mark.parametrize("table", [(95, 100, 900, 1000), (50, 50, 0, 50), (480, 500, 976, 1000)])
def test_the_rule_of_unseen_images_is_fishers(table: tuple[int, int, int, int]) -> None:
    right, n, other, m = table
    expected = fisher_exact([[right, n - right], [other, m - other]], alternative="greater")
    assert recognition.chance_of_more(*table) == pytest.approx(expected.pvalue)


# ------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize(
    ("cheat", "flag"), [(Shattered, gradients.SHATTERED), (Plateau, gradients.VANISHING)]
)
def test_gradients_that_tell_nothing_are_counted(
    cheat: Callable[[nn.Module], nn.Module],
    flag: str,
    linear: nn.Module,
    digits: tuple[Tensor, Tensor],
) -> None:
    x, y = (part[:64] for part in digits)
    counts, unusable = gradients.doubtful(cheat(linear), x, y, Fraction(1, 16), 0)
    assert counts[flag] > 32
    assert not unusable.any()
    counts, _ = gradients.doubtful(linear, x, y, Fraction(1, 16), 0)
    assert counts == dict.fromkeys(counts, 0)


def test_a_plateau_is_flagged_by_an_evaluation(
    linear: nn.Module,
    digits: tuple[Tensor, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from corobench.benchmark.attacks.pgd import PGD

    use_attacks(monkeypatch, autoattack=PGD(1, 1))
    x, y = (part[:32] for part in digits)
    for model, expected in ((Plateau(linear), True), (linear, False)):
        evaluation = make_evaluation(
            model, x, y, tmp_path / str(expected), protocol=Protocol(pgd_restarts=1)
        )
        facts = evaluation.run()
        assert (gradients.VANISHING in facts.epsilons["1/16"].flags) is expected


def test_the_largest_logit_of_many_images_is_no_single_number() -> None:
    honest = np.random.default_rng(0).normal(size=(500, 10)).astype(np.float32)
    assert not recognition.is_clipped(honest)
    assert recognition.is_clipped(np.clip(honest, -1, 1))
    assert recognition.is_clipped(np.clip(honest, -np.inf, 1.5))
