"""Why a new entry is refused before it is evaluated, found from its files and the others'."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import torch

from corobench.benchmark.data.clean_images import is_clean_images
from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.network.compactness import stored_tensors
from corobench.benchmark.records.reading.places import result_stem
from corobench.benchmark.records.reports import Examined
from corobench.benchmark.records.result_set import ENDINGS
from corobench.benchmark.submission import Submission, load_submission
from corobench.benchmark.submission.contract import RELATIVE_TOLERANCE
from corobench.benchmark.submission.headers import unknown_faults
from corobench.benchmark.tracks import PROTOCOL, round_of, standard_subset

#: Random images on which entries are compared.
NUM_COMPARED = 16


def examine(folder: Path, others: Iterable[Path], changed: Sequence[str]) -> Examined:
    """All reasons to refuse a valid new entry.

    Args:
        folder: of the entry.
        others: folders of the entries that are there.
        changed: files of the pull request; empty where they are not known.
    """
    try:
        entry = load_submission(folder)
    except SubmissionError as error:
        return Examined(error.faults)
    manifest = entry.manifest
    faults = unknown_faults(manifest)
    board: dict[str, Submission | None] = {}
    for other in others:
        if other.resolve() == folder.resolve():
            continue
        if other.name == manifest.id:
            faults.append(
                f"submission.toml: `id`: {manifest.id!r} already exists, and no entry is "
                "replaced; choose another id"
            )
            continue
        board[other.name] = loaded = _loaded(other)
        if loaded is not None and (likeness := _likeness(entry, loaded)):
            faults.append(f"{manifest.model.weights}: {likeness} {other.name}")
    if manifest.parent is not None and manifest.parent not in board:
        faults.append(
            f"submission.toml: `parent`: {manifest.parent!r} is not an entry here; submit it first"
        )
    parent = board.get(manifest.parent or "")
    if parent is not None:
        faults += _misfits(entry, parent)
    faults += [
        f"{name}: is not part of the entry; a pull request holds submissions/{manifest.id}/ and "
        "its "
        "three result files, and nothing else"
        for name in changed
        if not _is_own(PurePosixPath(name), entry)
    ]
    return Examined(tuple(faults), manifest.id, entry.track.name, entry.weights_sha256)


def _loaded(other: Path) -> Submission | None:
    """Another entry; None where it is broken, which is not this one's fault."""
    try:
        return load_submission(other)
    except SubmissionError:
        return None


def _likeness(entry: Submission, other: Submission) -> str:
    """How an entry is another one's, if it is: by its weights, or by its outputs in another form.

    A smaller network with the same outputs, as `corobench compact` writes, is an entry of its own.
    """
    if other.weights_sha256 == entry.weights_sha256:
        return "the same effective weights as"
    if other.track != entry.track or _num_nonzero(entry) < _num_nonzero(other):
        return ""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(NUM_COMPARED, *entry.track.shape, generator=generator)
    with torch.no_grad():
        found, expected = (_normalised(one.model(images)) for one in (entry, other))
    is_same = float((found - expected).abs().max()) <= RELATIVE_TOLERANCE
    return "computes the same as, and is not smaller than," if is_same else ""


def _normalised(logits: torch.Tensor) -> torch.Tensor:
    """Logits (B, K) without what decides nothing: a summand per image, and one factor for all."""
    centred = logits.double() - logits.double().mean(dim=1, keepdim=True)
    return centred / centred.abs().max().clamp(min=1e-12)


def _misfits(entry: Submission, parent: Submission) -> list[str]:
    """Why an entry cannot have been compressed from the parent that it names."""
    name = parent.manifest.id
    if parent.track != entry.track:
        return [
            f"submission.toml: `parent`: {name!r} is an entry of {parent.track.name}, not of "
            f"{entry.track.name}"
        ]
    left, before = (_num_nonzero(one) for one in (entry, parent))
    if left > before:
        return [
            "submission.toml: `parent`: expected an entry that this one was compressed from, but "
            f"{name!r} has {before:,} non-zero parameters and this one {left:,}"
        ]
    pipeline = parent.manifest.method.pipeline
    if pipeline != "none":
        return [
            f"submission.toml: `parent`: expected a dense entry, but {name!r} was compressed "
            f"itself (method.pipeline = {pipeline!r}); name the dense one that it comes from"
        ]
    return []


def _num_nonzero(entry: Submission) -> int:
    return sum(int(tensor.count_nonzero()) for tensor in stored_tensors(entry.model))


def _is_own(path: PurePosixPath, entry: Submission) -> bool:
    name = entry.manifest.id
    if path.parts[:2] == ("submissions", name):
        return True
    place = PurePosixPath("leaderboard", "results", round_of(PROTOCOL), entry.track.name)
    standard = standard_subset(entry.track)
    stems = [result_stem(name, n, standard) for n in entry.track.subsets[1:]]
    if path.parent == place and is_clean_images(path):
        return True  # `evaluate` writes it; `take_in` looks into it
    return path in {place / f"{stem}.{ending}" for stem in stems for ending in ("json", *ENDINGS)}
