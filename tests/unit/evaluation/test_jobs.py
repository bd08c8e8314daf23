"""Whoever computes the jobs, in whatever order and after however many kills: the same facts."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from evaluation_factory import FAST, SMALL_CHUNKS, make_evaluation, shorten_suite, table_of
from torch import Tensor, nn

from corobench.benchmark.attacks.pgd import PGD
from corobench.benchmark.certify import Prover
from corobench.benchmark.evaluation.answers import find_fault
from corobench.benchmark.evaluation.evaluate import evaluate
from corobench.benchmark.evaluation.jobs import Arrays, Job, in_order
from corobench.benchmark.evaluation.settings import Settings
from corobench.benchmark.evaluation.workbench import Setup, Workbench, load_workbench
from corobench.benchmark.files.steps import Ended
from corobench.benchmark.network.device import one_thread
from corobench.benchmark.records.reading.table_file import read_outcomes

ENTRY = Path(__file__).parents[3] / "submissions" / "digits-ibp-lwm-10x"
SAME = ["image", "label", "predicted", "epsilon", "outcome", "decided_by", "pgd50", "autoattack"]


class Shuffled:
    """Computes in another order, and speculates: everything is computed before anything is told.

    Args:
        workbench: computes.
        seed: of the order.
    """

    def __init__(self, workbench: Workbench, seed: int = 0) -> None:
        self._workbench, self._random = workbench, random.Random(seed)
        self.asked: list[str] = []

    def map(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Arrays | Ended]]:
        mixed = list(jobs)
        self._random.shuffle(mixed)
        self.asked += [job.name for job in mixed]
        answers = [(job, self._workbench.compute(Job.from_json(job.as_json()))) for job in mixed]
        self._random.shuffle(answers)
        yield from answers


@pytest.fixture(scope="module", autouse=True)
def _short_attacks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shorten_suite(patch)
        yield


@pytest.fixture(scope="module")
def curved(digits: tuple[Tensor, Tensor]) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(digits[0]), digits[1]).backward()
        optimiser.step()
    return model.eval()


def test_the_order_of_answers_and_work_ahead_change_nothing(
    curved: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    x, y = (part[:40] for part in digits)
    prover = Prover(curved, (1, 8, 8), 10)
    here = make_evaluation(curved, x, y, tmp_path / "here", prover=prover).run()
    there = make_evaluation(curved, x, y, tmp_path / "there", prover=prover)
    there._executor = Shuffled
    found = there.run()
    expected, table = table_of(here, y), table_of(found, y)
    same = [name for name in table.columns if name != "seconds"]
    pd.testing.assert_frame_equal(table[same], expected[same])
    assert len(found.adversarial) == len(here.adversarial) > 0
    for one, other in zip(found.adversarial, here.adversarial, strict=True):
        assert np.array_equal(one, other)
    assert [known.flags for known in found.epsilons.values()] == [
        known.flags for known in here.epsilons.values()
    ]


def test_an_answer_of_another_job_is_not_taken(
    curved: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    x, y = (part[:8] for part in digits)
    evaluation = make_evaluation(curved, x, y, tmp_path)
    job = Job("clean-0000", "clean", (0, 1, 2))
    (first,) = evaluation.map([job])
    assert not isinstance(first[1], Ended)
    (again,) = evaluation.map([job])
    assert not isinstance(again[1], Ended) and evaluation.chunks.reused == 1
    other = Job("clean-0000", "clean", (5, 6, 7))
    ((_, answer),) = evaluation.map([other])
    assert not isinstance(answer, Ended)
    assert np.allclose(answer["logits"], curved(x[5:8]).detach().numpy(), atol=1e-5)


def test_a_loaded_workbench_computes_what_the_first_one_does(tmp_path: Path) -> None:
    """Each job of a real entry, by a workbench made anew from its setup."""
    made: list[Workbench] = []

    class Elsewhere(Shuffled):
        def __init__(self, workbench: Workbench) -> None:
            assert workbench.setup is not None
            setup = Setup.from_json(workbench.setup.as_json())
            x, y = workbench.x.numpy(), workbench.y.numpy()
            made.append(load_workbench(setup, x, y, ENTRY, torch.device("cpu")))
            super().__init__(made[-1])

    here = evaluate(ENTRY, Settings(n=40, out=tmp_path / "here"))
    there = evaluate(ENTRY, Settings(n=40, out=tmp_path / "there"), executor=Elsewhere)
    assert made
    tables = [
        read_outcomes(done.path.with_suffix("").with_suffix(".outcomes.parquet"))[0][SAME]
        for done in (here, there)
    ]
    pd.testing.assert_frame_equal(*tables)
    files = [done.path.with_name(f"{done.path.stem}.adversarial.npz") for done in (here, there)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_part_of_the_suite_that_ends_leaves_the_others_an_answer(
    curved: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    """What broke before counts; images of the group that ended are an error, never robust."""
    x, y = (part[:32] for part in digits)
    evaluation = make_evaluation(curved, x, y, tmp_path, track=SMALL_CHUNKS, protocol=FAST)

    class Ending(Shuffled):
        def map(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Arrays | Ended]]:
            for job, answer in super().map(jobs):
                is_hit = job.told.get("part") == "square" and job.told["chunk"] == 0
                yield job, Ended("planted", by_clock=False) if is_hit else answer

    evaluation._executor = Ending
    facts = evaluation.run()
    failed = {text for known in facts.epsilons.values() for text in known.failed if text}
    assert failed == {"autoattack: planted"}
    for known in facts.epsilons.values():
        assert not (known.failed != "").astype(bool)[known.attacked].any()
    table = table_of(facts, y)
    assert set(table.loc[table["outcome"] == "error", "position"]) <= set(range(16))
    assert "attack-error" in facts.epsilons["1/16"].flags


def test_answers_in_the_order_of_the_jobs_and_closed_in_time() -> None:
    jobs = [Job(f"close-{number}", "close", (number,)) for number in range(4)]
    told: list[str] = []

    def answered() -> Iterator[tuple[Job, Arrays | Ended]]:
        for number in (2, 0, 1, 3):
            told.append(jobs[number].name)
            yield jobs[number], {}

    ordered = in_order(jobs, answered())
    assert [next(ordered)[0].name for _ in range(2)] == ["close-0", "close-1"]
    ordered.close()
    assert told == ["close-2", "close-0", "close-1"]


WELL = {
    "broken": np.array([True, False]),
    "names": np.array(["square", ""]),
    "adversarial": np.zeros((1, 1, 8, 8), dtype=np.float32),
    "flags": np.array(["randomized"]),
    "doubts": np.array(["non-finite-logits"]),
    "doubts_rows": np.array([4]),
    "halved": np.asarray(0),
    "seconds": np.asarray(0.5),
}
ATTACK = Job("attack-0", "attack", (4, 7), "1/16")


def test_a_well_formed_answer_has_no_fault() -> None:
    assert find_fault(ATTACK, WELL, (1, 8, 8), 10) is None
    failed = {"failed": np.asarray("RuntimeError: x"), "seconds": np.asarray(0.1)}
    assert find_fault(ATTACK, failed, (1, 8, 8), 10) is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"broken": np.array([1, 0])}, "broken"),
        ({"broken": np.array([True])}, "broken"),
        ({"names": np.array(["x" * 301, ""])}, "names"),
        ({"names": np.array(["square", None], dtype=object)}, "names"),
        ({"adversarial": np.zeros((2, 1, 8, 8), dtype=np.float32)}, "adversarial"),
        ({"adversarial": np.zeros((1, 1, 9, 8), dtype=np.float32)}, "adversarial"),
        ({"adversarial": np.full((1, 1, 8, 8), np.nan, dtype=np.float32)}, "adversarial"),
        ({"adversarial": np.full((1, 1, 8, 8), 2, dtype=np.float32)}, "adversarial"),
        ({"doubts_rows": np.array([5])}, "doubts_rows"),
        ({"doubts_rows": np.array([4, 7])}, "doubts_rows"),
        ({"more": np.zeros(1)}, "more"),
        ({"seconds": np.zeros(2)}, "seconds"),
    ],
)
def test_what_a_worker_cannot_have_found_is_named(change: Arrays, named: str) -> None:
    fault = find_fault(ATTACK, WELL | change, (1, 8, 8), 10)
    assert fault is not None and named in fault


def test_a_missing_array_is_a_fault() -> None:
    for key in WELL:
        left = {name: array for name, array in WELL.items() if name != key}
        assert find_fault(ATTACK, left, (1, 8, 8), 10) is not None


def test_one_thread_is_given_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_batch_that_does_not_fit_is_halved_and_counted(
    curved: nn.Module,
    digits: tuple[Tensor, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PGD draws for the whole chunk, so that halves find what the whole finds."""
    x, y = (part[:32] for part in digits)
    none = dict.fromkeys(FAST.all_certifiers, "not of interest")
    whole = make_evaluation(curved, x, y, tmp_path / "whole", not_asked=none)
    whole.clean()
    whole.attack(whole.pgd())
    propose = PGD.propose

    def small_memory(self: PGD, model: nn.Module, images: Tensor, *more: object) -> object:
        if len(images) > 5:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return propose(self, model, images, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(PGD, "propose", small_memory)
    halved = make_evaluation(curved, x, y, tmp_path / "halved", not_asked=none)
    halved.clean()
    halved.attack(halved.pgd())
    assert whole.facts.num_halved == 0
    assert halved.facts.num_halved >= 2
    for epsilon, known in whole.facts.epsilons.items():
        broken = halved.facts.epsilons[epsilon].broken["pgd50"]
        assert np.array_equal(known.broken["pgd50"], broken) and broken.any()
    found, expected = halved.facts.adversarial, whole.facts.adversarial
    assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))


def test_a_single_image_that_does_not_fit_has_no_answer(
    curved: nn.Module,
    digits: tuple[Tensor, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_memory(*more: object) -> object:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PGD, "propose", no_memory)
    evaluation = make_evaluation(curved, *(part[:4] for part in digits), tmp_path)
    evaluation.clean()
    evaluation.attack(evaluation.pgd())
    known = evaluation.facts.epsilons["1/16"]
    assert set(known.failed[evaluation.facts.correct]) == {
        "pgd50: OutOfMemoryError: CUDA out of memory"
    }
