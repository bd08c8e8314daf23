"""The tracks and the protocol, as frozen literals.

A track fixes the data, its published image order, the exact epsilons and the subsets. The
protocol fixes the settings of every stage. Whatever is written here is part of a result's
identity: change a value and it is another protocol version (RULES.md, "Protocol").
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fractions import Fraction

from corobench.benchmark.errors import ConfigError, nearest

PROTOCOL = "1.1"


@dataclass(frozen=True)
class Track:
    """One board: a dataset, an l-infinity threat and the subsets it is scored on.

    Attributes:
        name: key of the track and of its dataset.
        title: for people.
        shape: channels, height, width of one image.
        epsilons: exact l-infinity radii as text, ascending, for images in [0, 1].
        subsets: sizes of the nested subsets; the first one is the quick subset.
        num_test: images in the canonical test set.
        classes: class names in label order.
        chunk_size: images per chunk, which is the unit of seeds and of resuming.
        attack_batch: images per batch of AutoAttack within a chunk; sized so that the networks of
            the track fill a processor and not its memory.
        fingerprint: of the canonical decoded test set, or "" where only the published checksums
            of its files are known (`benchmark.data`).
    """

    name: str
    title: str
    shape: tuple[int, int, int]
    epsilons: tuple[str, ...]
    subsets: tuple[int, ...]
    num_test: int
    classes: tuple[str, ...]
    chunk_size: int
    attack_batch: int
    fingerprint: str = ""

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def quick_subset(self) -> int:
        """The smallest subset: for CI, never for the public rank."""
        return self.subsets[0]

    def is_ranked(self, n: int) -> bool:
        """Whether a result on the first `n` images may enter the public rank."""
        return n in self.subsets[1:]


_DIGITS = tuple(str(digit) for digit in range(10))

TRACKS: dict[str, Track] = {
    track.name: track
    for track in (
        Track(
            name="digits",
            title="scikit-learn digits",
            shape=(1, 8, 8),
            chunk_size=500,
            attack_batch=500,
            epsilons=("1/16", "2/16"),
            subsets=(100, 500),
            num_test=500,
            classes=_DIGITS,
            fingerprint="2859c6218aa8c6de01eaf56acb676c8d47ed10a7f6331f44695dbeb570304b93",
        ),
        Track(
            name="fashion-mnist",
            title="Fashion-MNIST",
            shape=(1, 28, 28),
            chunk_size=1000,
            attack_batch=250,
            epsilons=("1/20", "1/10"),
            subsets=(100, 1000, 10000),
            num_test=10000,
            classes=(
                "T-shirt/top",
                "Trouser",
                "Pullover",
                "Dress",
                "Coat",
                "Sandal",
                "Shirt",
                "Sneaker",
                "Bag",
                "Ankle boot",
            ),
            fingerprint="eb62b81c56823ecc3bd377cd89477dc85d76a5bf175637f970740a57fda0004a",
        ),
        Track(
            name="cifar10",
            title="CIFAR-10",
            shape=(3, 32, 32),
            chunk_size=1000,
            attack_batch=100,
            epsilons=("2/255", "8/255"),
            subsets=(100, 1000, 10000),
            num_test=10000,
            classes=(
                "airplane",
                "automobile",
                "bird",
                "cat",
                "deer",
                "dog",
                "frog",
                "horse",
                "ship",
                "truck",
            ),
        ),
        Track(
            name="svhn",
            title="SVHN (cropped)",
            shape=(3, 32, 32),
            chunk_size=1000,
            attack_batch=100,
            epsilons=("2/255", "8/255"),
            subsets=(100, 1000, 26032),
            num_test=26032,
            classes=_DIGITS,
        ),
    )
}


_LATER = ("crown_early_macs", "crown_max_macs", "plain_attacks")
"""Settings that results from before they were settings lack; so do those with the defaults."""


@dataclass(frozen=True)
class Protocol:
    """Settings of every stage, the same for every entry.

    Attributes:
        version: major.minor, or with a third number for a release that changes no number of a
            result; results are comparable within major.minor.
        pgd_steps: gradient steps of the paper's empirical robust accuracy (PGD-50).
        pgd_restarts: random restarts of PGD; an image counts as broken if any breaks it.
        pgd_step_rate: step size as a share of epsilon.
        autoattack_version: the suite's name in the attack library.
        square_queries: queries of the black-box attack within the suite.
        certifiers: asked of every correct image before the attacks, cheapest first.
        closing_certifiers: asked between PGD-50 and AutoAttack, of what is neither proven nor
            broken.
        crown_early_macs: CROWN is asked before the attacks, of every correct image, where bounding
            all neurons of one image takes at most this many multiply-adds; of a larger network it
            is the first of the closing certifiers.
        crown_max_macs: multiply-adds that CROWN may take for the neurons that one image leaves
            open; about an image that needs more, neither it nor what follows it is asked.
        closing_group: images that a closing certifier is asked about at once; a group without a
            decision ends it at that epsilon.
        max_subdomains: bounded subdomains per image of branch and bound ("BaB").
        certify_budget_s: processor seconds per image after which a search is stopped ("timeout"); a
            safety stop, for `max_subdomains` alone should decide.
        audit_images: certified images that are attacked all the same, largest epsilon first: so
            many of those that `certifiers` prove, and as many of those that `closing_certifiers`
            prove; all of them where there are fewer.
        plain_attacks: run the attack library unchanged and on the submitted network itself, to
            compare with; a setting of its own, so that such a result is never ranked.
    """

    version: str = PROTOCOL
    pgd_steps: int = 50
    pgd_restarts: int = 5
    pgd_step_rate: float = 0.1
    autoattack_version: str = "standard"
    square_queries: int = 5000
    certifiers: tuple[str, ...] = ("IBP", "CROWN-IBP", "CROWN")
    closing_certifiers: tuple[str, ...] = ("alpha-CROWN", "BaB")
    crown_early_macs: int = 5_000_000_000
    crown_max_macs: int = 50_000_000_000
    closing_group: int = 16
    max_subdomains: int = 500
    certify_budget_s: float = 60.0
    audit_images: int = 50
    plain_attacks: bool = False

    def as_settings(self) -> dict[str, object]:
        """The settings as JSON-able literals, for the identity of a result."""
        settings = asdict(self)
        for name in ("certifiers", "closing_certifiers"):
            settings[name] = list(getattr(self, name))
        for name in _LATER:
            if settings[name] == Protocol.__dataclass_fields__[name].default:
                del settings[name]
        return settings

    @property
    def all_certifiers(self) -> tuple[str, ...]:
        """Cheapest first."""
        return (*self.certifiers, *self.closing_certifiers)


def settings_of(protocol: Protocol, track: Track) -> dict[str, object]:
    """The resolved settings of every stage, as they enter the identity of a result."""
    sizes = {"chunk_size": track.chunk_size, "attack_batch": track.attack_batch}
    return {**protocol.as_settings(), **sizes}


def round_of(protocol: str) -> str:
    """The round of a protocol version: major.minor. Results of one round are comparable.

    A third number marks a release of the protocol that changes no number of a result.

    >>> round_of("1.0"), round_of("1.0.2")
    ('1.0', '1.0')
    """
    return ".".join(protocol.split(".")[:2])


def is_since(protocol: str, first: tuple[int, int]) -> bool:
    """Whether a protocol is of a round or a later one; what is no version counts as later.

    >>> is_since("1.0.3", (1, 1)), is_since("1.1", (1, 1)), is_since("1.10", (1, 9))
    (False, True, True)
    """
    try:
        return tuple(int(part) for part in round_of(protocol).split(".")) >= first
    except ValueError:
        return True


def get_track(name: str) -> Track:
    """The track called `name`.

    Raises:
        ConfigError: no such track; names the nearest known one.
    """
    if not isinstance(name, str):
        raise ConfigError(f"track: expected one of {', '.join(TRACKS)}, but found {name!r}")
    if name not in TRACKS:
        raise ConfigError(f"unknown track {name!r}: {nearest(name, TRACKS)}")
    return TRACKS[name]


def standard_subset(track: Track) -> int:
    """The subset that a result file without a number in its name holds."""
    return track.subsets[min(1, len(track.subsets) - 1)]


def chosen_radii(known: Iterable[str], wanted: str | None) -> tuple[str, ...]:
    """All radii of a result, or the one that is asked for.

    Raises:
        ConfigError: there is no such radius.

    >>> chosen_radii(["2/255", "8/255"], "8/255")
    ('8/255',)
    """
    radii = tuple(known)
    if wanted is None:
        return radii
    if wanted not in radii:
        raise ConfigError(f"epsilon {wanted!r}: expected one of {', '.join(radii)}")
    return (wanted,)


def parse_epsilon(text: str) -> Fraction:
    """An exact radius from text such as "8/255".

    Raises:
        ConfigError: not a fraction in (0, 1], or a decimal ("0.031 is not 8/255").

    >>> parse_epsilon("2/16")
    Fraction(1, 8)
    """
    parts = text.strip().split("/")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(
            f"epsilon {text!r}: expected an exact fraction such as 8/255 (0.031 is not 8/255)"
        )
    if int(parts[1]) == 0 or not 0 < Fraction(text.strip()) <= 1:
        raise ConfigError(f"epsilon {text!r}: expected a fraction above 0 and at most 1")
    return Fraction(text.strip())


def distinct_epsilons(texts: Iterable[str]) -> tuple[str, ...]:
    """Exact radii in ascending order, each once.

    Raises:
        ConfigError: one is no radius, or the same as another, written as it or otherwise.

    >>> distinct_epsilons(["8/255", " 2/255"])
    ('2/255', '8/255')
    """
    found: dict[Fraction, str] = {}
    for text in (text.strip() for text in texts):
        radius = parse_epsilon(text)
        if radius in found:
            raise ConfigError(
                f"epsilons: {text} is the same radius as {found[radius]}; give each radius once"
            )
        found[radius] = text
    if not found:
        raise ConfigError("epsilons: expected at least one radius such as 8/255, but found none")
    return tuple(found[radius] for radius in sorted(found))


def published_order(name: str, num_images: int) -> list[int]:
    """The published order of a track's test images; a subset is its first k.

    Indices are sorted by the sha256 of "<track>:<index>", so the order depends on no library's
    random numbers. A source with fewer images keeps the order of those it has.

    >>> published_order("svhn", 6)
    [4, 1, 2, 3, 5, 0]
    """
    keyed = [
        (hashlib.sha256(f"{name}:{index}".encode()).hexdigest(), index)
        for index in range(num_images)
    ]
    return [index for _, index in sorted(keyed)]


def derive_seed(seed: int, track: str, purpose: str, chunk: int = 0) -> int:
    """A 31-bit seed from (seed, track, purpose, chunk), the same on every machine.

    Args:
        seed: the run's seed.
        track: name of the track.
        purpose: what the numbers are for, e.g. "autoattack:8/255".
        chunk: index of the chunk.
    """
    text = f"{seed}|{track}|{purpose}|{chunk}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
