"""Why a new entry is refused before it is evaluated, found from its files and the others'."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import torch

from corobench.benchmark.data import load_test, subset
from corobench.benchmark.data.clean_images import is_clean_images
from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.records.reading.places import result_stem
from corobench.benchmark.records.reports import Examined
from corobench.benchmark.records.result_set import ENDINGS
from corobench.benchmark.records.trainings import training_of
from corobench.benchmark.submission import Submission, load_submission
from corobench.benchmark.submission.headers import unknown_faults
from corobench.benchmark.submission.likeness import (
    NUM_ORDERED,
    is_near,
    likeness,
    num_nonzero,
    orders,
)
from corobench.benchmark.tracks import PROTOCOL, round_of, standard_subset


def examine(
    folder: Path,
    others: Iterable[Path],
    changed: Sequence[str],
    data_root: Path | None = None,
) -> Examined:
    """All reasons to refuse a valid new entry.

    Args:
        folder: of the entry.
        others: folders of the entries that are there.
        changed: files of the pull request; empty where they are not known.
        data_root: folder of the dataset, or None for the usual search.

    Raises:
        DatasetError: the images on which entries are compared are missing or broken.
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
        board[other.name] = _loaded(other)
    parent = board.get(manifest.parent or "")
    for loaded in board.values():
        if loaded is not None and (how := likeness(entry, loaded, parent)):
            faults.append(f"{manifest.model.weights}: {how}")
    if manifest.parent is not None and manifest.parent not in board:
        faults.append(
            f"submission.toml: `parent`: {manifest.parent!r} is not an entry here; submit it first"
        )
    if parent is not None:
        faults += _misfits(entry, parent)
    same, notes = _seeds(entry, board)
    faults += same
    faults += [
        f"{name}: is not part of the entry; a pull request holds submissions/{manifest.id}/ and "
        "its "
        "three result files, and nothing else"
        for name in changed
        if not _is_own(PurePosixPath(name), entry)
    ]
    if not faults:
        notes += _near(entry, board, data_root)
    return Examined(tuple(faults), manifest.id, entry.track.name, entry.weights_sha256, notes)


def _loaded(other: Path) -> Submission | None:
    """Another entry; None where it is broken, which is not this one's fault."""
    try:
        return load_submission(other)
    except SubmissionError:
        return None


def _near(
    entry: Submission, board: Mapping[str, Submission | None], data_root: Path | None
) -> tuple[str, ...]:
    """Entries that compute nearly what this one does, but its parent and what was made of that."""
    images, _, _ = subset(load_test(entry.track.name, data_root), NUM_ORDERED)
    asked = torch.from_numpy(images)
    mine, parent = orders(entry, asked), entry.manifest.parent or ""
    near = {}
    for name, other in board.items():
        if other is None or other.track != entry.track:
            continue
        if is_near(mine, theirs := orders(other, asked)):
            near[name] = theirs, ", ".join(other.manifest.authors)
    if parent in near:
        above = near[parent][0]
        near = {name: one for name, one in near.items() if not is_near(above, one[0])}
    return tuple(
        f"it computes nearly what {name} does, by {authors}, as a copy would that was changed a "
        "little. Ask how it was made"
        for name, (_, authors) in near.items()
    )


def _seeds(
    entry: Submission, board: Mapping[str, Submission | None]
) -> tuple[list[str], tuple[str, ...]]:
    """Entries that say they are the same training: a fault for one with the same seed, a note for
    others, whose seeds would share a line of the board with this one."""
    manifest = entry.manifest
    if manifest.training.seed is None:
        return [], ()
    named = {name: (one.manifest, one.format) for name, one in board.items() if one is not None}
    own = training_of((manifest, entry.format), named)
    faults, others = [], []
    for name, told in sorted(named.items()):
        seed = told[0].training.seed
        if seed is None or training_of(told, named) != own:
            continue
        others.append(f"{name} (seed {seed})")
        if seed == manifest.training.seed:
            faults.append(
                f"submission.toml: `training.seed`: {name} says that it is seed {seed} of this "
                "very training, by the same authors; state the seed of this one, or give "
                "`method.name` and `title` names of its own"
            )
    if not others:
        return faults, ()
    by = ", ".join(manifest.authors)
    return faults, (
        f"it says that it is one more seed of a training by {by}, and would count as one: "
        f"{', '.join(others)}. Ask them whether it is",
    )


def _misfits(entry: Submission, parent: Submission) -> list[str]:
    """Why an entry cannot have been compressed from the parent that it names."""
    name = parent.manifest.id
    if parent.track != entry.track:
        return [
            f"submission.toml: `parent`: {name!r} is an entry of {parent.track.name}, not of "
            f"{entry.track.name}"
        ]
    left, before = (num_nonzero(one) for one in (entry, parent))
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
