"""What a pull request with a new entry must pass before anybody looks at it.

Everything here is measured from the files: faults of the folder, weights that are another entry's,
files that are not the entry's own, and a handed-in result that does not hold: what it claims of
every image is measured again (`benchmark.review.verification`).
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from corobench.benchmark.data.clean_images import find_fault, is_clean_images
from corobench.benchmark.errors import ConfigError, ResultError, SubmissionError
from corobench.benchmark.evaluation.settings import Evaluated, Settings
from corobench.benchmark.executors import run_evaluation, run_examination, run_validation
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.executors.looking_again import run_verification
from corobench.benchmark.gate.rule import Rule, Verdict
from corobench.benchmark.gate.run import Checked, compare_with_baseline
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reports import Examined, Verified
from corobench.benchmark.records.result import Outcome, Result
from corobench.benchmark.records.result_set import ENDINGS
from corobench.benchmark.review.verification.chance import HIDDEN_RATE, MISS_RATE
from corobench.benchmark.scoring.ranking import bracket, may_rank, rank_key, was_asked
from corobench.benchmark.tracks import PROTOCOL, get_track, parse_epsilon, round_of, standard_subset

#: Of the report that `corobench intake` writes.
SCHEMA = "corobench.intake/1"
#: Of the processes that work on a stranger's entry.
LIMITS = Limits()


@dataclass(frozen=True)
class Intake:
    """What was found about a new entry that has no fault.

    Attributes:
        evaluated: its result on the subset that was asked for.
        verified: handed-in results, each of whose claims was measured again.
        claim: how the measured outcomes compare with those handed in; None where none were.
        stands: the result that would stand on the board: the one measured, or, where that is
            quick, the one handed in; a quick one where there is none.
        board: results of the same track and n as `stands`, best first, it among them; empty where
            that is quick.
        notes: what whoever merges it must ask.
    """

    evaluated: Evaluated
    verified: tuple[Verified, ...]
    claim: Checked | None
    stands: Result
    board: tuple[Result, ...]
    notes: tuple[str, ...] = ()


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
    data_root: Path | None = None,
) -> Examined:
    """What an entry is, and all reasons to refuse it without evaluating it.

    Args:
        folder: of the entry.
        others: folders of the entries that are there.
        changed: files of the pull request; empty where they are not known.
        limits: of the processes that work on the entry; None for this one.
        data_root: folder of the dataset, or None for the usual search.
    """
    invalid = run_validation(folder, limits)
    if invalid:
        return Examined((*invalid, *_foreign(folder.name, changed)))
    return run_examination(folder, list(others), changed, limits, data_root=data_root)


def _foreign(name: str, changed: Sequence[str]) -> list[str]:
    """Changed files that no entry of this name may hold, whatever its manifest says."""
    return [
        f"{path}: is not part of the entry; a pull request holds submissions/{name}/ and its three "
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
    seed: int | None = None,
    hidden_rate: float = HIDDEN_RATE,
    miss_rate: float = MISS_RATE,
) -> Intake:
    """Refuse a new entry, or verify its result, evaluate it and say where it would stand.

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
        seed: of what is attacked of a handed-in result, and of the attacks; to repeat an intake.
            By default the system draws one, so that nobody can know it before.
        hidden_rate: share of the images of a result that a forger hides.
        miss_rate: largest chance to attack none of them.

    Raises:
        SubmissionError: all faults.
        ResultError: the handed-in result belongs to other weights, may not be published, differs
            from its outcome table, or claims what does not hold.
    """
    entry = examine(folder, others, changed, limits, data_root)
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
    claims = _claims(entry, place)
    chances = {"hidden_rate": hidden_rate, "miss_rate": miss_rate}
    where = {"device": device, "data_root": data_root}
    drawn = secrets.randbits(62) if seed is None else seed
    verified = tuple(
        _verify(path, folder, out, limits, seed=drawn, **chances, **where) for path in claims
    )
    evaluated = run_evaluation(folder, settings, limits)
    claim = None
    for path in claims:
        claim = _compare(evaluated, path)
    stands = evaluated.result
    if stands.quick and claims:
        stands = read_result(claims[0])
    return Intake(evaluated, verified, claim, stands, board_of(stands, results), entry.notes)


def _claims(entry: Examined, place: Path) -> list[Path]:
    """Handed-in results of an entry, the standard subset first.

    Raises:
        ResultError: a file of a result without the result file itself.
    """
    own = re.compile(
        rf"({re.escape(entry.entry)}(?:@[^.]*)?)\.({'|'.join(map(re.escape, ('json', *ENDINGS)))})"
    )
    found = [own.fullmatch(path.name) for path in place.iterdir()] if place.is_dir() else []
    stems = {one[1] for one in found if one}
    claims = [
        place / f"{stem}.json" for stem in sorted(stems, key=lambda stem: ("@" in stem, stem))
    ]
    missing = [
        f"{path}: expected the result file of the files beside it, but there is none"
        for path in claims
    ]
    missing = [line for line, path in zip(missing, claims, strict=True) if not path.is_file()]
    if missing:
        raise ResultError("\n".join(missing))
    return claims


def _verify(path: Path, folder: Path, out: Path, limits: Limits | None, **more: Any) -> Verified:
    """Measure a handed-in result again; images that break are moved to `out`."""
    with tempfile.TemporaryDirectory(prefix="corobench-") as room:
        try:
            found = run_verification(path, folder, limits, out=Path(room), **more)
            return replace(found, found=found.found.replace(room, str(out)))
        except ResultError as error:
            raise ResultError(error.message.replace(room, str(out))) from error
        finally:
            for image in sorted(Path(room).glob("*.npz")):
                out.mkdir(parents=True, exist_ok=True)
                shutil.move(image, out / image.name)


def _compare(evaluated: Evaluated, path: Path) -> Checked:
    """Outcomes measured on the subset that was evaluated here, with those of the result.

    Raises:
        ResultError: it claims more, beyond chance, or is about other images
            (`benchmark.scoring.scored.require_join`).
    """
    claim = compare_with_baseline(evaluated.path, path, Rule(), even_if_equal=True)
    failing = [one.paired.name for one in claim.judged if one.verdict == Verdict.FAIL]
    if claim.size.verdict == Verdict.FAIL:
        failing.append("packed bytes")
    if failing:
        raise ResultError(
            f"{path}: claims more than {evaluated.path} measures, beyond chance: "
            f"{', '.join(failing)}"
        )
    return claim


def board_of(new: Result, results: Path) -> tuple[Result, ...]:
    """A result among those of its board, best first at the largest epsilon; empty for a quick one.

    Args:
        new: the result; an older one of the same entry is left out.
        results: folder of the rounds.
    """
    if new.quick:
        return ()
    board = [new]
    for path in sorted((results / round_of(new.protocol) / new.track).glob("[!.]*.json")):
        other = read_result(path)
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
        low = low if was_asked(score) else "no certifier was asked"
        flags = ", ".join(score.flags) or "none"
        lines.append(
            f"| {epsilon} | {low} | {high} | {score.counts[Outcome.UNDECIDED]} | {flags} |"
        )
    size = result.compactness
    clean = f"Clean {100 * result.clean / result.n:.1f} %"
    left = f"{size.num_nonzero:,} of {size.num_parameters:,} parameters left"
    lines += ["", f"{clean}; {left}; {size.bytes_packed:,} bytes packed."]
    if result.quick:
        lines += [
            "",
            "This result is quick and never ranked. A maintainer can ask for the full evaluation.",
        ]
    if not found.board:
        lines += ["", "The entry came without a result, so it has no place on the board yet."]
    for note in found.notes:
        lines += ["", f"Note: {note}."]
    for one in found.verified:
        lines += ["", *_verified(one)]
    if found.claim is not None:
        lines += ["", f"The evaluation here agrees with it on {result.n} images."]
    if found.board and found.stands is not result:
        lines += [
            "",
            "The place on the board is that of the handed-in result, until the entry is evaluated "
            "in full.",
        ]
    if found.board:
        lines += _board_diff(found.stands, found.board)
    return "\n".join(lines) + "\n"


def _verified(found: Verified) -> list[str]:
    """What was measured again of a handed-in result, for people."""
    lines = [
        f"{found.path.name} is confirmed: all {found.n} predictions and {found.num_certified} "
        f"certificates checked again, {found.num_rechecked} adversarial images measured again, "
        f"{found.num_drawn} of {found.population} images that are neither broken nor proven "
        f"and {found.num_audited} certificates attacked. Had {found.hidden} of the "
        f"{found.population} been hidden, the chance to draw none was "
        f"{100 * found.miss_rate:.2g} %. Seed {found.seed}."
    ]
    if found.lucky:
        lines += [
            "",
            f"{len(found.lucky)} broke only under new random starts, which is chance; `corobench "
            f"contest` adds them ({found.found}).",
        ]
    for note in found.notes:
        lines += ["", f"Note: {note}."]
    return lines


def as_json(found: Intake) -> str:
    """The report of an intake: what was measured again, and the seed that repeats it."""
    content = {
        "schema": SCHEMA,
        "entry": found.evaluated.result.entry,
        "track": found.evaluated.result.track,
        "measured": str(found.evaluated.path),
        "notes": list(found.notes),
        "verified": [asdict(one) | {"path": str(one.path)} for one in found.verified],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


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
        proven = f"{low:5.1f}" if was_asked(other.epsilons[epsilon]) else "    ?"
        mark = "+" if number == place else " "
        lines.append(
            f"{mark} {other.entry:<{width}}  {proven} – {high:5.1f} %  "
            f"{other.compactness.num_nonzero:>12,}"
        )
    return [*lines, "```"]
