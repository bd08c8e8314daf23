"""Three lines on networks of one's own: any architecture, exact where the truth is known."""

from __future__ import annotations

import runpy
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import own_networks
import pytest
import torch
from models import exact_linear_margin
from torch import nn

import corobench
from corobench.benchmark.evaluation.jobs import Arrays, Job
from corobench.benchmark.evaluation.pipeline import Evaluation
from corobench.benchmark.evaluation.workbench import Workbench
from corobench.benchmark.interactive.result import EvaluationInterrupted
from corobench.benchmark.records.result import OUTCOME_COLUMNS, Outcome

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("_short_attacks")


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    torch.manual_seed(0)
    return own_networks.trained(own_networks.TinyViT())


def _evaluate(model: nn.Module, n: int = 4, **more: object) -> corobench.EvaluationResult:
    return corobench.evaluate(model, track="digits", n=n, verbose=False, **more)  # type: ignore


@pytest.mark.parametrize("kind", ["vit", "silu"])
def test_any_architecture_is_attacked_and_weighed(kind: str, vit: nn.Module) -> None:
    torch.manual_seed(0)
    model = vit if kind == "vit" else own_networks.trained(own_networks.SiluResNet())
    result = _evaluate(model)
    assert result.quick and not result.is_ranked and result.path is None
    for bracket in result.brackets.values():
        assert (bracket.certified is None) == (kind == "vit")
        assert sum(bracket.counts.values()) == 4
        assert bracket.interval.low >= 0.0 and 0 <= bracket.unbroken <= result.clean
    searches = {"alpha-CROWN", "BaB"}
    others = {"IBP", "CROWN-IBP", "CROWN"} if kind == "vit" else set()
    assert set(result.not_asked) == searches | others
    rule = "no-checker" if kind == "vit" else "not-a-relu-net"
    assert all(rule in reason for reason in result.not_asked.values())
    values = sum(p.numel() for p in model.parameters())
    values += sum(b.numel() for b in model.buffers() if b.is_floating_point())
    assert result.compactness.num_parameters == values
    assert result.compactness.macs_dense > 0
    assert "never ranked" in repr(result) and "not asked" in repr(result)


