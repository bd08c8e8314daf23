"""One network with its images, ready to compute jobs: the only place that does.

Whoever holds the same workbench computes the same arrays, whatever was computed before. So all of
them work with one thread, in float32 as it is defined, and a job says everything it depends on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corobench.benchmark.attacks.autoattack import AutoAttackStandard, PlainAutoAttack
from corobench.benchmark.attacks.base import Attack, AttackResult
from corobench.benchmark.attacks.context import AttackContext, Seats
from corobench.benchmark.attacks.pgd import PGD
from corobench.benchmark.attacks.standing import Group
from corobench.benchmark.certify import stage as stage_certify
from corobench.benchmark.errors import NotCertifiable, SubmissionError
from corobench.benchmark.evaluation.jobs import Arrays, Job
from corobench.benchmark.evaluation.prepared import CheckedNetwork, Prepared, prepare
from corobench.benchmark.files.steps import Ended, StepEndedError, Steps
from corobench.benchmark.network.device import exact_float32, one_thread
from corobench.benchmark.referee.judge import predict_one_by_one
from corobench.benchmark.submission import load_submission
from corobench.benchmark.tracks import Protocol, Track, derive_seed

#: Pieces that a batch of an attack is cut into, and images of a piece that is cut no further.
PIECES, LEAST_PIECE = 4, 50


def piece_of(batch: int) -> int:
    """Images of a piece: small enough to share a stage among workers, large enough to be fast.

    >>> piece_of(500), piece_of(250), piece_of(100)
    (125, 63, 50)
    """
    return max(LEAST_PIECE, -(-batch // PIECES))


class Attacks:
    """The attacks of an evaluation, with the protocol's settings.

    Args:
        protocol: settings.
        track: whose images are attacked.
        is_on_cpu: a CPU attacks pieces of a batch as fast as the whole, and they can be shared.
    """

    def __init__(self, protocol: Protocol, track: Track, is_on_cpu: bool = True) -> None:
        batch = track.attack_batch
        piece = piece_of(batch) if is_on_cpu else None
        kind = PlainAutoAttack if protocol.plain_attacks else AutoAttackStandard
        self.pgd = PGD(
            protocol.pgd_steps, protocol.pgd_restarts, protocol.pgd_step_rate, piece or batch
        )
        self.autoattack = kind(track.num_classes, batch, protocol.square_queries, piece)
        #: PGD-50's steps are small; fewer and larger ones must not do better.
        self.fewer_steps = PGD(steps=10, restarts=1, step_rate=0.25)

        every: tuple[Attack, ...] = (self.pgd, self.autoattack, self.fewer_steps)
        self._named = {attack.name: attack for attack in every}

    def named(self, name: str) -> Attack:
        """The attack of that name."""
        return self._named[name]

    def use(self, attack: Attack) -> None:
        """Know an attack of a caller's own; workbenches elsewhere know those of the protocol."""
        self._named[attack.name] = attack


@dataclass(frozen=True)
class Setup:
    """What another process needs to make the same workbench, beside folder and images.

    Attributes:
        track: name.
        protocol: settings of every stage, as `Protocol` takes them.
        seed: of the run.
        searches_in_tf32: whether attacks may search in TF32.
        weights_sha256: of the effective weights.
        ended: steps of the preparation that ended an earlier process -> why, and whether by clock.
    """

    track: str
    protocol: Mapping[str, Any]
    seed: int
    searches_in_tf32: bool
    weights_sha256: str
    ended: Mapping[str, Sequence[Any]]

    def as_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Setup:
        """The setup that `as_json` wrote."""
        return cls(**told)


