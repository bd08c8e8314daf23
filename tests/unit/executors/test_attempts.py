"""What ended processes of one task, and what is tried after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.executors.attempts import Attempts
from corobench.benchmark.executors.child import End
from corobench.benchmark.executors.limits import MAX_ENDED
from corobench.benchmark.files.steps import Ended, Steps

ENDED = Ended("IndexError: no", by_clock=False)


def _attempts(*steps: str) -> Attempts:
    attempts = Attempts(Path("entry"), goes_on=True)
    for step in steps:
        assert "continuing without it" in attempts.note(step, End(ENDED, by_limit=True))
    return attempts


def test_attacks_go_on_where_every_certifier_ended_a_process() -> None:
    proofs = [f"certify-{name}-2_16-0000" for name in ("IBP", "CROWN-IBP", "CROWN", "BaB")]
    steps = Steps(ended=_attempts(*proofs).ended)
    assert steps.why_ended(proofs[0]) == ENDED
    assert steps.why_ended("contract") is None
    assert steps.why_ended("attack-pgd50-2_16-0000") is None


def test_after_too_many_other_steps_nothing_more_is_tried() -> None:
    attacks = [f"attack-pgd50-2_16-000{number}" for number in range(MAX_ENDED)]
    attempts = _attempts("certify-IBP-2_16-0000", *attacks)
    steps = Steps(ended=attempts.ended)
    assert steps.why_ended("attack-pgd50-1_16-0000") == ENDED
    assert steps.why_ended("certify-CROWN-2_16-0000") == ENDED
    assert steps.why_ended("load") is None
    with pytest.raises(SubmissionError, match="its process ended: IndexError"):
        attempts.note("gradients-2/16", End(ENDED, by_limit=True))
