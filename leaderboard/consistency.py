"""Numbers of one result that cannot all be true.

A page never repairs what it shows: a result whose counts do not add up to n, or whose proofs
exceed what survived the attack, is refused with the key at fault.
"""

from __future__ import annotations

from benchmark.errors import ConfigError, nearest
from benchmark.records import Compactness, EpsilonScore, Outcome, Result
from benchmark.tracks import TRACKS, parse_epsilon
from leaderboard.discovery import is_protocol


def contradictions(result: Result) -> list[str]:
    """Every fault of a result that its types alone do not show.

    Returns:
        One line per fault: key, expected, found. Empty for a sound result.
    """
    faults: list[str] = []
    if result.track not in TRACKS:
        faults.append(f"track: unknown track {result.track!r}: {nearest(result.track, TRACKS)}")
    if not is_protocol(result.protocol):
        faults.append(f"protocol: expected a version such as '1.0', found {result.protocol!r}")
    if result.submission.id != result.entry:
        faults.append(
            f"submission.id: expected {result.entry!r} as in 'entry', "
            f"found {result.submission.id!r}"
        )
    if result.clean > result.n:
        faults.append(f"clean: expected at most n = {result.n}, found {result.clean}")
    if not result.epsilons:
        faults.append("epsilons: expected at least one epsilon, found none")
    for epsilon in sorted(result.epsilons):
        faults += _epsilon_faults(epsilon, result.epsilons[epsilon], result)
    return faults + _compactness_faults(result.compactness)


def _epsilon_faults(epsilon: str, score: EpsilonScore, result: Result) -> list[str]:
    key = f"epsilons.{epsilon}"
    faults: list[str] = []
    try:
        parse_epsilon(epsilon)
    except ConfigError as error:
        faults.append(f"{key}: {error.message}")
    total = sum(score.counts.values())
    if total != result.n:
        faults.append(f"{key}.counts: expected counts that add up to n = {result.n}, found {total}")
    wrong = score.counts.get(Outcome.MISCLASSIFIED, 0)
    if wrong > result.n - result.clean:
        faults.append(
            f"{key}.counts.misclassified: expected at most n - clean = {result.n - result.clean}, "
            f"found {wrong}"
        )
    right = {f"certified_by.{name}": count for name, count in score.certified_by.items()}
    right |= {"pgd50": score.pgd50, "autoattack": score.autoattack}
    for name, count in sorted(right.items()):
        if count is not None and count > result.clean:
            faults.append(f"{key}.{name}: expected at most clean = {result.clean}, found {count}")
    certified = score.counts.get(Outcome.CERTIFIED, 0)
    if certified > score.autoattack:
        faults.append(
            f"{key}.autoattack: expected at least the {certified} certified images, "
            f"found {score.autoattack}: a certified image cannot be attacked"
        )
    return faults


def _compactness_faults(compactness: Compactness) -> list[str]:
    pairs = (
        ("num_nonzero", compactness.num_nonzero, "num_parameters", compactness.num_parameters),
        ("macs_nonzero", compactness.macs_nonzero, "macs_dense", compactness.macs_dense),
        ("bytes_packed", compactness.bytes_packed, "bytes_dense", compactness.bytes_dense),
    )
    faults = [
        f"compactness.{part}: expected at most {whole} = {limit}, found {value}"
        for part, value, whole, limit in pairs
        if value > limit
    ]
    found = compactness.magnitudes
    if found is not None and compactness.layers:
        kept = compactness.num_weights_kept
        zeros = compactness.num_weights - kept
        for key, count, expected in (
            ("counts", sum(found.counts), kept),
            ("num_zeros", found.num_zeros, zeros),
        ):
            if count != expected:
                faults.append(
                    f"compactness.magnitudes.{key}: expected {expected} weights as in the layers, "
                    f"found {count}"
                )
    return faults
