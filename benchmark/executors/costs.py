"""What an evaluation costs, estimated before it: which entry is the longest, and how many hours.

Seconds per image and stage of one thread, measured by ``python perf/cost_model.py``, and the share
of the images that reaches each stage, counted in the results of this repository. Nothing of a
result depends on it; a wrong estimate costs time only. Imports no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from corobench.benchmark.records.result import Manifest
from corobench.benchmark.tracks import Protocol, Track, get_track


@dataclass(frozen=True)
class Seconds:
    """Processor seconds of one thread for one image in each stage; None where it is not asked.

    Attributes:
        weights: parameters of the network that was measured.
        clean, ibp, crown_ibp, crown, alpha_crown, bab: of one image.
        pgd50, apgd_ce, apgd_t, fab_t, square: of one image that no attack breaks.
        crown_closes: whether CROWN is asked after PGD-50 only, as on large networks.
    """

    weights: int
    clean: float
    ibp: float
    crown_ibp: float
    crown: float | None
    alpha_crown: float | None
    bab: float | None
    pgd50: float
    apgd_ce: float
    apgd_t: float
    fab_t: float
    square: float
    crown_closes: bool = False

    def times(self, factor: float) -> Seconds:
        """The same of a network that needs `factor` times as long."""
        values = {
            name: value * factor
            for name, value in vars(self).items()
            if name not in ("weights", "crown_closes") and value is not None
        }
        return replace(self, weights=round(self.weights * factor), **values)

    @property
    def cheap(self) -> float:
        """Of the certifiers that are asked about every correct image."""
        return self.ibp + self.crown_ibp + (0.0 if self.crown_closes else self.crown or 0.0)

    @property
    def closing(self) -> float:
        """Of the certifiers that close the bracket."""
        crown = self.crown or 0.0 if self.crown_closes else 0.0
        return crown + (self.alpha_crown or 0.0) + (self.bab or 0.0)

    @property
    def suite(self) -> float:
        """Of the four parts of AutoAttack."""
        return self.apgd_ce + self.apgd_t + self.fab_t + self.square


#: (architecture, track) -> seconds, as ``python perf/cost_model.py`` prints them.
SECONDS: dict[tuple[str, str], Seconds] = {
    ("cnn-small", "fashion-mnist"): Seconds(
        alpha_crown=0.239,
        apgd_ce=0.0266,
        apgd_t=0.232,
        bab=1.7,
        clean=0.000512,
        crown=0.00964,
        crown_ibp=0.00481,
        fab_t=0.451,
        ibp=0.00336,
        pgd50=0.0585,
        square=0.257,
        weights=166406,
    ),
    ("cnn-small", "digits"): Seconds(
        alpha_crown=0.0552,
        apgd_ce=0.00812,
        apgd_t=0.0662,
        bab=0.678,
        clean=0.000345,
        crown=0.00206,
        crown_ibp=0.00161,
        fab_t=0.135,
        ibp=0.00216,
        pgd50=0.0195,
        square=0.107,
        weights=22406,
    ),
    ("cnn-small", "cifar10"): Seconds(
        alpha_crown=0.503,
        apgd_ce=0.0273,
        apgd_t=0.266,
        bab=3.9,
        clean=0.0007,
        crown=0.0159,
        crown_ibp=0.0077,
        fab_t=0.999,
        ibp=0.00534,
        pgd50=0.0843,
        square=0.409,
        weights=214918,
    ),
    ("cnn-large", "fashion-mnist"): Seconds(
        alpha_crown=8.65,
        apgd_ce=0.129,
        apgd_t=1.16,
        bab=18.2,
        clean=0.00187,
        crown=7.82,
        crown_closes=True,
        crown_ibp=0.0371,
        fab_t=1.73,
        ibp=0.0196,
        pgd50=0.393,
        square=2.57,
        weights=1974762,
    ),
    ("cnn-large", "cifar10"): Seconds(
        alpha_crown=11,
        apgd_ce=0.193,
        apgd_t=1.76,
        bab=15.5,
        clean=0.00205,
        crown=8.67,
        crown_closes=True,
        crown_ibp=0.0679,
        fab_t=2.69,
        ibp=0.0162,
        pgd50=0.478,
        square=4.7,
        weights=2466858,
    ),
    ("cnn5", "cifar10"): Seconds(
        alpha_crown=1.33,
        apgd_ce=0.0988,
        apgd_t=0.792,
        bab=10.4,
        clean=0.000992,
        crown=0.0268,
        crown_ibp=0.017,
        fab_t=2.22,
        ibp=0.0103,
        pgd50=0.232,
        square=2.08,
        weights=276730,
    ),
    ("resnet8", "cifar10"): Seconds(
        alpha_crown=None,
        apgd_ce=0.222,
        apgd_t=2.32,
        bab=None,
        clean=0.00139,
        crown=None,
        crown_ibp=0.0185,
        fab_t=3.67,
        ibp=0.00384,
        pgd50=0.523,
        square=5.01,
        weights=78186,
    ),
    ("vgg16-bn", "cifar10"): Seconds(
        alpha_crown=None,
        apgd_ce=4.69,
        apgd_t=37,
        bab=None,
        clean=0.0289,
        crown=None,
        crown_ibp=0.275,
        fab_t=62,
        ibp=0.128,
        pgd50=12.3,
        square=90.2,
        weights=15311818,
    ),
    ("resnet18", "cifar10"): Seconds(
        alpha_crown=None,
        apgd_ce=4.6,
        apgd_t=49.7,
        bab=None,
        clean=0.03,
        crown=None,
        crown_ibp=0.409,
        fab_t=67,
        ibp=0.138,
        pgd50=10.5,
        square=129,
        weights=11173962,
    ),
    ("wrn-28-4", "cifar10"): Seconds(
        alpha_crown=None,
        apgd_ce=6.42,
        apgd_t=63.5,
        bab=None,
        clean=0.0509,
        crown=None,
        crown_ibp=0.54,
        fab_t=89.5,
        ibp=0.209,
        pgd50=15.7,
        square=136,
        weights=5849050,
    ),
}


@dataclass(frozen=True)
class Shares:
    """Which share of the images reaches a stage at one radius.

    Attributes:
        correct: classified right.
        proven: by IBP, CROWN-IBP or CROWN.
        after_pgd: right after PGD-50, proven ones included.
        closed: proven by any certifier.
        after_attack: right after AutoAttack, proven ones included.
    """

    correct: float
    proven: float
    after_pgd: float
    closed: float
    after_attack: float


#: Means over the results of this repository, November 2026: entries that were trained to be
#: certified, trained against attacks, and trained on clean images.
CERTIFIED = Shares(0.767, 0.642, 0.668, 0.647, 0.658)
ATTACKED = Shares(0.741, 0.475, 0.648, 0.513, 0.635)
NATURAL = Shares(0.792, 0.124, 0.252, 0.165, 0.234)

_OF_OBJECTIVE = {
    "ad-cert": CERTIFIED,
    "feature-cert": CERTIFIED,
    "crown-ibp": CERTIFIED,
    "ibp": CERTIFIED,
    "mixtrain": CERTIFIED,
    "mtl-ibp": CERTIFIED,
    "natural": NATURAL,
    "none": NATURAL,
    "sabr": CERTIFIED,
}

#: A network of which nothing is known counts as this one, with its number of weights.
UNKNOWN = "cnn-small"


def shares_of(manifest: Manifest) -> Shares:
    """The shares to expect of an entry, by what it says of its training."""
    objective = manifest.method.finetune_objective or manifest.method.pretrain_objective
    return _OF_OBJECTIVE.get(objective, ATTACKED)


def seconds_of(manifest: Manifest, folder: Path, track: Track) -> Seconds:
    """Seconds per image and stage to expect of an entry.

    A network of a measured name has the seconds of its family, by the square of its width. Of
    another one, and of an ONNX file, the size of the file says the number of weights, and a network
    of that many weights is expected to need so many times as long as a small one.

    Args:
        manifest: of the entry.
        folder: of the entry.
        track: it is evaluated on.
    """
    name = manifest.model.architecture
    if any(known == name for known, _ in SECONDS):
        assert name is not None
        width = manifest.model.arguments.get("width", 1.0)
        factor = float(width) ** 2 if isinstance(width, int | float) and width > 0 else 1.0
        return _of_family(name, track).times(factor)
    base = _of_family(UNKNOWN, track)
    try:
        weights = (folder / manifest.model.weights).stat().st_size / 4
    except OSError:
        weights = float(base.weights)
    # No closing certifier is asked about what comes without a name and is large, or quantised.
    return replace(base.times(max(weights, 1.0) / base.weights), alpha_crown=None, bab=None)


def _of_family(name: str, track: Track) -> Seconds:
    """The row of an architecture; on another track by the number of values of an image."""
    if (name, track.name) in SECONDS:
        return SECONDS[name, track.name]
    rows = {on: row for (known, on), row in SECONDS.items() if known == name}
    values = math.prod(track.shape)
    near = min(rows, key=lambda on: abs(math.log(math.prod(get_track(on).shape) / values)))
    return rows[near].times(values / math.prod(get_track(near).shape))


def estimate_s(seconds: Seconds, shares: Shares, n: int, num_radii: int, audit: int) -> float:
    """Processor seconds of one evaluation.

    Args:
        seconds: per image and stage.
        shares: of the images that reach each stage.
        n: images.
        num_radii: radii.
        audit: certified images that are attacked all the same; in all, not at each radius.

    >>> one = Seconds(1, *[1.0] * 11)
    >>> estimate_s(one, Shares(1.0, 1.0, 1.0, 1.0, 1.0), 10, 1, 0)
    40.0
    """
    open_after_pgd = max(shares.after_pgd - shares.proven, 0.0)
    left = max(shares.after_attack - shares.closed, 0.0)
    at_each = (
        shares.correct * seconds.cheap
        + max(shares.correct - shares.proven, 0.0) * seconds.pgd50
        + open_after_pgd * seconds.closing
        + max(shares.after_pgd - shares.closed, 0.0) * seconds.apgd_ce
        + left * (seconds.suite - seconds.apgd_ce)
    )
    audited = min(audit, shares.closed * n) * (seconds.suite + seconds.pgd50)
    return n * (seconds.clean + num_radii * at_each) + audited


def cost_of(manifest: Manifest, folder: Path, track: Track, n: int, num_radii: int) -> float:
    """Processor seconds to expect of the evaluation of an entry.

    Args:
        manifest: of the entry.
        folder: of the entry.
        track: it is evaluated on.
        n: images.
        num_radii: radii.
    """
    protocol = Protocol()
    seconds, shares = seconds_of(manifest, folder, track), shares_of(manifest)
    return estimate_s(seconds, shares, n, num_radii, 2 * protocol.audit_images)
