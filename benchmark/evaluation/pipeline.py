"""Order, chunks, resume, seeds and timing of one evaluation; no mathematics.

Verify first: the cheap certifiers are asked about every correct image, PGD-50 runs on what none of
them proved, the costly certifiers (`benchmark.evaluation.closing`) are asked about what is still
open, and AutoAttack, the costliest of all, runs on what no certifier proved. CROWN is cheap on a
small network and costly on a large one. Monotone facts are carried: what is certified to smaller
epsilons, what is broken to larger ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from corobench.benchmark.evaluation import health
from corobench.benchmark.evaluation.closing import close
from corobench.benchmark.evaluation.facts import Facts
from corobench.benchmark.evaluation.proving import certify
from corobench.benchmark.evaluation.stages import ContradictedBoundsError, Stages

if TYPE_CHECKING:
    from corobench.benchmark.certify import Prover


class Evaluation(Stages):
    """The stages in the order that the protocol fixes."""

    def run(self) -> Facts:
        """Clean, cheap certifiers, PGD-50, costly certifiers, AutoAttack, health checks.

        Nothing is asked of a network whose check of the contract has no answer.
        """
        ended, not_asked = self.prepared.ended, dict(self.prepared.not_asked)
        if ended is not None:
            return self.without_answer("contract", ended)
        try:
            return self._run(self.prepared.prover, not_asked)
        except ContradictedBoundsError as error:
            return self._run(None, self.disbelieve(error, not_asked))

    def _run(self, prover: Prover | None, not_asked: dict[str, str]) -> Facts:
        self.facts.not_asked = dict(not_asked)
        self.clean()
        early, closing = self.prepared.early, self.prepared.closing
        for certifier in early:
            if prover is not None and certifier not in not_asked:
                certify(self, certifier)
        self.choose_audit(early)
        self.attack(self.pgd())
        for certifier in closing:
            if prover is not None and certifier not in not_asked:
                close(self, certifier)
        self.choose_audit(closing)
        self.attack(self.autoattack())
        health.run_health_checks(self)
        return self.facts
