"""A network in memory, evaluated like an entry: the same stages, images and counts.

Its result is for its owner. It is quick, never ranked and written nowhere, because nobody else can
load the network; `corobench.export` makes an entry of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from corobench.benchmark.data import Dataset, load_test, subset
from corobench.benchmark.errors import OutputError
from corobench.benchmark.evaluation import recognition
from corobench.benchmark.evaluation.evaluate import unseen_images
from corobench.benchmark.evaluation.facts import Facts
from corobench.benchmark.evaluation.identity import name_of, versions
from corobench.benchmark.evaluation.outcomes import audit, drop_unused, errors, outcome_table
from corobench.benchmark.evaluation.pipeline import Evaluation
from corobench.benchmark.evaluation.prepared import CONTRACT_IMAGES, Prepared
from corobench.benchmark.files.atomic import prepare_folder
from corobench.benchmark.files.chunks import ChunkStore
from corobench.benchmark.files.progress import Reporter
from corobench.benchmark.interactive import networks
from corobench.benchmark.interactive.arguments import identifier_of
from corobench.benchmark.interactive.certifiers import certifiers_of
from corobench.benchmark.interactive.result import EvaluationInterrupted, EvaluationResult
from corobench.benchmark.network import compactness
from corobench.benchmark.network.device import exact_float32, resolve_device
from corobench.benchmark.network.equivalent import SearchNetwork, equivalent
from corobench.benchmark.records.identity import identity_of
from corobench.benchmark.records.result import Manifest, Run, Seconds
from corobench.benchmark.scoring.score import score
from corobench.benchmark.submission import check_contract
from corobench.benchmark.submission.manifest import check_manifest
from corobench.benchmark.tracks import Protocol, Track, distinct_epsilons, settings_of

if TYPE_CHECKING:
    from corobench.benchmark.certify import Prover

DENSE_BELOW = 0.01
"""Below this share of zeros a network is taken for dense."""


@dataclass(frozen=True, eq=False)
class Wish:
    """What is asked of a network in memory.

    Attributes:
        model: in eval mode.
        name: what the result calls it.
        track: whose images and radii are used.
        n: images.
        epsilons: exact radii as text, ascending.
        seed: of the run.
        device: where to compute; None for where the weights are.
        data_root: folder of the dataset, or None for the usual search.
        cache: folder of unfinished work; None for corobench's own in the user's cache.
    """

    model: nn.Module
    name: str
    track: Track
    n: int
    epsilons: tuple[str, ...]
    seed: int
    device: str | None
    data_root: Path | None
    cache: Path | None


class _Evaluation(Evaluation):
    """An evaluation that knows whether every image has a prediction."""

    has_predictions = False

    def clean(self) -> None:
        super().clean()
        self.has_predictions = True

    def _forget(self) -> None:
        super()._forget()
        self.has_predictions = False


def evaluate_network(wish: Wish, report: Reporter) -> EvaluationResult:
    """Evaluate a network in memory.

    Raises:
        CorobenchError: anything a user can fix; a broken clause of the contract by its name.
        EvaluationInterrupted: stopped by the keyboard, with what was found so far.
    """
    track = wish.track
    copied = networks.measured_copy(wish.model, track.shape)
    with exact_float32():
        device = resolve_device(str(wish.device or networks.device_of(copied)))
        copied = copied.to(device)
        dataset = load_test(track.name, wish.data_root)
        images, labels, indices = subset(dataset, wish.n)
        x = torch.from_numpy(np.ascontiguousarray(images)).to(device)
        y = torch.from_numpy(np.ascontiguousarray(labels)).to(device)
        check_contract(copied, x, track.num_classes, wish.name, names=indices.tolist())
        run = _run(wish, copied, dataset, device)
        chunks = _chunks(wish.cache, run, networks.fingerprint(copied, _logits(copied, x)))
        with report as progress:
            if chunks.folder.is_dir():
                progress.say("resuming from finished chunks")
            work = _Work(wish, copied, x, y, run, chunks, progress)
            try:
                run = work.all_stages()
            except KeyboardInterrupt:
                raise EvaluationInterrupted(work.result(indices, labels, False)) from None
        result = work.result(indices, labels, True)
    assert result is not None, "all stages are done"
    chunks.discard()
    return result


class _Work:
    """The stages of one evaluation, and what is known of it at any time."""

    def __init__(
        self,
        wish: Wish,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        run: Run,
        chunks: ChunkStore,
        progress: Reporter,
    ) -> None:
        self._wish, self._model, self._x, self._y = wish, model, x, y
        self._run, self._chunks, self._progress = run, chunks, progress
        self._evaluation: _Evaluation | None = None

    def all_stages(self) -> Run:
        """Every stage of the protocol."""
        wish, device = self._wish, self._x.device
        other = self._equivalent()
        network = None if other is None else other.network
        prover, not_asked = self._certifiers(network)
        prepared = Prepared(
            self._model,
            self._x,
            self._y,
            wish.track,
            protocol=Protocol(),
            search=other,
            prover=prover,
            not_asked=not_asked,
        )
        self._evaluation = _Evaluation(
            prepared,
            epsilons=wish.epsilons,
            seed=wish.seed,
            chunks=self._chunks,
            report=self._progress,
        )
        self._evaluation.run()
        unseen = unseen_images(wish.track.name, wish.data_root, device)
        found = recognition.run_recognition_checks(self._evaluation, unseen)
        self._run = self._run.model_copy(update={"recognition": found})
        return self._run

    def _equivalent(self) -> SearchNetwork | None:
        try:
            found = equivalent(self._model, self._wish.track.shape, self._x[:CONTRACT_IMAGES])
        except Exception as error:  # a network of any architecture raises anything
            self._progress.say(f"searching on the network itself: {_short(error)}")
            return None
        if found is not None:
            self._progress.say(found.note(self._model))
            self._run = self._run.model_copy(update={"searched_on": found.kind})
        return found

    def _certifiers(self, network: nn.Module | None) -> tuple[Prover | None, dict[str, str]]:
        track = self._wish.track
        prover, not_asked = certifiers_of(
            self._model, network, track.shape, track.num_classes, Protocol()
        )
        if prover is None:
            self._progress.say(f"no certifier is asked: {next(iter(not_asked.values()))}")
        return prover, not_asked

    def result(
        self, indices: np.ndarray, labels: np.ndarray, is_finished: bool
    ) -> EvaluationResult | None:
        """What is known by now; None before every image has a prediction.

        Args:
            indices: int64 (n,), of the images in the test set.
            labels: int64 (n,).
            is_finished: whether all stages are done.
        """
        evaluation = self._evaluation
        if evaluation is None or not evaluation.has_predictions:
            return None
        facts = evaluation.facts
        not_asked = dict(facts.not_asked)
        if not is_finished:
            attacks = (evaluation.pgd().name, evaluation.autoattack().name)
            not_asked = close_early(facts, attacks, Protocol().all_certifiers)
        table, adversarial = drop_unused(outcome_table(facts, indices, labels), facts.adversarial)
        run = self._run.model_copy(
            update={
                "not_asked": not_asked,
                "audit": audit(facts, indices),
                "errors": errors(facts),
                "flags": {
                    epsilon: tuple(sorted(known.flags)) for epsilon, known in facts.epsilons.items()
                },
                "date": datetime.now(UTC).date().isoformat(),
                "seconds": Seconds(
                    **{key: round(spent, 3) for key, spent in facts.seconds.items()}
                ),
            }
        )
        return EvaluationResult(
            score(table, run),
            in_memory=True,
            is_finished=is_finished,
            table=table,
            adversarial=adversarial,
        )


def close_early(facts: Facts, attacks: Sequence[str], certifiers: Sequence[str]) -> dict[str, str]:
    """Let open images of an interrupted evaluation count as without an answer, never as robust.

    Args:
        facts: what is known; what is missing is filled in.
        attacks: of the protocol.
        certifiers: of the protocol.

    Returns:
        Certifier -> why it is not asked, with those that were still to come.
    """
    for known in facts.epsilons.values():
        missing = [name for name in attacks if name not in known.broken]
        for name in missing:
            known.broken[name] = np.zeros_like(facts.correct)
            known.unanswered[name] = facts.correct.copy()
        open_ = facts.correct & ~known.proven & ~known.attacked & (known.failed == "")
        if missing:
            known.failed[open_] = f"interrupted: {', '.join(missing)} was still to come"
    left = {
        name: "interrupted: it was still to come"
        for name in certifiers
        if any(name not in known.certified for known in facts.epsilons.values())
    }
    return left | facts.not_asked


def epsilons_of(epsilons: Sequence[str] | None, track: Track) -> tuple[str, ...]:
    """Radii as exact text, ascending; the track's by default.

    Raises:
        ConfigError: no radius, one that is no exact fraction, or one twice.
    """
    if epsilons is None:
        return track.epsilons
    if isinstance(epsilons, str):
        epsilons = epsilons.split(",")
    return distinct_epsilons(map(str, epsilons))


def _run(wish: Wish, model: nn.Module, dataset: Dataset, device: torch.device) -> Run:
    protocol = Protocol()
    sparsity = compactness.sparsity(model)
    run = Run(
        protocol=protocol.version,
        entry=identifier_of(wish.name),
        track=wish.track.name,
        n=wish.n,
        quick=True,
        epsilons=wish.epsilons,
        data=dataset.info,
        weights_sha256=networks.weights_sha256(model),
        seed=wish.seed,
        device=name_of(device, False),
        versions=versions(),
        settings=settings_of(protocol, wish.track),
        submission=_manifest(wish, model, sparsity),
        compactness=compactness.measure(model, wish.track.shape),
    )
    return run.model_copy(update={"identity": identity_of(run)})


def _manifest(wish: Wish, model: nn.Module, sparsity: float) -> Manifest:
    """What is known of a network that nobody described."""
    return check_manifest(
        {
            "schema": 1,
            "id": identifier_of(wish.name),
            "title": wish.name[:200],
            "authors": ["unknown"],
            "licence": "unknown",
            "track": wish.track.name,
            "sparsity": round(sparsity, 6),
            "model": {
                "architecture": networks.name_of(model)[:200],
                "weights": "in-memory",
                "num_classes": wish.track.num_classes,
            },
            "method": {
                "name": wish.name[:200],
                "pipeline": "none" if sparsity < DENSE_BELOW else "after",
                "pretrain_objective": "unknown",
            },
            "training": {"data": "unknown"},
        }
    )


def _chunks(cache: Path | None, run: Run, fingerprint: str) -> ChunkStore:
    """Finished chunks of this very network and evaluation, where a folder can be written.

    Raises:
        OutputError: `cache` was named and cannot be written.
    """
    import tempfile

    import platformdirs

    folder = cache or Path(platformdirs.user_cache_dir("corobench")) / "unfinished"
    try:
        prepare_folder(folder)
    except OutputError:
        if cache is not None:
            raise
        folder = Path(tempfile.gettempdir()) / "corobench-unfinished"
        prepare_folder(folder)
    return ChunkStore(folder, {"identity": run.identity, "network": fingerprint})


@torch.no_grad()
def _logits(model: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([model(part) for part in x.split(64)])


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]
