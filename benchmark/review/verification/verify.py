"""Verify a handed-in result: files, rows, predictions, proofs, stored images, then attacks."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corobench.benchmark.certify.batch_sizes import batch_sizes
from corobench.benchmark.certify.hidden_units import num_hidden_units
from corobench.benchmark.evaluation import health, recognition
from corobench.benchmark.evaluation.evaluate import unseen_images
from corobench.benchmark.evaluation.evidence import load_evidence
from corobench.benchmark.evaluation.identity import versions
from corobench.benchmark.evaluation.pipeline import Evaluation
from corobench.benchmark.evaluation.prepared import Prepared, check_images, prepare
from corobench.benchmark.files.atomic import write_atomic
from corobench.benchmark.files.chunks import ChunkStore
from corobench.benchmark.files.progress import Reporter
from corobench.benchmark.files.steps import Steps
from corobench.benchmark.network.device import exact_float32, resolve_device
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.rows import ATTACKS
from corobench.benchmark.records.reports import Verified
from corobench.benchmark.records.result import Outcome
from corobench.benchmark.review.contest import DECIDED_BY as CONTEST
from corobench.benchmark.review.recheck import recheck_evidence
from corobench.benchmark.review.replay import Replay
from corobench.benchmark.review.verification import attacks, files, proofs, table
from corobench.benchmark.review.verification.chance import HIDDEN_RATE, MISS_RATE, chance_to_miss
from corobench.benchmark.review.verification.claims import Claims
from corobench.benchmark.review.verification.mismatch import Mismatch, refuse
from corobench.benchmark.tracks import Protocol

#: A slower processor than the submitter's must not end a search that found its proof in time.
PATIENCE = 10


@exact_float32()
def verify(
    path: Path,
    folder: Path,
    *,
    seed: int,
    hidden_rate: float = HIDDEN_RATE,
    miss_rate: float = MISS_RATE,
    device: str = "cpu",
    data_root: Path | None = None,
    out: Path | None = None,
    report: Reporter | None = None,
    steps: Steps | None = None,
) -> Verified:
    """Measure again what a result claims.

    Args:
        path: result file; its outcome table and adversarial images lie beside it.
        folder: of the submission.
        seed: of the draw and the attacks' starts, which nobody knew when the result was made.
        hidden_rate: share of the images that a forger hides.
        miss_rate: largest chance to draw none of them.
        device: for evaluating.
        data_root: folder of the dataset, or None for the usual search.
        out: folder for images that break, as `corobench contest` reads them; None for none.
        report: progress; standard error by default.
        steps: told of each step.

    Raises:
        ResultError: a file is missing, broken or of another entry, or a claim does not hold; names
            columns, images, what was claimed and what was measured.
        CorobenchError: anything else a user can fix.
    """
    files.require_regular(path)
    files.require_published(path)
    evidence = load_evidence(path, folder, data_root)
    claims = table.claims_of(evidence)
    refuse(path, [*files.compare_files(evidence), *table.compare_rows(claims)])
    with (
        tempfile.TemporaryDirectory() as chunks,
        report or Reporter(f"{evidence.run.entry}, verifying") as progress,
    ):
        work = _Work(claims, resolve_device(device), Path(chunks), progress, steps or Steps())
        return work.verify(seed, hidden_rate, miss_rate, data_root, out)


class _Work:
    """The networks and the evaluations of one verification."""

    def __init__(
        self, claims: Claims, device: torch.device, chunks: Path, report: Reporter, steps: Steps
    ) -> None:
        evidence = claims.evidence
        self.claims, self.device, self.steps, self.report = claims, device, steps, report
        self.path, self.run, self.chunks = evidence.path, evidence.run, chunks
        self.track = evidence.submission.track
        # Of the last part of a version, after a "+", only the driver's release can be read.
        here, then = _plain(versions()), _plain(self.run.versions)
        is_same_device = self.run.device == "cpu" and device.type == "cpu"
        self.is_same = here == then and is_same_device
        self.notes: list[str] = []
        if not self.is_same:
            told = [f"{name} {then.get(name)}, here {here[name]}" for name in here]
            told = [line for line, name in zip(told, here, strict=True) if then[name] != here[name]]
            told += [] if is_same_device else [f"device {self.run.device}, here {device}"]
            self.notes.append(
                f"evaluated with {'; '.join(told)}: each claimed proof was asked again, but "
                "margins and proofs that are not claimed were not compared"
            )
        if other := files.other_constants(self.run):
            self.notes.append(
                f"constants that are not those of the engine here: {', '.join(other)}"
            )

    def verify(
        self,
        seed: int,
        hidden_rate: float,
        miss_rate: float,
        data_root: Path | None,
        out: Path | None,
    ) -> Verified:
        patient = replace(Protocol(), certify_budget_s=PATIENCE * Protocol().certify_budget_s)
        prepared = self._prepare(patient)
        self.prepared = replace(prepared, protocol=Protocol())
        search = prepared.search
        kind = "submitted" if search is None else search.kind
        proven = Evaluation(prepared, **self._how(self.run.seed))
        proofs.ask(proven, self.claims)
        found = [*proofs.compare(proven, self.claims, self.is_same)]
        if self.run.searched_on != kind:
            found.append(Mismatch("searched_on", self.run.searched_on, kind))
        refuse(self.path, found)
        self.steps.begin("recheck")
        rechecked = recheck_evidence(self.claims.evidence)
        refuse(
            beside(self.path, "adversarial.npz"),
            (Mismatch("adversarial", "breaks its row", line) for line in rechecked.failures),
        )
        found = [*self._audit(proven), *self._flags(proven, data_root)]
        done = self._attack(proven, seed, hidden_rate, miss_rate, found, out)
        return replace(done, num_rechecked=rechecked.num_rows)

    def _prepare(self, protocol: Protocol) -> Prepared:
        evidence, rows = self.claims.evidence, self.claims.images
        checked = check_images(
            evidence.submission,
            evidence.dataset.take(rows),
            evidence.dataset.labels[rows],
            self.device,
            self.steps,
            self.path,
            rows.tolist(),
        )
        return prepare(checked, protocol, self.steps)

    def _how(self, seed: int) -> dict[str, Any]:
        return {
            "epsilons": self.claims.epsilons,
            "seed": seed,
            "chunks": ChunkStore(self.chunks, {"intake": seed}),
            "report": self.report,
            "steps": self.steps,
        }

    def _audit(self, proven: Evaluation) -> list[Mismatch]:
        """The images that the run's own audit attacked follow from its seed and the proofs."""
        for certifiers in (proven.prepared.early, proven.prepared.closing):
            proven.choose_audit(certifiers)
        number = sum(int(known.audited.sum()) for known in proven.facts.epsilons.values())
        claimed = self.run.audit.num_images
        return [] if claimed == number else [Mismatch("audit.num_images", claimed, number)]

    def _flags(self, proven: Evaluation, data_root: Path | None) -> list[Mismatch]:
        """Flags of the network itself, and those of the health checks, with what these break."""
        claims, found = self.claims, list[Mismatch]()
        for epsilon, known in proven.facts.epsilons.items():
            known.broken["pgd50"] = claims.correct & ~claims.yes("pgd50", epsilon)
            known.broken["pgd50"] &= claims.answered("pgd50", epsilon)
            by = claims.rows(epsilon)["decided_by"].to_numpy(dtype=object)
            early = claims.is_outcome(epsilon, Outcome.ATTACKED)
            early &= ~np.isin(by.astype(str), (proven.fewer_steps().name, CONTEST))
            known.broken_by[early] = by[early]
        health.run_health_checks(proven)
        self.steps.begin("recognition")
        seen = recognition.run_recognition_checks(
            proven, unseen_images(self.track.name, data_root, self.device)
        )
        for epsilon, known in proven.facts.epsilons.items():
            attacked = claims.is_outcome(epsilon, Outcome.ATTACKED)
            more = known.attacked & ~attacked
            found += claims.differ("outcome", more, "not attacked", "broken", epsilon)
            claimed = self.run.flags.get(epsilon, ())
            missing = sorted(known.flags - {*claimed})
            if missing:
                shown = ", ".join(claimed) or "none"
                found.append(Mismatch("flags", shown, ", ".join(missing), epsilon))
        return found + self._recognition(seen.model_dump())

    def _recognition(self, measured: Mapping[str, object]) -> list[Mismatch]:
        if self.run.recognition is None:
            return [Mismatch("recognition", "not asked", "an answer")]
        claimed = self.run.recognition.model_dump()
        if claimed["num_unseen"] is None or measured["num_unseen"] is None:
            self.notes.append("recognition: training images were available only once")
            claimed = {**claimed, "num_unseen": None, "unseen": None}
            measured = {**measured, "num_unseen": None, "unseen": None}
        return [
            Mismatch(f"recognition.{key}", claimed[key], value)
            for key, value in measured.items()
            if claimed[key] != value and self.is_same
        ]

    def _attack(
        self,
        proven: Evaluation,
        seed: int,
        hidden_rate: float,
        miss_rate: float,
        found: list[Mismatch],
        out: Path | None,
    ) -> Verified:
        """Attack the part that is drawn, and refuse with what was found before, too."""
        claims = self.claims
        sample = attacks.draw(claims, seed, hidden_rate, miss_rate)
        fresh = Evaluation(self.prepared, **self._how(seed))
        fresh.facts, fresh.logits = proven.facts, proven.logits
        for certifiers in (fresh.prepared.early, fresh.prepared.closing):
            fresh.choose_audit(certifiers)
        num_audited = attacks.add_audited(sample, fresh)
        hits = attacks.run(fresh, sample)
        attacks.suspect_contests(claims, sample, hits)
        new = attacks.refuted(fresh, hits)
        lies, lucky = list[Mismatch](), list[str]()
        if new.any():
            lies, lucky = attacks.judge(
                claims, sample, hits, self._hidden(proven, hits, new, seed), new
            )
        if hits.failed and not self.run.errors:
            lies.append(Mismatch("errors", "none", hits.failed[0]))
        images = self._save(hits, out)
        hint = f"--seed {seed} repeats it"
        if images:
            hint += (
                f"; the adversarial images are in {images}. If the result is honest, add them "
                f"with `corobench contest {self.path} {images} --write`"
            )
        refuse(self.path, [*found, *lies], hint)
        if unclaimed := sorted(hits.flags - {one for at in self.run.flags.values() for one in at}):
            self.notes.append(f"attacks raised flags that are not claimed: {', '.join(unclaimed)}")
        drawn = int(sample.chosen.sum())
        rows = (claims.is_outcome(epsilon, Outcome.CERTIFIED) for epsilon in claims.epsilons)
        return Verified(
            path=self.path,
            n=self.run.n,
            seed=seed,
            num_certified=sum(int(one.sum()) for one in rows),
            num_rechecked=0,
            population=sample.population,
            num_drawn=drawn,
            hidden=sample.hidden,
            miss_rate=chance_to_miss(sample.population, sample.hidden, drawn),
            num_audited=num_audited,
            contradictions=tuple(attacks.contradictions(fresh, claims, hits)),
            lucky=tuple(lucky),
            found="" if images is None else str(images),
            notes=tuple(self.notes),
        )

    def _hidden(
        self, proven: Evaluation, hits: attacks.Hits, new: NDArray[np.bool_], seed: int
    ) -> attacks.Rows:
        """Rows that break in their old seats as well, and under more new starts where that is not
        the very same attack."""
        then = self._then(proven, hits, new)
        rows = {
            attack: {
                epsilon: broken & new & then.facts.epsilons[epsilon].broken.get(attack, ~new & new)
                for epsilon, broken in at.items()
            }
            for attack, at in hits.broken.items()
        }
        for attack in ATTACKS if not self.is_same else ATTACKS[1:]:
            more = (
                Evaluation(self.prepared, **self._how(seed + number))
                for number in range(1, attacks.MORE_STARTS + 1)
            )
            attacks.confirm(more, attack, rows)
        return rows

    def _then(self, proven: Evaluation, hits: attacks.Hits, sample: NDArray[np.bool_]) -> Replay:
        """The attacks of the run itself, in the old seats, on a few images."""
        searched_on = self.prepared.network or self.prepared.model
        hidden = num_hidden_units(searched_on, self.track.shape)
        then = Replay(
            self.prepared,
            stored=self.claims.evidence.table,
            sample=sample,
            batches=batch_sizes(hidden),
            **self._how(self.run.seed),
        )
        then.facts.predicted, then.facts.correct = proven.facts.predicted, proven.facts.correct
        for epsilon, known in then.facts.epsilons.items():
            known.proven_by = self.claims.prover(epsilon)
        for attack in (then.pgd(), then.autoattack()):
            if any((broken & sample).any() for broken in hits.broken[attack.name].values()):
                then.attack(attack)
        return then

    def _save(self, hits: attacks.Hits, out: Path | None) -> Path | None:
        if out is None or not hits.images:
            return None
        target = out / f"{self.path.stem}.broken.npz"
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **attacks.save(hits, self.claims))  # type: ignore[arg-type]
        write_atomic(target, buffer.getvalue())
        return target


def _plain(found: Mapping[str, str]) -> dict[str, str]:
    """Versions without what follows a "+", which names a build.

    >>> _plain({"torch": "2.14.1+cu130"})
    {'torch': '2.14.1'}
    """
    return {name: text.split("+")[0] for name, text in found.items()}