class Workbench:
    """Computes jobs on one network.

    Args:
        prepared: the network, its images and what its stages work with.
        seed: of the run.
        setup: by which another process makes the same; None where no other one can.
    """

    def __init__(self, prepared: Prepared, seed: int, setup: Setup | None = None) -> None:
        self.prepared, self.seed, self.setup = prepared, seed, setup
        self.model, self.x, self.y = prepared.model, prepared.x, prepared.y
        self.attacks = Attacks(prepared.protocol, prepared.track, prepared.x.device.type == "cpu")
        # Weight gradients are never needed; without them a backward pass costs half as much.
        self.model.requires_grad_(False)
        self._kinds: Mapping[str, Callable[[Job], dict[str, Any]]] = {
            "attack": self._attack,
            "certify": self._certify,
            "clean": self._clean,
            "close": self._close,
        }

    def compute(self, job: Job) -> Arrays:
        """The answer to a job.

        A certifier that refuses the network is an answer of its own (``refused``, ``rule``), and
        so is an attack that fails (``failed``).
        """
        start = time.perf_counter()
        with exact_float32(), one_thread():
            try:
                answer = self._kinds[job.kind](job)
            except (NotCertifiable, MemoryError) as refusal:
                rule = getattr(refusal, "rule", "")
                answer = {"refused": str(refusal) or "memory ran out", "rule": rule}
        answer = {"seconds": time.perf_counter() - start} | answer
        return {key: np.asarray(value) for key, value in answer.items()}

    # ------------------------------------------------------------------------------- kinds

    def _clean(self, job: Job) -> dict[str, Any]:
        logits = predict_one_by_one(self.model, self.x[job.places])
        return {"logits": logits.cpu().numpy()}

    def _certify(self, job: Job) -> dict[str, Any]:
        rows, prover = job.places, self.prepared.prover
        assert prover is not None
        result = stage_certify.certify_chunk(
            prover, str(job.told["certifier"]), self.x[rows], self.y[rows], Fraction(job.epsilon)
        )
        return {
            "certified": result.certified_B.cpu().numpy(),
            "margin": result.margin_B.cpu().numpy(),
        }

    def _close(self, job: Job) -> dict[str, Any]:
        rows, prover = job.places, self.prepared.prover
        assert prover is not None
        result = stage_certify.close_chunk(
            prover,
            str(job.told["certifier"]),
            self.model,
            self.x[rows],
            self.y[rows],
            Fraction(job.epsilon),
            self.prepared.protocol,
        )
        refuted = result.refuted_B.cpu()
        return {
            "certified": result.certified_B.cpu().numpy(),
            "margin": result.margin_B.cpu().numpy(),
            "stopped": result.stopped_B.cpu().numpy(),
            "unasked": result.unasked_B.cpu().numpy(),
            "refuted": refuted.numpy(),
            "adversarial": result.adversarial_BCHW.cpu()[refuted].numpy(),
        }

    def _attack(self, job: Job) -> dict[str, Any]:
        told = job.told
        group = Group(str(told["part"]), _places(told["places"]), _places(told["standing"]))
        try:
            result, num_halved = self._attack_group(job, group, job.places)
        except (RuntimeError, ValueError, IndexError, ArithmeticError) as error:
            # An attack without an answer is an outcome of these images, not of the run.
            return {"failed": f"{type(error).__name__}: {error}"[:300]}
        return {**_found(result, job.places), "halved": num_halved}

    def _attack_group(
        self, job: Job, group: Group, rows: NDArray[np.int64]
    ) -> tuple[AttackResult, int]:
        """What the attack found; it is halved, and halved again, where memory runs out."""
        told = job.told
        attack = self.attacks.named(str(told["attack"]))
        label = f"{attack.name}:{job.epsilon}"
        seed = derive_seed(self.seed, self.prepared.track.name, label, int(told["chunk"]))
        context = AttackContext(
            Seats.all(int(told["seats"])),
            self.prepared.network,
            self.prepared.searches_in_tf32 and bool(told["may_round"]),
        )
        x, y, radius = self.x[rows], self.y[rows], Fraction(job.epsilon)
        try:
            return attack.run_group(group, self.model, x, y, radius, seed, context), 0
        except torch.cuda.OutOfMemoryError:
            if len(rows) == 1:
                raise
        torch.cuda.empty_cache()
        result, num_halved = AttackResult.none(x), 1
        for half in np.array_split(np.arange(len(rows)), 2):
            part = replace(group, places=group.places[half])
            found, more = self._attack_group(job, part, rows[half])
            result.replace(torch.from_numpy(half).to(x.device), found)
            num_halved += more
        return result, num_halved


def _places(told: Sequence[int]) -> NDArray[np.int64]:
    return np.asarray(told, dtype=np.int64)


def _found(result: AttackResult, rows: NDArray[np.int64]) -> dict[str, Any]:
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
    }


def load_workbench(
    setup: Setup,
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    folder: Path,
    device: torch.device,
) -> Workbench:
    """The workbench that another process set up.

    Args:
        setup: of the other process.
        x: float32 (n, C, H, W) in [0, 1].
        y: int64 (n,).
        folder: of the submission.
        device: where to compute.

    Raises:
        SubmissionError: it cannot be loaded, or holds other weights.
    """
    submission = load_submission(folder, setup.track)
    if submission.weights_sha256 != setup.weights_sha256:
        raise SubmissionError(folder, ["weights: changed since the evaluation began"])
    with exact_float32(), one_thread():
        checked = CheckedNetwork(
            submission.model.to(device).eval(),
            torch.from_numpy(x).to(device),
            torch.from_numpy(y).to(device),
            submission.track,
        )
        steps = Steps(ended={name: Ended(*reason) for name, reason in setup.ended.items()})
        protocol = Protocol(**{key: _frozen(value) for key, value in setup.protocol.items()})
        prepared = prepare(checked, protocol, steps, searches_in_tf32=setup.searches_in_tf32)
    return Workbench(prepared, setup.seed, setup)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class InProcess:
    """Computes jobs here, one after another, each when it is asked for.

    Args:
        workbench: computes them.
        steps: told of each job; one that ended an earlier process has no answer.
    """

    def __init__(self, workbench: Workbench, steps: Steps | None = None) -> None:
        self._workbench, self._steps = workbench, steps or Steps()

    def map(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Arrays | Ended]]:
        """See `benchmark.evaluation.jobs.Executor`."""
        for job in jobs:
            try:
                self._steps.begin(job.name)
            except StepEndedError as error:
                yield job, error.ended
                continue
            yield job, self._workbench.compute(job)
