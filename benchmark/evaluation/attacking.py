"""One attack at one epsilon: its stages on all chunks, as jobs that anybody may compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.attacks.base import Attack
from corobench.benchmark.attacks.standing import Group, Standing
from corobench.benchmark.evaluation.facts import BoolArray, BrokenSoFar
from corobench.benchmark.evaluation.jobs import Arrays, Job
from corobench.benchmark.files.chunks import chunk_name
from corobench.benchmark.files.steps import Ended

if TYPE_CHECKING:
    from corobench.benchmark.evaluation.stages import Stages

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Known:
    """What is known of an attack's answers without running it.

    Attributes:
        known: bool (R,), has an answer.
        broken: bool (R,), and is broken; only where it has one.
        names: text (R,), the part of the attack that broke it.
        images: place among the R -> float32 (C, H, W), for each that is broken.
    """

    known: BoolArray
    broken: BoolArray
    names: NDArray[np.object_]
    images: Mapping[int, Image]


@dataclass
class AttackedChunk:
    """One chunk under one attack: the unit of seeds.

    Attributes:
        number: of the chunk.
        rows: int64 (S,), of the images in its seats, with and without a proof.
        standing: what is attacked, and what still stands.
        broken: bool (S,).
        names: text (S,), part of the attack that broke the image.
        images: place -> float32 (C, H, W).
        failed: places whose attack ended without an answer, why, and whether by a limit of time.
        flags: named.
    """

    number: int
    rows: NDArray[np.int64]
    standing: Standing
    broken: BoolArray
    names: NDArray[np.object_]
    images: dict[int, Image] = field(default_factory=dict)
    failed: list[tuple[NDArray[np.int64], Ended]] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, number: int, rows: NDArray[np.int64], places: NDArray[np.int64]) -> AttackedChunk:
        """Nothing is known yet.

        Args:
            number: of the chunk.
            rows: int64 (S,), of its images.
            places: int64, which of them are attacked.
        """
        broken = np.zeros(len(rows), dtype=bool)
        standing = Standing(len(rows), places)
        return cls(number, rows, standing, broken, np.full(len(rows), "", dtype=object))

    def add_known(self, known: Known) -> None:
        """Take over answers to the attacked images; the others are attacked in their seats."""
        places = self.standing.taken
        for place, name in zip(places[known.broken], known.names[known.broken], strict=True):
            self.broken[place], self.names[place] = True, str(name)
        self.images |= {int(places[key]): image for key, image in known.images.items()}
        self.standing = Standing(len(self.rows), places[~known.known])

    def add(self, group: Group, answer: Arrays) -> None:
        """What the attack of a group found."""
        hits = np.asarray(answer["broken"], dtype=bool)
        places = group.places[hits]
        self.broken[places], self.names[places] = True, answer["names"][hits].astype(object)
        self.images |= dict(zip(places.tolist(), answer["adversarial"], strict=True))
        self.flags.update(str(flag) for flag in (*answer["flags"], *answer["doubts"]))
        self.standing.record(group, hits)

    def give_up(self, group: Group, ended: Ended) -> None:
        """The attack of a group has no answer."""
        self.failed.append((group.places, ended))
        self.flags.add("attack-error")
        self.standing.give_up(group)


def attack_at(evaluation: Stages, attack: Attack, epsilon: str, so_far: BrokenSoFar) -> None:
    """Attack at one epsilon what stands and is open or audited.

    Args:
        evaluation: whose facts say so.
        attack: to run.
        epsilon: of the track.
        so_far: what it broke at smaller radii; what it breaks now is added.
    """
    facts = evaluation.facts.epsilons[epsilon]
    standing = evaluation.facts.correct & ~so_far.broken
    open_ = ~facts.proven | facts.audited
    evaluation.report.stage(f"{attack.name} {epsilon}", int((standing & open_).sum()))
    chunks = [
        AttackedChunk.of(number, rows, np.flatnonzero(open_[rows]))
        for number, rows in evaluation.chunked(np.flatnonzero(standing))
    ]
    run(evaluation, attack, epsilon, [chunk for chunk in chunks if len(chunk.standing.taken)])
    for chunk in chunks:
        facts.flags.update(chunk.flags)
        record_failures(evaluation, attack, epsilon, chunk)
        places = np.flatnonzero(chunk.broken)
        first = len(evaluation.facts.adversarial)
        so_far.add(chunk.rows[places], chunk.names[places], epsilon, first)
        evaluation.facts.adversarial.extend(chunk.images[place] for place in places.tolist())


def run(
    evaluation: Stages,
    attack: Attack,
    epsilon: str,
    chunks: Sequence[AttackedChunk],
    work: str = "attack",
    may_round: bool = True,
) -> None:
    """Run an attack on chunks, which are changed in place.

    Args:
        evaluation: computes the jobs, and is told what images raise a flag.
        attack: to run.
        epsilon: of the track.
        chunks: to attack.
        work: how the names of jobs begin.
        may_round: whether the search may round as TF32 does, where the user allowed it.
    """
    evaluation.workbench.attacks.use(attack)
    for chunk in chunks:
        known = evaluation.known_of_attack(attack, epsilon, chunk.rows[chunk.standing.taken])
        if known is not None:
            chunk.add_known(known)
    for stage in attack.stages:
        groups: dict[str, tuple[AttackedChunk, Group]] = {}
        jobs = []
        for chunk in chunks:
            for job, group in _jobs(attack, stage, epsilon, chunk, work, may_round):
                jobs.append(job)
                groups[job.name] = chunk, group
        if len(attack.stages) > 1:
            evaluation.report.note(f"{stage}: {len(jobs)} batches")
        for job, answer in evaluation.map(jobs):
            chunk, group = groups[job.name]
            before = len(chunk.standing.attacked)
            _record(evaluation, attack, epsilon, chunk, group, answer)
            is_last = stage == attack.stages[-1]
            num_done = len(group.places) if is_last else before - len(chunk.standing.attacked)
            evaluation.report.advance(num_done, _note(evaluation, epsilon, chunks))
    for chunk in chunks:
        chunk.flags |= attack.flags_of(chunk.standing)


def _note(evaluation: Stages, epsilon: str, chunks: Sequence[AttackedChunk]) -> str:
    """The bracket with what these chunks have broken by now."""
    broken = np.zeros(len(evaluation.x), dtype=bool)
    for chunk in chunks:
        broken[chunk.rows[chunk.broken]] = True
    return evaluation.facts.bracket_note(epsilon, broken=broken)


def _jobs(
    attack: Attack, stage: str, epsilon: str, chunk: AttackedChunk, work: str, may_round: bool
) -> Iterator[tuple[Job, Group]]:
    name = chunk_name(f"{work}-{attack.name}", epsilon, chunk.number)
    for number, group in enumerate(attack.groups(stage, chunk.standing)):
        told = {
            "attack": attack.name,
            "part": group.part,
            "chunk": chunk.number,
            "seats": len(chunk.rows),
            "places": group.places.tolist(),
            "standing": group.standing.tolist(),
            "may_round": may_round,
        }
        rows = tuple(chunk.rows[group.places].tolist())
        yield Job(f"{name}.{group.part}-{number:04d}", "attack", rows, epsilon, told), group


def _record(
    evaluation: Stages,
    attack: Attack,
    epsilon: str,
    chunk: AttackedChunk,
    group: Group,
    answer: Arrays | Ended,
) -> None:
    rows = chunk.rows[group.places]
    if not isinstance(answer, Ended):
        facts = evaluation.facts.epsilons[epsilon]
        evaluation.spend("attack", facts, rows, float(answer["seconds"]))
        if "failed" not in answer:
            for flag, row in zip(answer["doubts"], answer["doubts_rows"], strict=True):
                facts.doubt(str(flag), [int(row)])
            chunk.add(group, answer)
            return
        answer = Ended(str(answer["failed"]), by_clock=False)
    chunk.give_up(group, Ended(f"{attack.name}: {answer.reason}"[:300], answer.by_clock))


def record_failures(evaluation: Stages, attack: Attack, epsilon: str, chunk: AttackedChunk) -> None:
    """Images that an attack gave no answer for are an error or a timeout, unless they broke."""
    facts = evaluation.facts.epsilons[epsilon]
    for places, ended in chunk.failed:
        rows = chunk.rows[places[~chunk.broken[places]]]
        facts.failed[rows], facts.by_clock[rows] = ended.reason, ended.by_clock
        without = np.zeros(len(evaluation.x), dtype=bool)
        facts.unanswered.setdefault(attack.name, without)[rows] = True
        evaluation.report.say(f"no answer for {len(rows)} images: {ended.reason}")
