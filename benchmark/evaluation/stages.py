"""The stages of one evaluation, its chunks, seeds and timing; no mathematics.

Each stage writes what it finds into `Facts`. A chunk is computed once and read back afterwards, so
that a run that was ended goes on where it was. The order of the stages is in `pipeline`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from corobench.benchmark.attacks.autoattack import AutoAttackStandard, PlainAutoAttack
from corobench.benchmark.attacks.base import Attack
from corobench.benchmark.attacks.context import AttackContext, Seats
from corobench.benchmark.attacks.parts import Parts
from corobench.benchmark.attacks.pgd import PGD
from corobench.benchmark.certify import stage as stage_certify
from corobench.benchmark.evaluation.auditing import audit_seed, drawn
from corobench.benchmark.evaluation.facts import BrokenSoFar, EpsilonFacts, Facts
from corobench.benchmark.evaluation.prepared import Prepared
from corobench.benchmark.files.chunks import ChunkStore, chunk_name
from corobench.benchmark.files.progress import Reporter
from corobench.benchmark.files.steps import Ended, StepEndedError, Steps
from corobench.benchmark.referee.judge import is_wrong, predict_one_by_one
from corobench.benchmark.tracks import derive_seed

if TYPE_CHECKING:
    from corobench.benchmark.certify import Prover

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
        steps: told of each chunk that is computed.
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
    ) -> None:
        self.prepared, self.seed = prepared, seed
        self.model, self.x, self.y = prepared.model, prepared.x, prepared.y
        self.track, self.protocol = prepared.track, prepared.protocol
        self.chunks, self.report = chunks, report
        self.steps = steps or Steps()
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
        protocol = self.protocol
        return PGD(protocol.pgd_steps, protocol.pgd_restarts, protocol.pgd_step_rate)

    def autoattack(self) -> AutoAttackStandard:
        """The AutoAttack suite with the protocol's settings."""
        kind = PlainAutoAttack if self.protocol.plain_attacks else AutoAttackStandard
        return kind(
            self.track.num_classes,
            batch_size=self.track.attack_batch,
            square_queries=self.protocol.square_queries,
        )

    # ------------------------------------------------------------------------------ stages

    def clean(self) -> None:
        """Predictions without an attack, one image at a time."""
        n = len(self.x)
        self.report.stage("clean", n)
        for number, rows in self.chunked(np.arange(n)):
            try:
                chunk = self.chunk(f"clean-{number:04d}", partial(self._clean_chunk, rows))
            except StepEndedError as error:
                self.facts.record_no_answer("clean", rows, error.ended)
                self.logits[rows] = float("nan")
                continue
            self.logits[rows] = torch.from_numpy(chunk["logits"]).to(self.x.device)
            self.facts.seconds["clean"] += float(chunk["seconds"])
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
        seed, num = audit_seed(self.seed, self.track.name, certifiers), self.protocol.audit_images
        for epsilon, chosen in drawn(proven, num, seed).items():
            self.facts.epsilons[epsilon].audited[chosen] = True

    def attack(self, attack: Attack) -> None:
        """Attack every correct image that is open or audited, smallest epsilon first.

        Chunks hold the proven images, too, so that what is proven moves no one else's seed.
        """
        so_far = BrokenSoFar.none(len(self.x))
        for epsilon in self.epsilons:
            facts = self.facts.epsilons[epsilon]
            so_far.record_in(facts)
            self._attack_at(attack, epsilon, so_far)
            so_far.record_in(facts)
            facts.broken[attack.name] = so_far.broken.copy()
            facts.broken_from[facts.broken_from == epsilon] = ""
            still = int((self.facts.correct & ~so_far.broken).sum())
            count = f"{still} of {len(self.x)} still right"
            self.report.finish(f"{count}; {self.facts.bracket_note(epsilon)}")
            for flag, rows_of in sorted(facts.doubts.items()):
                self.report.say(f"{flag} {epsilon}: {len(rows_of)} of {len(self.x)} images")

    def _attack_at(self, attack: Attack, epsilon: str, so_far: BrokenSoFar) -> None:
        """Attack at one epsilon, chunk by chunk, what stands and is open or audited."""
        facts = self.facts.epsilons[epsilon]
        standing = self.facts.correct & ~so_far.broken
        open_ = ~facts.proven | facts.audited
        self.report.stage(f"{attack.name} {epsilon}", int((standing & open_).sum()))
        for number, chunk_rows in self.chunked(np.flatnonzero(standing)):
            places = np.flatnonzero(open_[chunk_rows])
            rows = chunk_rows[places]
            if not len(rows):
                continue
            context = self.context_of(Seats(len(chunk_rows), torch.from_numpy(places)))
            chunk = self.chunk(
                chunk_name(f"attack-{attack.name}", epsilon, number),
                partial(self.attack_chunk, attack, rows, epsilon, number, context),
                partial(self.no_attack, attack, len(rows)),
            )
            self.spend("attack", facts, rows, float(chunk["seconds"]))
            facts.flags.update(str(flag) for flag in chunk["flags"])
            self.note_doubts(epsilon, chunk)
            if str(chunk["failed"]):
                self._record_failure(attack, facts, rows, chunk)
            names = chunk["names"][chunk["broken"]].astype(object)
            so_far.add(rows[chunk["broken"]], names, epsilon, len(self.facts.adversarial))
            self.facts.adversarial.extend(chunk["adversarial"])
            note = self.facts.bracket_note(epsilon, broken=so_far.broken)
            self.report.advance(len(rows), note)

    def _record_failure(
        self,
        attack: Attack,
        facts: EpsilonFacts,
        rows: NDArray[np.int64],
        chunk: Mapping[str, np.ndarray],
    ) -> None:
        facts.failed[rows] = str(chunk["failed"])
        without = np.zeros(len(self.x), dtype=bool)
        facts.unanswered.setdefault(attack.name, without)[rows] = True
        facts.by_clock[rows] = bool(chunk["by_clock"])
        self.report.say(f"no answer for {len(rows)} images: {chunk['failed']}")

    def context_of(self, seats: Seats) -> AttackContext:
        """What the attacks of the pipeline are told; health checks stay silent and in float32."""
        in_tf32 = self.prepared.searches_in_tf32
        return AttackContext(seats, searches_in_tf32=in_tf32, note=self.report.note)

    def note_doubts(self, epsilon: str, chunk: Mapping[str, np.ndarray]) -> None:
        """Raise the flags of a chunk of an attack that know their images."""
        for flag, row in zip(chunk.get("doubts", ()), chunk.get("doubts_rows", ()), strict=True):
            self.facts.epsilons[epsilon].doubt(str(flag), [int(row)])

    # ----------------------------------------------------------------------------- details

    def _clean_chunk(self, rows: NDArray[np.int64]) -> dict[str, object]:
        start = time.perf_counter()
        logits = predict_one_by_one(self.model, self.x[rows])
        return {"logits": logits.cpu().numpy(), "seconds": time.perf_counter() - start}

    def certify_chunk(
        self, prover: Prover, certifier: str, rows: NDArray[np.int64], epsilon: str
    ) -> dict[str, object]:
        result = stage_certify.certify_chunk(
            prover, certifier, self.x[rows], self.y[rows], Fraction(epsilon)
        )
        return {
            "certified": result.certified_B.cpu().numpy(),
            "margin": result.margin_B.cpu().numpy(),
            "seconds": result.seconds,
        }

    def attack_chunk(
        self,
        attack: Attack,
        rows: NDArray[np.int64],
        epsilon: str,
        number: int,
        context: AttackContext,
    ) -> dict[str, object]:
        """Attack the images of one chunk; an attack that fails is an answer of its own.

        Args:
            attack: to run.
            rows: of the images.
            epsilon: of the track.
            number: of the chunk.
            context: seats, progress and TF32; the network to search on and the place of finished
                parts are added here.
        """
        seed = derive_seed(self.seed, self.track.name, f"{attack.name}:{epsilon}", number)
        name = chunk_name(f"attack-{attack.name}", epsilon, number)
        parts = Parts(self.chunks, f"{self._prefix}{name}")
        context = replace(context, network=self.prepared.network, parts=parts)
        start = time.perf_counter()
        try:
            result = attack.run(
                self.model,
                self.x[rows],
                self.y[rows],
                Fraction(epsilon),
                seed,
                context,
            )
        except (RuntimeError, ValueError, IndexError, ArithmeticError) as error:
            # An attack without an answer is an outcome of these images, not of the run.
            reason = Ended(f"{type(error).__name__}: {error}", by_clock=False)
            seconds = time.perf_counter() - start
            return self.no_attack(attack, len(rows), reason) | {"seconds": seconds}
        broken = result.broken_B.cpu().numpy()
        doubts = [
            (flag, row)
            for flag, raises_B in sorted(result.flagged.items())
            for row in rows[raises_B.numpy()].tolist()
        ]
        return {
            "broken": broken,
            "names": np.array(result.attack_names, dtype=str),
            "adversarial": result.adversarial_BCHW.cpu().numpy()[broken],
            "flags": np.array(sorted(result.flags), dtype=str),
            "doubts": np.array([flag for flag, _ in doubts], dtype=str),
            "doubts_rows": np.array([row for _, row in doubts], dtype=np.int64),
            "failed": "",
            "seconds": result.seconds,
        }

    def no_attack(self, attack: Attack, num_images: int, ended: Ended) -> dict[str, object]:
        """The chunk of an attack that gave no answer."""
        return {
            "broken": np.zeros(num_images, dtype=bool),
            "names": np.full(num_images, "", dtype=str),
            "adversarial": np.zeros((0, *self.x.shape[1:]), dtype=np.float32),
            "flags": np.array(["attack-error"]),
            "failed": f"{attack.name}: {ended.reason}"[:300],
            "by_clock": ended.by_clock,
            "seconds": 0.0,
        }

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
        """Consecutive groups of the protocol's size; they depend on no worker and no restart."""
        size = self.track.chunk_size
        for number, start in enumerate(range(0, len(rows), size)):
            yield number, rows[start : start + size]

    def chunk(
        self,
        name: str,
        compute: Callable[[], dict[str, object]],
        if_ended: Callable[[Ended], dict[str, object]] | None = None,
    ) -> dict[str, np.ndarray]:
        """The arrays of a chunk: stored ones, or computed now and then stored.

        Args:
            name: of the chunk and of its step.
            compute: makes the arrays.
            if_ended: makes them where the step ended an earlier process.

        Raises:
            StepEndedError: it did, and there is no `if_ended`.
        """
        name = f"{self._prefix}{name}"
        stored = self.chunks.load(name)
        if stored is not None:
            return stored
        try:
            self.steps.begin(name)
        except StepEndedError as error:
            if if_ended is None:
                raise
            return {key: np.asarray(value) for key, value in if_ended(error.ended).items()}
        arrays = {key: np.asarray(value) for key, value in compute().items()}
        if not str(arrays.get("failed", "")):  # what failed is tried again after a restart
            self.chunks.save(name, arrays)
            self.chunks.remove(f"{name}.*")
        return arrays

    def spend(
        self, kind: str, facts: EpsilonFacts, rows: NDArray[np.int64], seconds: float
    ) -> None:
        self.facts.seconds[kind] += seconds
        facts.seconds[rows] += seconds / max(len(rows), 1)
