"""Result files as data frames: ``corobench.entries`` and ``corobench.leaderboard``.

From result files alone, without outcome tables: the rank groups of a page need those, and are not
here. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import pandas as pd

from corobench.benchmark.errors import ConfigError, ResultError
from corobench.benchmark.records.result import Result
from corobench.benchmark.scoring.ranking import bracket
from corobench.benchmark.tracks import Track, get_track, parse_epsilon, round_of, standard_subset
from corobench.leaderboard.boards import place_on_board
from corobench.leaderboard.discovery import find_result_files
from corobench.leaderboard.loading import read_alone

#: The results that corobench ships.
SHIPPED = Path(__file__).parent / "results"


def leaderboard(
    track: str,
    epsilon: str | Fraction | None = None,
    *,
    n: int | None = None,
    results: str | Path | None = None,
) -> pd.DataFrame:
    """The board of a track at one radius, as numbers: one row per entry.

    Newest round first, canonical images before mirrors, larger n first, and there as on the page:
    more proven, then more unbroken, then fewer non-zero parameters; last come entries of which
    nothing is proven because certifiers could not be asked. Rows of another round, data
    or n are not comparable (RULES.md). Whether neighbours can be told apart at all, the page says.

    Args:
        track: "digits", "fashion-mnist", "cifar10" or "svhn".
        epsilon: exact radius such as "8/255"; the track's largest by default.
        n: images; by default the track's standard subset, or what an entry has.
        results: a folder of result files, or one file; by default those that corobench ships.

    Returns:
        `entry`, `title`, `method`, `family`, `parent`, `architecture`, `seed` (of the training),
        `n`, `data`; `clean`, `certified`, `unbroken`, `pgd50`, `autoattack` in percent of n, and
        each as a count `num_...`; `epsilon`, `flags` (separated by commas), `frozen`,
        `num_parameters`, `num_nonzero`, `bytes_packed`, `bytes_stored` (smaller where a table of
        distinct values is), `macs_nonzero`, `protocol`, `device`, `date`. `certified` is missing
        where no certifier was asked.

    Raises:
        ConfigError: no such track, or a radius that it does not have.
        ResultError: no results are there, or a file is at fault; names it.

    >>> board = leaderboard("digits", "1/16")
    >>> bool((board["certified"] <= board["unbroken"]).all())
    True
    """
    chosen = get_track(track)
    radius = _radius(epsilon, chosen)
    found = _newest(_read(chosen, results), chosen, n)
    kept = [(result, text) for result in found if (text := _key(result, radius)) is not None]
    if not kept:
        raise ResultError(f"{track}: expected results at {radius}, but found none")
    kept.sort(key=lambda one: (_standing(one[0]), place_on_board(one[0], one[1]), one[0].entry))
    families = _families(found)
    rows = [_entry_row(result, families) | _epsilon_row(result, text) for result, text in kept]
    return _frame(rows, _ORDER)


def entries(track: str, *, n: int | None = None, results: str | Path | None = None) -> pd.DataFrame:
    """The entries of a track: what they are, what they weigh, how often they are right.

    Args:
        track: "digits", "fashion-mnist", "cifar10" or "svhn".
        n: images; by default the track's standard subset, or what an entry has.
        results: a folder of result files, or one file; by default those that corobench ships.

    Returns:
        The columns of :func:`leaderboard` that belong to no radius; one row per entry, newest
        round first, then by name.

    Raises:
        ConfigError: no such track.
        ResultError: no results are there, or a file is at fault; names it.

    >>> known = entries("digits")
    >>> known["entry"].is_unique, "digits-ibp-dense" in set(known["entry"])
    (True, True)
    """
    chosen = get_track(track)
    found = _newest(_read(chosen, results), chosen, n)
    families = _families(found)
    found.sort(key=lambda one: (_standing(one), one.entry))
    rows = [_entry_row(result, families) for result in found]
    return _frame(rows, [name for name in _ORDER if name in rows[0]])


_ORDER = (
    *("entry", "title", "method", "family", "parent", "architecture", "seed", "n", "data"),
    *("epsilon", "clean", "certified", "unbroken", "pgd50", "autoattack"),
    *("num_clean", "num_certified", "num_unbroken", "num_pgd50", "num_autoattack"),
    *(
        "flags",
        "frozen",
        "num_parameters",
        "num_nonzero",
        "bytes_packed",
        "bytes_stored",
        "macs_nonzero",
    ),
    *("protocol", "device", "date"),
)
#: Whole numbers that may be missing.
_WHOLE = ("seed", "num_certified")


def _frame(rows: Sequence[dict[str, object]], order: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame.from_records(rows, columns=list(order))
    return table.astype({name: "Int64" for name in _WHOLE if name in table})


def _read(track: Track, results: str | Path | None) -> list[Result]:
    """Every result of a track, from the files alone."""
    if results is not None and not isinstance(results, str | Path):
        raise ConfigError(f"results: expected a folder of result files, but found {results!r}")
    place = SHIPPED if results is None else Path(results).expanduser()
    if results is None and not place.is_dir():
        raise ResultError(
            f"{place}: expected the results that corobench ships, but they are not installed; "
            "name a folder with results=..."
        )
    candidates, _ = find_result_files([place])
    found: list[Result] = []
    for candidate in candidates:
        if not candidate.named and candidate.path.resolve().parent.name != track.name:
            continue
        result = read_alone(candidate)
        if result is not None and result.track == track.name:
            found.append(result)
    if not found:
        raise ResultError(f"{place}: expected results of track {track.name}, but found none")
    return found


def _newest(found: Iterable[Result], track: Track, n: int | None) -> list[Result]:
    """One result per entry: of the newest round, the standard subset, or else the largest.

    Raises:
        ResultError: none has `n` images.
    """
    given = [result for result in found if n is None or result.n == n]
    if not given:
        raise ResultError(f"{track.name}: expected results with n = {n}, but found none")
    standard = standard_subset(track)
    best: dict[str, Result] = {}
    for result in sorted(
        given, key=lambda one: (_version(one), one.n == standard, one.n, one.date)
    ):
        best[result.entry] = result
    return list(best.values())


def _version(result: Result) -> tuple[int, ...]:
    return tuple(int(part) for part in round_of(result.protocol).split(".") if part.isdecimal())


def _standing(result: Result) -> tuple[object, ...]:
    """What is compared with each other stands together."""
    newest_first = tuple(-part for part in _version(result))
    return newest_first, result.data.kind != "canonical", result.data.fingerprint, -result.n


def _radius(epsilon: str | Fraction | None, track: Track) -> Fraction:
    if epsilon is None:
        return parse_epsilon(track.epsilons[-1])
    if isinstance(epsilon, Fraction):
        return epsilon
    if not isinstance(epsilon, str):
        raise ConfigError(
            f"epsilon: expected an exact fraction such as {track.epsilons[-1]!r}, but found "
            f"{epsilon!r} (0.031 is not 8/255)"
        )
    return parse_epsilon(epsilon)


def _key(result: Result, radius: Fraction) -> str | None:
    """A result's own text of a radius: 1/8 and 2/16 are the same."""
    return next((text for text in result.epsilons if parse_epsilon(text) == radius), None)


