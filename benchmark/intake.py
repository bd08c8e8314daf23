"""What a pull request with a new entry must pass before anybody looks at it.

Everything here is measured from the files: faults of the folder, weights that are another entry's,
files that are not the entry's own, and a handed-in result that the weights do not keep.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from benchmark import store
from benchmark.compactness import stored_tensors
from benchmark.errors import ConfigError, ResultError, SubmissionError
from benchmark.evaluate import standard_subset
from benchmark.executors import run_evaluation, run_validation
from benchmark.executors.limits import Limits
from benchmark.gate.rule import Rule, Verdict
from benchmark.gate.run import Checked, check
from benchmark.records import Outcome, Result
from benchmark.scoring import bracket
from benchmark.settings import Evaluated, Settings
from benchmark.submission import Submission, load_submission
from benchmark.submission.contract import RELATIVE_TOLERANCE
from benchmark.tracks import PROTOCOL

#: Of the processes that work on a stranger's entry.
LIMITS = Limits()
RESULTS = Path("leaderboard") / "results"
#: Random images on which entries are compared.
NUM_COMPARED = 16
ENDINGS = ("json", "outcomes.parquet", "adversarial.npz")


@dataclass(frozen=True)
class Intake:
    """What was found about a new entry that has no fault.

    Attributes:
        evaluated: its result on the subset that was asked for.
        claim: how the measured outcomes compare with those handed in; None where none were.
        neighbours: results of the same track and n around it, best first, it among them; empty
            where its n is not the board's.
    """

    evaluated: Evaluated
    claim: Checked | None
    neighbours: tuple[Result, ...]


def changed_files(base: str, root: Path) -> list[str]:
    """Files that differ from a git revision, as paths below `root`.

    Raises:
        ConfigError: git does not know the revision, or is not there.
    """
    command = ["git", "diff", "--name-only", "--end-of-options", f"{base}...HEAD"]
    try:
        done = subprocess.run(  # noqa: S603 (no shell; the revision is one argument)
            command, cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        raise ConfigError(
            f"--base {base}: git cannot compare with it ({reason.strip()})"
        ) from error
    return done.stdout.splitlines()


def find_faults(folder: Path, others: Iterable[Path], changed: Sequence[str]) -> list[str]:
    """All reasons to refuse a new entry without evaluating it.

    Args:
        folder: of the entry.
        others: folders of the entries that are there.
        changed: files of the pull request; empty where they are not known.
    """
    others = list(others)
    found = run_validation(folder, LIMITS)  # before anything of it is loaded in this process
    if found:
        return found
    try:
        entry = load_submission(folder)
    except SubmissionError as error:
        return list(error.faults)
    faults = []
    manifest = entry.manifest
    if manifest.licence.strip().lower() in ("unknown", "none", ""):
        faults.append(
            "submission.toml: `licence`: expected the licence of the weights, such as MIT, but "
            f"found {manifest.licence!r}; others may not use weights without one"
        )
    board = {other.name: _loaded(other) for other in others if other.resolve() != folder.resolve()}
    for name, other in board.items():
        if other is not None and (likeness := _likeness(entry, other)):
            faults.append(f"{manifest.model.weights}: {likeness} {name}")
    if manifest.parent is not None and manifest.parent not in board:
        faults.append(
            f"submission.toml: `parent`: {manifest.parent!r} is no entry here; hand it in first"
        )
    parent = board.get(manifest.parent or "")
    if parent is not None:
        faults += _misfits(entry, parent)
    faults += [
        f"{name}: is not the entry's own; a pull request holds submissions/{manifest.id}/ and its "
        "three result files, and nothing else"
        for name in changed
        if not _is_own(PurePosixPath(name), entry)
    ]
    return faults


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
        found, expected = entry.model(images), other.model(images)
    scale = max(1.0, float(expected.abs().max()))
    is_same = float((found - expected).abs().max()) <= RELATIVE_TOLERANCE * scale
    return "computes the same as, and is not smaller than," if is_same else ""


def _misfits(entry: Submission, parent: Submission) -> list[str]:
    """Why an entry cannot have been compressed from the parent that it names."""
    name = parent.manifest.id
    if parent.track != entry.track:
        return [
            f"submission.toml: `parent`: {name!r} is an entry of {parent.track.name}, not of "
            f"{entry.track.name}"
        ]
    left, before = (_num_nonzero(one) for one in (entry, parent))
    if left <= before:
        return []
    return [
        f"submission.toml: `parent`: expected an entry that this one was compressed from, but "
        f"{name!r} has {before:,} parameters that are not zero and this one {left:,}"
    ]


def _num_nonzero(entry: Submission) -> int:
    return sum(int(tensor.count_nonzero()) for tensor in stored_tensors(entry.model))


def _is_own(path: PurePosixPath, entry: Submission) -> bool:
    name = entry.manifest.id
    if path.parts[:2] == ("submissions", name):
        return True
    place = PurePosixPath("leaderboard", "results", PROTOCOL, entry.track.name)
    return path in {place / f"{name}.{ending}" for ending in ENDINGS}


def take_in(
    folder: Path,
    *,
    others: Iterable[Path],
    results: Path,
    out: Path,
    full: bool = False,
    changed: Sequence[str] = (),
    device: str = "cpu",
    data_root: Path | None = None,
) -> Intake:
    """Refuse a new entry, or evaluate it and say where it would stand.

    Args:
        folder: of the entry.
        others: folders of the entries that are there.
        results: the board's results, where a handed-in result would lie, too.
        out: gets the result that is measured here.
        full: the standard subset instead of the smallest one.
        changed: files of the pull request; empty where they are not known.
        device: for evaluating.
        data_root: folder of the dataset, or None for the usual search.

    Raises:
        SubmissionError: all faults.
        ResultError: the handed-in result belongs to other weights, or claims too much.
    """
    faults = find_faults(folder, others, changed)
    if faults:
        raise SubmissionError(folder, faults)
    entry = load_submission(folder)
    track = entry.track
    n = standard_subset(track) if full else track.subsets[0]
    settings = Settings(n=n, device=device, data_root=data_root, out=out)
    claimed = results / PROTOCOL / track.name / f"{entry.manifest.id}.json"
    if claimed.is_file():
        stated = store.read_result(claimed)
        if stated.weights_sha256 != entry.weights_sha256:
            raise ResultError(f"{claimed}: belongs to other weights than {folder}")
    evaluated = run_evaluation(folder, settings, LIMITS)
    claim = None
    if claimed.is_file():
        claim = check(evaluated.path, claimed, Rule(), even_if_equal=True)
        if claim.verdict == Verdict.FAIL:
            failing = [one.paired.name for one in claim.judged if one.verdict == Verdict.FAIL]
            raise ResultError(
                f"{claimed}: claims more than {evaluated.path} measures, beyond chance: "
                f"{', '.join(failing)}"
            )
    return Intake(evaluated, claim, _neighbours(evaluated.result, results))


def _neighbours(new: Result, results: Path, around: int = 2) -> tuple[Result, ...]:
    """The new result among those of its board at the largest epsilon, and the nearest ones."""
    board = [new]
    for path in sorted((results / new.protocol / new.track).glob("*.json")):
        other = store.read_result(path)
        comparable = (other.n, other.data.kind, list(other.epsilons)) == (
            new.n,
            new.data.kind,
            list(new.epsilons),
        )
        if comparable and other.entry != new.entry and not other.is_frozen:
            board.append(other)
    if len(board) == 1:
        return ()
    board.sort(key=_rank)
    place = board.index(new)
    return tuple(board[max(0, place - around) : place + around + 1])


def _rank(result: Result) -> tuple[int, int, int]:
    """More certified, then more not attacked, then fewer non-zeros, as on the page."""
    low, high = bracket(list(result.epsilons.values())[-1])
    return -low, -high, result.compactness.num_nonzero


def markdown(found: Intake) -> str:
    """A summary for the pull request."""
    result = found.evaluated.result
    lines = [f"### corobench: {result.entry} on {result.track}, n = {result.n}", ""]
    lines += [
        "| epsilon | proven at least | at most | undecided | flags |",
        "|---|---:|---:|---:|---|",
    ]
    for epsilon, score in result.epsilons.items():
        low, high = (f"{100 * end / result.n:.1f} %" for end in bracket(score))
        flags = ", ".join(score.flags) or "none"
        lines.append(
            f"| {epsilon} | {low} | {high} | {score.counts[Outcome.UNDECIDED]} | {flags} |"
        )
    size = result.compactness
    clean = f"Clean {100 * result.clean / result.n:.1f} %"
    left = f"{size.num_nonzero:,} of {size.num_parameters:,} parameters left"
    lines += ["", f"{clean}; {left}; {size.bytes_packed:,} bytes packed."]
    if result.quick:
        lines += ["", "A quick look: it is never ranked. A maintainer asks for the full one."]
    if found.claim is not None:
        lines += ["", f"The handed-in result agrees on {found.claim.n} images."]
    if found.neighbours:
        lines += ["", "| entry | proven at least | at most | non-zero |", "|---|---:|---:|---:|"]
        for other in found.neighbours:
            low, high = (
                f"{100 * end / other.n:.1f} %" for end in bracket(list(other.epsilons.values())[-1])
            )
            name = f"**{other.entry}**" if other is result else other.entry
            lines.append(f"| {name} | {low} | {high} | {other.compactness.num_nonzero:,} |")
    return "\n".join(lines) + "\n"
