"""What a pull request with a new entry must pass before anybody looks at it.

Everything here is measured from the files: faults of the folder, weights that are another entry's,
files that are not the entry's own, and a handed-in result that the weights do not keep.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark import store
from benchmark.clean_images import find_fault, is_clean_images
from benchmark.errors import ConfigError, ResultError, SubmissionError
from benchmark.executors import (
    run_claim_check,
    run_evaluation,
    run_examination,
    run_validation,
)
from benchmark.executors.limits import Limits
from benchmark.gate.rule import Rule, Verdict
from benchmark.gate.run import Checked, check
from benchmark.records import Outcome, Result
from benchmark.reports import Examined
from benchmark.scoring import bracket, may_rank, rank_key
from benchmark.settings import Evaluated, Settings
from benchmark.tracks import PROTOCOL, get_track, parse_epsilon, round_of, standard_subset

#: Of the processes that work on a stranger's entry.
LIMITS = Limits()


@dataclass(frozen=True)
class Intake:
    """What was found about a new entry that has no fault.

    Attributes:
        evaluated: its result on the subset that was asked for.
        claim: how the measured outcomes compare with those handed in; None where none were.
        stands: the result that would stand on the board: the one measured, or, where that is
            quick, the one handed in; a quick one where there is none.
        board: results of the same track and n as `stands`, best first, it among them; empty where
            that is quick.
    """

    evaluated: Evaluated
    claim: Checked | None
    stands: Result
    board: tuple[Result, ...]


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


def examine(
    folder: Path,
    others: Iterable[Path],
    changed: Sequence[str],
    limits: Limits | None = LIMITS,
) -> Examined:
    """What an entry is, and all reasons to refuse it without evaluating it.

    Args:
        folder: of the entry.
        others: folders of the entries that are there.
        changed: files of the pull request; empty where they are not known.
        limits: of the processes that work on the entry; None for this one.
    """
    invalid = run_validation(folder, limits)
    if invalid:
        return Examined((*invalid, *_foreign(folder.name, changed)))
    return run_examination(folder, list(others), changed, limits)


def _foreign(name: str, changed: Sequence[str]) -> list[str]:
    """Changed files that no entry of this name may hold, whatever its manifest says."""
    return [
        f"{path}: is not the entry's own; a pull request holds submissions/{name}/ and its three "
        "result files, and nothing else"
        for path in changed
        if not path.startswith((f"submissions/{name}/", "leaderboard/results/"))
    ]


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
    limits: Limits | None = LIMITS,
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
        limits: of the processes that work on the entry; None for this one.

    Raises:
        SubmissionError: all faults.
        ResultError: the handed-in result belongs to other weights, may not be published, differs
            from its outcome table, or claims too much.
    """
    entry = examine(folder, others, changed, limits)
    if entry.faults:
        raise SubmissionError(folder, entry.faults)
    track = get_track(entry.track)
    n = standard_subset(track) if full else track.subsets[0]
    is_limited = limits is not None and limits.is_less_than(LIMITS)
    settings = Settings(n=n, device=device, data_root=data_root, out=out, is_limited=is_limited)
    place = results / round_of(PROTOCOL) / track.name
    pictures = [place / Path(name).name for name in changed if is_clean_images(Path(name))]
    wrong = [fault for path in pictures if (fault := find_fault(path, track.name, data_root))]
    if wrong:
        raise ResultError("\n".join(wrong))
    claims = _claims(entry, place, folder, data_root, limits)
    evaluated = run_evaluation(folder, settings, limits)
    claim = None
    for path in claims:
        claim = check(evaluated.path, path, Rule(), even_if_equal=True)
        failing = [one.paired.name for one in claim.judged if one.verdict == Verdict.FAIL]
        if claim.size.verdict == Verdict.FAIL:
            failing.append("packed bytes")
        if failing:
            raise ResultError(
                f"{path}: claims more than {evaluated.path} measures, beyond chance: "
                f"{', '.join(failing)}"
            )
    stands = evaluated.result
    if stands.quick and claims:
        stands = store.read_result(claims[0])
    return Intake(evaluated, claim, stands, board_of(stands, results))


def _claims(
    entry: Examined, place: Path, folder: Path, data_root: Path | None, limits: Limits | None
) -> list[Path]:
    """Handed-in results of an entry, the standard subset first.

    Raises:
        ResultError: one belongs to other weights, may not be published, or is at fault in any of
            its files.
    """
    claims = [path for path in (place / f"{entry.entry}.json",) if path.is_file()]
    claims += sorted(place.glob(f"{entry.entry}@*.json"))
    for path in claims:
        if store.read_result(path).weights_sha256 != entry.weights_sha256:
            raise ResultError(f"{path}: belongs to other weights than {folder}")
    name = place.parent.name
    faults = [
        fault for path in claims for fault in run_claim_check(path, folder, name, data_root, limits)
    ]
    if faults:
        raise ResultError("\n".join(["a handed-in result may not be published", *faults]))
    return claims


def board_of(new: Result, results: Path) -> tuple[Result, ...]:
    """A result among those of its board, best first at the largest epsilon; empty for a quick one.

    Args:
        new: the result; an older one of the same entry is left out.
        results: folder of the rounds.
    """
    if new.quick:
        return ()
    board = [new]
    for path in sorted((results / round_of(new.protocol) / new.track).glob("*.json")):
        other = store.read_result(path)
        if may_rank(other) and other.entry != new.entry and _images(other) == _images(new):
            board.append(other)
    epsilon = max(new.epsilons, key=parse_epsilon)
    board.sort(key=lambda result: (*rank_key(result, epsilon), result.entry))
    return tuple(board)


def _images(result: Result) -> tuple[int, str, str]:
    return result.n, result.data.kind, result.data.fingerprint


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
    if not found.board:
        lines += ["", "It was handed in without a result, so there is no place on the board yet."]
    if found.claim is not None:
        lines += ["", f"The handed-in result agrees on {found.claim.n} images."]
    if found.board and found.stands is not result:
        lines += [
            "",
            "The place on the board is the handed-in result's, until it is evaluated in full.",
        ]
    if found.board:
        lines += _board_diff(found.stands, found.board)
    return "\n".join(lines) + "\n"


def _board_diff(new: Result, board: Sequence[Result], around: int = 3) -> list[str]:
    """The board with the new line marked, and the lines around it."""
    epsilon = max(new.epsilons, key=parse_epsilon)
    place = board.index(new)
    shown = range(max(0, place - around), min(len(board), place + around + 1))
    width = max(len(board[number].entry) for number in shown)
    title = f"The board at {epsilon}, n = {new.n}: proven at least – at most, non-zero parameters"
    lines = ["", title, "", "```diff"]
    for number in shown:
        other = board[number]
        low, high = (100 * end / other.n for end in bracket(other.epsilons[epsilon]))
        mark = "+" if number == place else " "
        lines.append(
            f"{mark} {other.entry:<{width}}  {low:5.1f} – {high:5.1f} %  "
            f"{other.compactness.num_nonzero:>12,}"
        )
    return [*lines, "```"]
