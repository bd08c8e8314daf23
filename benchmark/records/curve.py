"""A security curve: proven and unbroken at more radii than those of the track, measured cheaply.

It is a file of its own, beside no result and never ranked: no number of a result, no identity and
no rank depends on it.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from pydantic import Field

from corobench.benchmark.records.aside import Aside, aside_path, faults_of_owner, owner
from corobench.benchmark.records.base import Count, ShortText, StoredRecord
from corobench.benchmark.records.result import CERTIFIERS, EpsilonScore, Outcome, Result
from corobench.benchmark.tracks import parse_epsilon

#: Folder of all curves below the folder of results.
FOLDER = "curves"
ENDING = ".curve"
MAX_POINTS = 64
#: The attack of every curve.
ATTACK = "pgd50"
#: Certifiers that a curve may ask.
CHEAP = CERTIFIERS[:3]
#: Radii of a curve, as shares of the track's largest; those of the result are left out.
GRID = tuple(Fraction(share) for share in ("1/8", "1/4", "3/8", "1/2", "3/4", "1", "5/4", "3/2"))


class CurvePoint(StoredRecord):
    """What is known at one radius.

    Attributes:
        proven: images that a cheap certifier proved; None where none was asked.
        unbroken: images that are right and that no attack broke.
    """

    proven: Count | None
    unbroken: Count


class Curve(Aside):
    """The curve of one result.

    Attributes:
        seed: that of the result.
        certifiers: that were asked.
        attack: that was run on what they left open.
        device: name of the device.
        versions: of the libraries.
        points: exact radius as text -> what is known.
    """

    seed: Count
    certifiers: tuple[ShortText, ...] = Field(max_length=16)
    attack: ShortText
    device: ShortText
    versions: dict[ShortText, ShortText] = Field(min_length=1)
    points: dict[ShortText, CurvePoint] = Field(max_length=MAX_POINTS)


def curve_path(result_path: Path) -> Path:
    """Where the curve of a result lies.

    >>> curve_path(Path("results/1.1/digits/lwm@100.json")).as_posix()
    'results/curves/1.1/digits/lwm@100.curve'
    """
    return aside_path(result_path, FOLDER, ENDING)


def grid(epsilons: tuple[str, ...]) -> tuple[str, ...]:
    """The radii of a curve, ascending, without those that a result has.

    Args:
        epsilons: of the result.

    >>> grid(("1/16", "2/16"))
    ('1/64', '1/32', '3/64', '3/32', '5/32', '3/16')
    """
    known = {parse_epsilon(text) for text in epsilons}
    radii = [share * max(known) for share in GRID]
    return tuple(
        f"{radius.numerator}/{radius.denominator}"
        for radius in radii
        if radius not in known and radius <= 1
    )


def faults_of_curve(curve: Curve, result: Result) -> list[str]:
    """Why a curve is not that of a result: other keys, or numbers that cannot both be true.

    What is proven at a radius is unbroken at every smaller one, whoever found it.

    Args:
        curve: as read.
        result: the one that it should belong to.
    """
    faults = faults_of_owner(curve, owner(result) | {"seed": result.seed, "attack": ATTACK})
    faults += _faults_of_radii(curve, result)
    if faults:
        return faults
    faults += _faults_of_points(curve, result)
    both = {text: (point.proven or 0, point.unbroken) for text, point in curve.points.items()}
    known = [(text, *ends) for text, ends in both.items()]
    known += [(text, *_ends(score, result.n)) for text, score in result.epsilons.items()]
    known.sort(key=lambda one: parse_epsilon(one[0]))
    least, where = result.clean, "0"
    for text, proven, unbroken in known:
        if unbroken < least:
            least, where = unbroken, text
        if proven > least:
            faults.append(
                f"{text}: expected at most {least} proven, as no more are unbroken at {where}, "
                f"found {proven}"
            )
    return faults


def _faults_of_radii(curve: Curve, result: Result) -> list[str]:
    """Radii that are the board's, there twice, or not written as a curve is written."""
    seen = {parse_epsilon(text): text for text in result.epsilons}
    known, faults = grid(tuple(result.epsilons)), []
    for text in curve.points:
        radius = parse_epsilon(text)
        if radius in seen:
            faults.append(f"{text}: expected another radius than {seen[radius]}")
        elif text != f"{radius.numerator}/{radius.denominator}":
            faults.append(f"{text}: expected {radius.numerator}/{radius.denominator}")
        elif text not in known:
            faults.append(f"{text}: expected one of {', '.join(known)}")
        seen[radius] = text
    faults += [f"points: expected {text}, too" for text in known if parse_epsilon(text) not in seen]
    return faults


def _faults_of_points(curve: Curve, result: Result) -> list[str]:
    """Proofs of certifiers that there are not, and counts that rise with the radius."""
    faults = [f"certifiers: {name!r} is not one" for name in curve.certifiers if name not in CHEAP]
    if list(curve.certifiers) != [name for name in CHEAP if name in curve.certifiers]:
        faults.append(f"certifiers: expected each once, in the order of {', '.join(CHEAP)}")
    most = {"proven": result.clean, "unbroken": result.clean}
    for text in sorted(curve.points, key=parse_epsilon):
        point = curve.points[text]
        if (point.proven is None) != (not curve.certifiers):
            what = "a count where certifiers were" if curve.certifiers else "null where none was"
            faults.append(f"{text}.proven: expected {what} asked")
        for key, count in (("proven", point.proven), ("unbroken", point.unbroken)):
            if count is None:
                continue
            if count > most[key]:
                faults.append(
                    f"{text}.{key}: expected at most {most[key]} {key}, as no more are at a "
                    f"smaller radius, found {count}"
                )
            most[key] = min(most[key], count)
    return faults


def _ends(score: EpsilonScore, n: int) -> tuple[int, int]:
    """Proven and unbroken images of a result at one radius."""
    lost = score.counts.get(Outcome.MISCLASSIFIED, 0) + score.counts.get(Outcome.ATTACKED, 0)
    return score.counts.get(Outcome.CERTIFIED, 0), n - lost