def test_live_pruning_masks_count_and_are_certified_through(digits: tuple) -> None:
    model = own_networks.pruned_cnn(0.5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = _evaluate(model)
    assert result.compactness.sparsity == pytest.approx(0.5, abs=0.01)
    biases = 6 + 16 + 10
    weights = 6 * 9 + 96 * 16 + 16 * 10
    assert result.compactness.num_parameters == weights + biases
    assert result.compactness.num_nonzero <= weights / 2 + biases + 2
    assert not result.not_asked
    assert result.brackets["1/16"].certified is not None
    # The network itself is as it was: masked, with gradients, on its own.
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert nn.utils.prune.is_pruned(model)


def test_a_linear_network_is_closed_on_the_exact_counts(
    linear: nn.Module, digits: tuple[torch.Tensor, torch.Tensor]
) -> None:
    n = 20
    x, y = digits[0][:n], digits[1][:n]
    result = _evaluate(linear, n)
    for epsilon, bracket in result.brackets.items():
        exact = int((exact_linear_margin(linear, x, y, Fraction(epsilon)) > 0).sum())
        assert bracket.certified == bracket.unbroken == exact
        assert bracket.width_rate == 0.0
    frame = result.to_frame()
    assert list(frame.columns) == list(OUTCOME_COLUMNS) and len(frame) == 2 * n
    for epsilon, bracket in result.brackets.items():
        outcomes = frame[frame["epsilon"] == epsilon]["outcome"].value_counts()
        assert {str(k): outcomes.get(str(k), 0) for k in Outcome} == dict(bracket.counts)
    broken = frame[frame["outcome"] == "attacked"]
    assert result.adversarial is not None and len(broken)
    for row in broken.itertuples():
        radius = float(Fraction(row.epsilon))
        image = result.adversarial[row.adversarial]
        assert np.abs(image - x[row.position].numpy()).max() <= radius + 1e-7
        assert int(linear(torch.from_numpy(image)[None]).argmax()) != row.label


def test_memory_and_folder_agree_image_by_image(tmp_path: Path) -> None:
    folder = ROOT / "submissions" / "_template"
    real = corobench.evaluate(folder, n=8, out=tmp_path, isolate=False, verbose=False)
    mine = _evaluate(corobench.load_model(folder), 8)
    same = [name for name in OUTCOME_COLUMNS if name != "seconds"]
    assert mine.to_frame()[same].equals(real.to_frame()[same])
    assert mine.clean == real.clean and mine.not_asked == real.not_asked
    assert mine.flags == real.flags
    assert real.path is not None and not real.in_memory
    again = corobench.load_result(real.path)
    assert again.record == real.record and again.to_frame().equals(real.to_frame())


def test_radii_of_ones_own_are_exact_and_sorted(linear: nn.Module) -> None:
    result = _evaluate(linear, 3, epsilons=[Fraction(1, 8), "1/32"])
    assert list(result.brackets) == ["1/32", "1/8"]


def test_a_stopped_evaluation_keeps_what_it_found_and_goes_on(
    linear: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = _evaluate(linear, 12)
    attacked = Evaluation.attack
    with monkeypatch.context() as patch:

        def stop(self: Evaluation, attack: object) -> None:
            if getattr(attack, "name", "") == "autoattack":
                raise KeyboardInterrupt
            attacked(self, attack)  # type: ignore[arg-type]

        patch.setattr(Evaluation, "attack", stop)
        with pytest.raises(KeyboardInterrupt) as stopped:
            _evaluate(linear, 12, cache=tmp_path / "kept")
    assert isinstance(stopped.value, EvaluationInterrupted)
    part = stopped.value.result
    assert part is not None and not part.is_finished and not part.is_ranked
    assert "INTERRUPTED" in repr(part) and "<svg" in part._repr_html_()
    for epsilon, bracket in part.brackets.items():
        assert bracket.certified == whole.brackets[epsilon].certified
        assert bracket.unbroken >= whole.brackets[epsilon].unbroken
    assert list((tmp_path / "kept").rglob("*.chunk"))
    attacks: list[str] = []
    compute = Workbench.compute

    def seen(self: Workbench, job: Job) -> Arrays:
        attacks.append(str(job.told.get("attack", "")))
        return compute(self, job)

    monkeypatch.setattr(Workbench, "compute", seen)
    resumed = _evaluate(linear, 12, cache=tmp_path / "kept")
    assert "pgd50" not in attacks[: attacks.index("autoattack")]  # read back, not run again
    same = [name for name in OUTCOME_COLUMNS if name != "seconds"]
    assert resumed.to_frame()[same].equals(whole.to_frame()[same])
    assert not list((tmp_path / "kept").rglob("*.chunk"))


def test_before_the_first_predictions_nothing_is_known(
    linear: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Evaluation) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Evaluation, "clean", stop)
    with pytest.raises(EvaluationInterrupted) as stopped:
        _evaluate(linear, 3)
    # `_Evaluation.clean` calls the stage that was stopped, so no image counts as misclassified.
    assert stopped.value.result is None


def test_unfinished_work_of_another_function_is_not_taken(linear: nn.Module) -> None:
    from corobench.benchmark.interactive.networks import fingerprint, measured_copy

    images = torch.rand(4, 1, 8, 8)

    class Times(nn.Module):
        def __init__(self, inner: nn.Module, factor: float) -> None:
            super().__init__()
            self.inner, self.factor = inner, factor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) * self.factor

    prints = set()
    for factor in (1.0, 2.0):
        copied = measured_copy(Times(linear, factor).eval(), (1, 8, 8))
        prints.add(fingerprint(copied, torch.zeros(4, 10)))
        prints.add(fingerprint(copied, copied(images)))
    assert len(prints) == 4


def test_the_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["three_lines.py", "3"])
    with torch.random.fork_rng():
        runpy.run_path(str(ROOT / "examples" / "three_lines.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "on digits, n = 3" in said and "digits-ibp-dense" in said


@pytest.mark.slow
def test_three_lines_with_the_whole_suite(vit: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    result = corobench.evaluate(vit, track="digits", n=10, verbose=False)
    assert result.brackets["2/16"].unbroken <= result.brackets["1/16"].unbroken <= result.clean
