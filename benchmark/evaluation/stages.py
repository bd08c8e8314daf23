"""The stages of one evaluation, its jobs, seeds and timing; no mathematics.

Each stage makes a list of jobs, has them computed (`benchmark.evaluation.jobs`), and writes what
comes back into `Facts`. An answer is kept as a chunk at once, so that a run that was ended goes on
where it was. The order of the stages is in `pipeline`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from corobench.benchmark.attacks.autoattack import AutoAttackStandard
from corobench.benchmark.attacks.base import Attack
from corobench.benchmark.attacks.pgd import PGD
from corobench.benchmark.errors import NotCertifiable
from corobench.benchmark.evaluation import attacking
from corobench.benchmark.evaluation.answers import find_fault
from corobench.benchmark.evaluation.auditing import audit_seed, drawn
from corobench.benchmark.evaluation.facts import BoolArray, BrokenSoFar, EpsilonFacts, Facts
from corobench.benchmark.evaluation.jobs import Arrays, Executor, Job, in_order
from corobench.benchmark.evaluation.prepared import Prepared
from corobench.benchmark.evaluation.workbench import InProcess, Setup, Workbench
from corobench.benchmark.files.chunks import ChunkStore
from corobench.benchmark.files.progress import Reporter
from corobench.benchmark.files.steps import Ended, StepEndedError, Steps
from corobench.benchmark.referee.judge import is_wrong

CONTRADICTED = "bounds-contradicted"
"""Flag: an image inside a box had a smaller margin than its bound."""


class ContradictedBoundsError(Exception):
    """Bounds of a certifier, or of the checker, are wrong."""


class Stages:
    """What can be asked of one model on the first n images of a track.

    Args:
        prepared: the network, its images and what its stages work with.
        epsilons: exact radii as text, ascending.
        seed: of the run.
        chunks: finished chunks are read from here and new ones written to it.
        report: progress.
        steps: told of each job that is computed here.
        executor: makes what computes the jobs of a workbench; by default this process does.
        setup: by which another process makes the same workbench.
    """

    def __init__(
        self,
        prepared: Prepared,
        *,
        epsilons: tuple[str, ...],
        seed: int,
        chunks: ChunkStore,
        report: Reporter,
        steps: Steps | None = None,
        executor: Callable[[Workbench], Executor] | None = None,
        setup: Setup | None = None,
    ) -> None:
        self.prepared, self.seed = prepared, seed
        self.model, self.x, self.y = prepared.model, prepared.x, prepared.y
        self.track, self.protocol = prepared.track, prepared.protocol
        self.chunks, self.report = chunks, report
        self.steps = steps or Steps()
        self.workbench = Workbench(prepared, seed, setup)
        self._executor = executor
        self._ready: Executor | None = None
        self.epsilons = epsilons
        self._prefix = ""
        self._forget()

    def _forget(self) -> None:
        n = len(self.x)  # nothing is known of any image
        self.facts = Facts(
            predicted=np.zeros(n, dtype=np.int64),
            correct=np.zeros(n, dtype=bool),
            epsilons={epsilon: EpsilonFacts.empty(n) for epsilon in self.epsilons},
        )
        self.logits = self.x.new_zeros((n, self.track.num_classes))

    def disbelieve(self, error: Exception, not_asked: dict[str, str]) -> dict[str, str]:
        """Forget what leaned on wrong bounds; certifier -> why it is not asked, for all of them."""
        self.report.say(f"no certifier is believed: {error}")
        self._forget()
        self._prefix = "without-proofs-"
        for facts in self.facts.epsilons.values():
            facts.flags.add(CONTRADICTED)
        return {**dict.fromkeys(self.protocol.all_certifiers, str(error)), **not_asked}

    def note_refusal(self, refusal: BaseException) -> None:
        """Raise the flag where an image contradicts the bounds of a certifier.

        Raises:
            ContradictedBoundsError: it contradicts the checker's, so that none is believed.
        """
        rule = getattr(refusal, "rule", "")
        if rule == CONTRADICTED:
            raise ContradictedBoundsError(str(refusal)) from refusal
        if rule == "bounds-disagree-with-forward":
            for facts in self.facts.epsilons.values():
                facts.flags.add(CONTRADICTED)

    def pgd(self) -> PGD:
        """PGD-50 with the protocol's settings."""
        return self.workbench.attacks.pgd

    def autoattack(self) -> AutoAttackStandard:
        """The AutoAttack suite with the protocol's settings."""
        return self.workbench.attacks.autoattack

    def fewer_steps(self) -> PGD:
        """PGD of fewer and larger steps, for the health checks."""
        return self.workbench.attacks.fewer_steps

    # ------------------------------------------------------------------------------ stages

    def clean(self) -> None:
        """Predictions without an attack, one image at a time."""
        n = len(self.x)
        self.report.stage("clean", n)
        jobs = [
            Job(f"clean-{number:04d}", "clean", tuple(rows.tolist()))
            for number, rows in self.batched(np.arange(n))
        ]
        for job, answer in self.map(jobs):
            rows = job.places
            if isinstance(answer, Ended):
                self.facts.record_no_answer("clean", rows, answer)
                self.logits[rows] = float("nan")
                continue
            self.logits[rows] = torch.from_numpy(answer["logits"]).to(self.x.device)
            self.facts.seconds["clean"] += float(answer["seconds"])
            self.report.advance(len(rows))
        wrong = is_wrong(self.logits, self.y)
        others = self.logits.scatter(1, self.y[:, None], float("-inf")).argmax(dim=1)
        predicted = torch.where(wrong, others, self.y).cpu().numpy()
        self.facts.predicted = np.where(self.facts.unpredicted, -1, predicted)
        self.facts.correct = (~wrong).cpu().numpy()
        self.report.finish(f"{int(self.facts.correct.sum())} of {n} right")

    def choose_audit(self, certifiers: tuple[str, ...]) -> None:
        """Mark some images that these certifiers proved, which are attacked all the same.

        They are drawn at the largest epsilon first, where claims are hardest, and only where too
        few are proven there from the smaller ones. They are attacked in their seats.
        """
        proven = {
            epsilon: np.isin(facts.proven_by.astype(str), certifiers)
            for epsilon, facts in self.facts.epsilons.items()
        }
        seed, num = self._audit_seed(certifiers), self.protocol.audit_images
        for epsilon, chosen in drawn(proven, num, seed).items():
            self.facts.epsilons[epsilon].audited[chosen] = True

    def _audit_seed(self, certifiers: tuple[str, ...]) -> int:
        """The seed of an audit before PGD-50, or of one after it, whenever CROWN was asked."""
        protocol = self.protocol
        is_early = set(certifiers) <= set(protocol.certifiers)
        group = protocol.certifiers if is_early else protocol.closing_certifiers
        return audit_seed(self.seed, self.track.name, group)

    def attack(self, attack: Attack) -> None:
        """Attack every correct image that is open or audited, smallest epsilon first.

        Chunks hold the proven images, too, so that what is proven moves no one else's seed.
        """
        so_far = BrokenSoFar.none(len(self.x))
        for epsilon in self.epsilons:
            facts = self.facts.epsilons[epsilon]
            so_far.record_in(facts)
            attacking.attack_at(self, attack, epsilon, so_far)
            so_far.record_in(facts)
            facts.broken[attack.name] = so_far.broken.copy()
            facts.broken_from[facts.broken_from == epsilon] = ""
            still = int((self.facts.correct & ~so_far.broken).sum())
            count = f"{still} of {len(self.x)} still right"
            self.report.finish(f"{count}; {self.facts.bracket_note(epsilon)}")
            for flag, rows_of in sorted(facts.doubts.items()):
                self.report.say(f"{flag} {epsilon}: {len(rows_of)} of {len(self.x)} images")

    def known_of_attack(
        self, attack: Attack, epsilon: str, rows: NDArray[np.int64]
    ) -> attacking.Known | None:
        """What is known of an attack on these images without running it; None for nothing."""
        return None

    def known_of_certifier(
        self, certifier: str, epsilon: str, rows: NDArray[np.int64]
    ) -> tuple[BoolArray, BoolArray] | None:
        """Of which of these images a certifier's answer is known without asking, and what it is."""
        return None

    def without_answer(self, step: str, ended: Ended) -> Facts:
        """The facts of a model that nothing can be asked of.

        Args:
            step: that ended its process.
            ended: why.
        """
        self.facts.not_asked = dict.fromkeys(self.protocol.all_certifiers, f"ended: {ended.reason}")
        self.facts.record_no_answer(step, np.arange(len(self.x)), ended)
        return self.facts

    def chunked(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Consecutive groups of the protocol's size, the unit of seeds."""
        return _cut(rows, self.track.chunk_size)

    def batched(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Consecutive groups of the size of an attack's batch, the unit of work."""
        return _cut(rows, self.track.attack_batch)

    def map(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Arrays | Ended]]:
        """The jobs with their answers, in any order: kept ones, or computed now and then kept.

        An attack that failed is not kept, and is tried again after a restart.
        """
        todo: dict[str, tuple[Job, Job]] = {}
        for job in jobs:
            full = replace(job, name=f"{self._prefix}{job.name}")
            kept = self.chunks.load(full.name)
            if kept is not None and str(kept.pop("job", "")) == full.digest:
                yield job, kept
            else:
                todo[full.name] = job, full
        if not todo:
            return
        if self._ready is None:
            self._ready = (self._executor or self._here)(self.workbench)
        for full, answer in self._ready.map([full for _, full in todo.values()]):
            yield todo[full.name][0], self._kept(full, answer)

    def _kept(self, job: Job, answer: Arrays | Ended) -> Arrays | Ended:
        """An answer that is well-formed, kept; or why it is none."""
        if isinstance(answer, Ended):
            return answer
        fault = find_fault(job, answer, tuple(self.x.shape[1:]), self.track.num_classes)
        if fault is not None:
            return Ended(f"answered what it cannot find: {fault}"[:300], by_clock=False)
        if "failed" not in answer and str(answer.get("rule", "-")):
            self.chunks.save(job.name, {**answer, "job": job.digest})
        return answer

    def proofs(self, jobs: Sequence[Job]) -> Generator[tuple[Job, Arrays], None, None]:
        """The answers of a certifier, in the order of the jobs, so that the first refusal counts.

        Raises:
            NotCertifiable: it refused the network.
            MemoryError: it needed more than there is.
            StepEndedError: a job ended its process.
        """
        for job, answer in in_order(jobs, self.map(jobs)):
            if isinstance(answer, Ended):
                raise StepEndedError(answer)
            if "refused" in answer:
                rule = str(answer["rule"])
                text = str(answer["refused"]).removeprefix(f"{rule}: ")
                raise NotCertifiable(rule, text) if rule else MemoryError(text)
            yield job, answer

    def _here(self, workbench: Workbench) -> Executor:
        return InProcess(workbench, self.steps)

    def spend(
        self, kind: str, facts: EpsilonFacts, rows: NDArray[np.int64], seconds: float
    ) -> None:
        self.facts.seconds[kind] += seconds
        facts.seconds[rows] += seconds / max(len(rows), 1)


def _cut(rows: NDArray[np.int64], size: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    for number, start in enumerate(range(0, len(rows), size)):
        yield number, rows[start : start + size]
