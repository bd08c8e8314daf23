"""Numbers of one result that cannot all be true.

Nobody repairs what is shown or compared: a result whose counts do not add up to n, or whose proofs
exceed what survived the attack, is refused with the key at fault.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from corobench.benchmark.errors import ConfigError, nearest
from corobench.benchmark.records.reading.places import ROUNDS, is_protocol
from corobench.benchmark.records.reading.published import data_faults
from corobench.benchmark.records.result import (
    CERTIFIERS,
    Compactness,
    EpsilonScore,
    Outcome,
    Result,
)
from corobench.benchmark.records.result_set import ENDINGS
from corobench.benchmark.tracks import TRACKS, parse_epsilon, round_of

#: Largest whole number in a result; beyond it a float is no longer exact.
MAX_COUNT = 2**53


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
    elif round_of(result.protocol) not in ROUNDS or not _is_release(result.protocol):
        faults.append(
            f"protocol: expected one of {', '.join(ROUNDS)}, found {result.protocol!r}; was it "
            "written by a newer corobench? Then update this one"
        )
    if result.submission.id != result.entry:
        faults.append(
            f"submission.id: expected {result.entry!r} as in 'entry', "
            f"found {result.submission.id!r}"
        )
    if result.submission.track != result.track:
        faults.append(
            f"submission.track: expected {result.track!r} as in 'track', "
            f"found {result.submission.track!r}"
        )
    if result.n > MAX_COUNT:
        faults.append(f"n: expected at most {MAX_COUNT}, found {result.n}")
    faults += data_faults(result.track, result.data, result.n)
    if result.clean > result.n:
        faults.append(f"clean: expected at most n = {result.n}, found {result.clean}")
    if not result.epsilons:
        faults.append("epsilons: expected at least one epsilon, found none")
    faults += _repeated(result.epsilons)
    for epsilon in sorted(result.epsilons):
        faults += _epsilon_faults(epsilon, result.epsilons[epsilon], result)
    if result.submission.parent == result.entry:
        faults.append(f"submission.parent: expected another entry than {result.entry!r} itself")
    if unknown := sorted({*result.not_asked} - {*CERTIFIERS}):
        faults.append(f"not_asked: {unknown[0]!r} is not a certifier")
    if result.halved_batches and result.device == "cpu":
        faults.append(
            f"halved_batches: expected none on a processor, found {result.halved_batches}"
        )
    faults += _claims(result) + _recognition_faults(result)
    return faults + _compactness_faults(result.compactness) + _weight_faults(result.compactness)


def _is_release(protocol: str) -> bool:
    """Whether a version of a round has at most a third number, and no zeros before one."""
    parts = protocol.split(".")
    return len(parts) <= 3 and all(part == str(int(part)) for part in parts)


def _claims(result: Result) -> list[str]:
    """What a result says of itself and contradicts, one line for each."""
    faults = []
    if unknown := sorted({*(result.files or {})} - {*ENDINGS}):
        faults.append(f"files: expected {', '.join(ENDINGS)}, found {unknown[0]!r}")
    if result.earlier is not None and not is_protocol(result.earlier.protocol):
        faults.append(f"earlier.protocol: expected a version, found {result.earlier.protocol!r}")
    num_rows = result.n * len(result.epsilons)  # one image may be drawn at each radius
    faults += _above("audit", [("num_images", result.audit.num_images, "its rows", num_rows)])
    counts = [score.counts.get(Outcome.ERROR, 0) for score in result.epsilons.values()]
    timeouts = [score.counts.get(Outcome.TIMEOUT, 0) for score in result.epsilons.values()]
    if result.errors and not any(counts + timeouts):
        faults.append("errors: expected none, as every image has an answer")
    for number, contest in enumerate(result.contests):
        key = f"contests.{number}"
        confirmed = contest.num_confirmed
        faults += _above(key, [("num_confirmed", confirmed, "num_images", contest.num_images)])
        pairs = [(name, many, "num_confirmed", confirmed) for name, many in contest.broken.items()]
        faults += _above(f"{key}.broken", pairs)
        if unknown := sorted({*contest.broken} - {*result.epsilons}):
            faults.append(f"{key}.broken: {unknown[0]!r} is no radius of the result")
    return faults


def _recognition_faults(result: Result) -> list[str]:
    """More images than there are, or more right ones than were asked."""
    found = result.recognition
    if found is None:
        return []
    pairs = (
        ("num_images", found.num_images, "n", result.n),
        ("right", found.right, "num_images", found.num_images),
        ("shifted", found.shifted, "num_images", found.num_images),
        ("unseen", found.unseen or 0, "num_unseen", found.num_unseen or 0),
    )
    return _above("recognition", pairs)


def _above(key: str, pairs: Iterable[tuple[str, int | None, str, int]]) -> list[str]:
    """Parts below a key that are larger than their whole: one line for each.

    Args:
        key: that the parts stand below.
        pairs: part, its count or None where it was not measured, name of the whole, its count.
    """
    return [
        f"{key}.{part}: expected at most {whole} = {limit}, found {count}"
        for part, count, whole, limit in pairs
        if count is not None and count > limit
    ]


def _repeated(epsilons: Iterable[str]) -> list[str]:
    """Radii that are there twice, in two ways to write them; others are refused elsewhere."""
    first: dict[Fraction, str] = {}
    faults = []
    for text in sorted(epsilons):
        try:
            radius = parse_epsilon(text)
        except ConfigError:
            continue
        if first.setdefault(radius, text) != text:
            faults.append(f"epsilons.{text}: is the same radius as {first[radius]}")
    return faults


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
    counts = {outcome: score.counts.get(outcome, 0) for outcome in Outcome}
    wrong = counts[Outcome.MISCLASSIFIED]
    if wrong > result.n - result.clean:
        faults.append(
            f"{key}.counts.misclassified: expected at most n - clean = {result.n - result.clean}, "
            f"found {wrong}"
        )
    unanswered = counts[Outcome.TIMEOUT] + counts[Outcome.ERROR]
    if result.n - result.clean > wrong + unanswered:
        faults.append(
            f"{key}.counts.misclassified: expected the {result.n - result.clean} images that are "
            f"not clean, found {wrong}, and {unanswered} without an answer"
        )
    return faults + _right_faults(key, score, counts, result)


def _right_faults(
    key: str, score: EpsilonScore, counts: dict[Outcome, int], result: Result
) -> list[str]:
    """Numbers of right images that are too large or too small for the others."""
    faults = []
    right = {f"certified_by.{name}": count for name, count in score.certified_by.items()}
    right |= {"pgd50": score.pgd50, "autoattack": score.autoattack}
    for name, count in sorted(right.items()):
        if count is not None and count > result.clean:
            faults.append(f"{key}.{name}: expected at most clean = {result.clean}, found {count}")
    standing = counts[Outcome.CERTIFIED] + counts[Outcome.UNDECIDED]
    for name in ("pgd50", "autoattack"):
        found = right[name]
        if found is not None and found < standing:
            faults.append(
                f"{key}.{name}: expected at least the {standing} certified and undecided images, "
                f"found {found}, because no attack broke them"
            )
    return faults + _certifier_faults(key, score, counts[Outcome.CERTIFIED], result)


def _certifier_faults(key: str, score: EpsilonScore, certified: int, result: Result) -> list[str]:
    """Certifiers that are unknown, or that proved more than the cascade."""
    unknown = sorted(score.certified_by.keys() - {*CERTIFIERS, "cascade"})
    faults = [f"{key}.certified_by: {name!r} is not a certifier" for name in unknown]
    if result.is_frozen:  # what was proven and broken counts as attacked
        return faults
    for name, count in sorted(score.certified_by.items()):
        if name in result.not_asked and count is not None:
            faults.append(f"{key}.certified_by.{name}: expected null, as not_asked names it")
        elif count is not None and count > certified:
            faults.append(
                f"{key}.certified_by.{name}: expected at most the {certified} certified images, "
                f"found {count}"
            )
    cascade = score.certified_by.get("cascade")
    asked = any(count is not None for count in score.certified_by.values())
    if asked and cascade != certified:
        faults.append(
            f"{key}.certified_by.cascade: expected the {certified} certified images, "
            f"found {cascade}"
        )
    if not asked and certified:
        faults.append(
            f"{key}.counts.certified: expected 0 where no certifier was asked, found {certified}"
        )
    return faults


def _compactness_faults(compactness: Compactness) -> list[str]:
    pairs = (
        ("num_nonzero", compactness.num_nonzero, "num_parameters", compactness.num_parameters),
        ("macs_nonzero", compactness.macs_nonzero, "macs_dense", compactness.macs_dense),
        ("bytes_packed", compactness.bytes_packed, "bytes_dense", compactness.bytes_dense),
    )
    faults = _above("compactness", pairs)
    faults += [
        f"compactness.{whole}: expected at most {MAX_COUNT}, found {limit}"
        for _, _, whole, limit in pairs
        if limit > MAX_COUNT
    ]
    if compactness.bytes_dense != 4 * compactness.num_parameters:
        faults.append(
            f"compactness.bytes_dense: expected 4 for each of {compactness.num_parameters} "
            f"parameters, found {compactness.bytes_dense}"
        )
    least = 4 * compactness.num_nonzero
    if compactness.bytes_packed < least:
        faults.append(
            f"compactness.bytes_packed: expected at least {least}, 4 for each value that is not "
            f"zero, found {compactness.bytes_packed}"
        )
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


def _weight_faults(size: Compactness) -> list[str]:
    """What the layers and the optional measures say that the others deny, one line per fault.

    A result without the table of layers, or without an optional measure, says nothing there.
    """
    faults = []
    for number, layer in enumerate(size.layers):
        pairs = (
            ("num_nonzero", layer.num_nonzero, "num_weights", layer.num_weights),
            ("macs_nonzero", layer.macs_nonzero, "macs_dense", layer.macs_dense),
        )
        faults += _above(f"compactness.layers.{number}", pairs)
    if size.layers:
        faults += _sums(size)
    return faults + _optional(size)


def _sums(size: Compactness) -> list[str]:
    """Sums over layers that are not the measures of the whole."""
    faults = [
        f"compactness.{key}: expected at least the {total} of the layers, found {said}"
        for key, total, said in (
            ("macs_dense", sum(one.macs_dense for one in size.layers), size.macs_dense),
            ("macs_nonzero", sum(one.macs_nonzero for one in size.layers), size.macs_nonzero),
        )
        if total > said
    ]
    # Layers may share a tensor, which counts once in the whole.
    faults += [
        f"compactness.{key}: expected at least the {largest} of a layer, found {said}"
        for key, largest, said in (
            ("num_parameters", max(one.num_weights for one in size.layers), size.num_parameters),
            ("num_nonzero", max(one.num_nonzero for one in size.layers), size.num_nonzero),
        )
        if largest > said
    ]
    share = 1 - size.num_weights_kept / size.num_weights if size.num_weights else 0.0
    if abs(size.sparsity - share) > 1e-6:
        faults.append(
            f"compactness.sparsity: expected {share:.6g} as in the layers, found {size.sparsity}"
        )
    return faults


def _optional(size: Compactness) -> list[str]:
    pairs = [
        ("bytes_coded", size.bytes_coded, "bytes_packed", size.bytes_packed),
        ("bytes_packed_zstd", size.bytes_packed_zstd, "the largest number", MAX_COUNT),
        ("peak_activation_bytes", size.peak_activation_bytes, "the largest number", MAX_COUNT),
    ]
    if size.layers:
        pairs.append(("num_live", size.num_live, "the weights kept", size.num_weights_kept))
    if size.equivalent is not None:
        found = size.equivalent
        pairs += [
            ("equivalent.num_removed", found.num_removed, "num_channels", found.num_channels),
            ("equivalent.num_channels", found.num_channels, "the largest number", MAX_COUNT),
            ("equivalent.num_parameters", found.num_parameters, "the largest number", MAX_COUNT),
            ("equivalent.macs_dense", found.macs_dense, "the largest number", MAX_COUNT),
        ]
    return _above("compactness", pairs)
