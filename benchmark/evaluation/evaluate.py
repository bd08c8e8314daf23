"""One submission in, one result out: loading, identity, evaluation and the files written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import torch

from corobench.benchmark.attacks.tf32 import is_close, require_gpu
from corobench.benchmark.data import Dataset, load_test, load_train, subset
from corobench.benchmark.data.clean_images import write_clean_images
from corobench.benchmark.errors import DatasetError, OutputError, ResultError
from corobench.benchmark.evaluation import recertify, recognition
from corobench.benchmark.evaluation.evidence import Evidence, find_damage
from corobench.benchmark.evaluation.facts import Facts
from corobench.benchmark.evaluation.identity import identify, name_of
from corobench.benchmark.evaluation.jobs import Executor
from corobench.benchmark.evaluation.outcomes import audit, drop_unused, errors, outcome_table
from corobench.benchmark.evaluation.pipeline import Evaluation
from corobench.benchmark.evaluation.prepared import check_images, prepare
from corobench.benchmark.evaluation.recertify import Recertification
from corobench.benchmark.evaluation.settings import Evaluated, Settings
from corobench.benchmark.evaluation.workbench import Setup, Workbench
from corobench.benchmark.files.atomic import prepare_folder
from corobench.benchmark.files.chunks import CHUNKS, ChunkStore
from corobench.benchmark.files.progress import Reporter
from corobench.benchmark.files.steps import LIMIT_OPTIONS, StepEndedError, Steps
from corobench.benchmark.network.device import exact_float32, one_thread, resolve_device
from corobench.benchmark.records.manifest import Manifest
from corobench.benchmark.records.reading.places import beside, result_stem
from corobench.benchmark.records.reading.result_file import read_scorecard
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.records.result import Outcome, Recognition, Result, Run, Seconds
from corobench.benchmark.records.result_set import OUTCOMES
from corobench.benchmark.scoring import result_writing, rounds
from corobench.benchmark.submission import load_submission
from corobench.benchmark.tracks import (
    Protocol,
    Track,
    distinct_epsilons,
    published_order,
    round_of,
    standard_subset,
)


@one_thread()
@exact_float32()
def evaluate(
    folder: Path,
    settings: Settings,
    report: Reporter | None = None,
    steps: Steps | None = None,
    executor: Callable[[Workbench], Executor] | None = None,
) -> Evaluated:
    """Evaluate a submission folder and write its result.

    Args:
        folder: with ``submission.toml`` and its weights.
        settings: what the user chose.
        report: progress; standard error by default.
        steps: told of each step; those that ended an earlier process are not tried again.
        executor: makes what computes the jobs of a workbench; by default this process does.

    Raises:
        CorobenchError: anything a user can fix; see its subclasses.
    """
    steps = steps or Steps()
    submission = load_submission(folder, settings.track)
    track, protocol = submission.track, settings.protocol
    before = None
    if settings.earlier is not None:
        before = recertify.load(settings.earlier, folder, settings.data_root)
        settings = recertify.settings_like(settings, before)
    epsilons = _epsilons(settings, track)
    n = settings.n or standard_subset(track)
    device = resolve_device(settings.device)
    if settings.tf32:
        require_gpu(device)
    dataset = load_test(track.name, settings.data_root)
    images, labels, indices = subset(dataset, n)
    checked = check_images(submission, images, labels, device, steps, folder, indices.tolist())
    steps.begin("measure")

    in_tf32 = settings.tf32 and checked.ended is None and is_close(checked.model, checked.first)
    device_name = name_of(device, in_tf32)
    earlier = None if before is None else recertify.record_of(before)
    run = identify(submission, dataset, n, epsilons, settings, protocol, device_name, earlier)
    path = result_path(settings.out, run, track)
    about = {"entry": run.entry, "track": run.track, "n": run.n}
    chunks = ChunkStore(settings.out / CHUNKS, {"identity": run.identity}, about)
    told: list[str] = []
    existing = _existing(path, run, settings, told.append)
    if existing is not None:
        chunks.discard()  # a kill right after the writing left them
        if existing.submission != run.submission:
            existing = _with_manifest(path, run.submission)
        return Evaluated(existing, path, reused=True)
    rounds.require_open(path.parent)
    prepare_folder(path.parent)

    with report or Reporter(run.entry) as progress:
        if chunks.folder.is_dir():
            told.append("continuing from finished chunks")
        if settings.tf32 and not in_tf32:
            told.append("searching in float32, because TF32 changes the logits too much")
        for line in told:
            progress.say(line)
        prepared = prepare(checked, protocol, steps, searches_in_tf32=in_tf32, say=progress.say)
        if prepared.search is not None:
            run = run.model_copy(update={"searched_on": prepared.search.kind})
        kind = Evaluation if before is None else partial(Recertification, evidence=before)
        evaluation = kind(
            prepared,
            epsilons=epsilons,
            seed=settings.seed,
            chunks=chunks,
            report=progress,
            steps=steps,
            executor=executor,
            setup=setup_of(run, protocol, in_tf32, steps),
        )
        facts = evaluation.run()
        recognised = _recognition(evaluation, settings.data_root, steps)
        run = run.model_copy(update={"recognition": recognised})
    if steps.ended_early and settings.is_limited:
        run = run.model_copy(update={"quick": True})
    write_clean_images(path.parent, run.data.fingerprint, images, indices)
    result = _write(path, run, facts, dataset, indices, labels, before)
    chunks.discard()
    return Evaluated(result, path, reused=False)


def setup_of(run: Run, protocol: Protocol, in_tf32: bool, steps: Steps) -> Setup:
    """By which another process makes the same workbench."""
    ended = {name: list(reason) for name, reason in steps.ended.items()}
    return Setup(run.track, asdict(protocol), run.seed, in_tf32, run.weights_sha256, ended)


def _recognition(
    evaluation: Evaluation, data_root: Path | None, steps: Steps
) -> Recognition | None:
    """Whether the network knows the published images; None where nothing can be asked of it."""
    if evaluation.prepared.ended is not None:
        return None
    try:
        steps.begin("recognition")
    except StepEndedError:
        return None
    unseen = unseen_images(evaluation.track.name, data_root, evaluation.x.device)
    return recognition.run_recognition_checks(evaluation, unseen)


def unseen_images(
    track: str, data_root: Path | None, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """A part of the training set in an order of its own; None where it is not at hand."""
    try:
        train = load_train(track, data_root)
    except DatasetError:
        return None
    rows = published_order(f"{track}-unseen", len(train))[: recognition.NUM_UNSEEN]
    labels = train.labels[np.asarray(rows)]
    return torch.from_numpy(train.take(rows)).to(device), torch.from_numpy(labels).to(device)


def result_path(out: Path, run: Run, track: Track) -> Path:
    """Where the result of a run lies below `out`."""
    stem = result_stem(run.entry, run.n, standard_subset(track))
    return out / round_of(run.protocol) / run.track / f"{stem}.json"


def _epsilons(settings: Settings, track: Track) -> tuple[str, ...]:
    if settings.epsilons is None:
        return track.epsilons
    return distinct_epsilons(settings.epsilons)


def _with_manifest(path: Path, manifest: Manifest) -> Result:
    """The result there with another manifest: a title or a parent changes no number."""
    rounds.require_open(path.parent)
    table, run = read_outcomes(beside(path, OUTCOMES))
    return result_writing.write_set(path, table, run.model_copy(update={"submission": manifest}))


def _is_cut_short(result: Result) -> bool:
    """Whether limits below the usual ones ended steps of it: it is quick, and images or certifiers
    have no answer.
    """
    texts = (*result.not_asked.values(), *result.errors)
    timeouts = sum(score.counts.get(Outcome.TIMEOUT, 0) for score in result.epsilons.values())
    is_named = any(option in text for text in texts for option in LIMIT_OPTIONS)
    return result.quick and (timeouts > 0 or is_named)


def _existing(
    path: Path, run: Run, settings: Settings, say: Callable[[str], None]
) -> Result | None:
    """The very same result, if it is there whole; another one is never overwritten unasked.

    One that lower limits cut short is evaluated again where the limits are the usual ones. One
    whose table or images are missing or damaged is evaluated again, which mends it. It is not where
    a contest tightened it, for what somebody else found would be lost.
    """
    if result_writing.is_unfinished(path):
        rounds.require_open(path.parent)
        if result_writing.finish_set(path):
            say("finished an interrupted write")
    if settings.force or not path.exists():
        return None
    try:
        result = read_scorecard(path)
    except ResultError as error:
        raise OutputError(f"{error}\nUse --force to replace it.") from error
    if result.identity != run.identity:
        raise OutputError(
            f"{path}: holds another result of {run.entry!r} (weights, data, epsilons, settings, "
            "seed, versions or device differ); use --force to replace it, or another --out"
        )
    damage = find_damage(path, result)
    if not damage and not settings.is_limited and _is_cut_short(result):
        damage = f"{path}: lower limits ended some of its steps"
    if not damage:
        return result
    if result.contests:
        raise OutputError(
            f"{damage}\nThe result was tightened by contests, and an evaluation does not find "
            "their images again. Restore the three files from a copy, or use --force to evaluate "
            "without them."
        )
    say(f"repairing: {damage}")
    return None


def _write(
    path: Path,
    run: Run,
    facts: Facts,
    dataset: Dataset,
    indices: np.ndarray,
    labels: np.ndarray,
    before: Evidence | None,
) -> Result:
    """The set of three files."""
    table, images = drop_unused(outcome_table(facts, indices, labels), facts.adversarial)
    if before is not None:
        table, images = recertify.in_stored_order(table, images, before)
    run = run.model_copy(
        update={
            "not_asked": facts.not_asked,
            "audit": audit(facts, indices),
            "errors": errors(facts),
            "halved_batches": facts.num_halved or None,
            "flags": {
                epsilon: tuple(sorted(known.flags)) for epsilon, known in facts.epsilons.items()
            },
            "date": datetime.now(UTC).date().isoformat(),
            "seconds": Seconds(**{key: round(value, 3) for key, value in facts.seconds.items()}),
        }
    )
    return result_writing.write_set(path, table, run, images, dataset)