def _families(found: Sequence[Result]) -> dict[str, str]:
    """Entry -> the dense entry that it descends from, which may be itself."""
    parents = {result.entry: result.submission.parent for result in found}
    families = {}
    for entry in parents:
        seen, top = {entry}, entry
        while (above := parents.get(top)) is not None and above not in seen:
            seen.add(above)
            top = above
        families[entry] = top
    return families


def _entry_row(result: Result, families: dict[str, str]) -> dict[str, object]:
    submission, size = result.submission, result.compactness
    return {
        "entry": result.entry,
        "title": submission.title,
        "method": submission.method.name,
        "family": families[result.entry],
        "parent": submission.parent,
        "architecture": submission.model.network,
        "seed": submission.training.seed,
        "n": result.n,
        "data": result.data.kind,
        "clean": 100 * result.clean / result.n,
        "num_clean": result.clean,
        "frozen": result.is_frozen,
        "num_parameters": size.num_parameters,
        "num_nonzero": size.num_nonzero,
        "bytes_packed": size.bytes_packed,
        "bytes_stored": size.bytes_stored,
        "macs_nonzero": size.macs_nonzero,
        "protocol": result.protocol,
        "device": result.device,
        "date": result.date,
    }


def _epsilon_row(result: Result, epsilon: str) -> dict[str, object]:
    score, n = result.epsilons[epsilon], result.n
    low, high = bracket(score)
    asked = any(count is not None for count in score.certified_by.values())
    counts = {"unbroken": high, "pgd50": score.pgd50, "autoattack": score.autoattack}
    return {
        "epsilon": epsilon,
        "certified": 100 * low / n if asked else float("nan"),
        "num_certified": low if asked else None,
        **{name: 100 * count / n for name, count in counts.items()},
        **{f"num_{name}": count for name, count in counts.items()},
        "flags": ", ".join(score.flags),
    }
