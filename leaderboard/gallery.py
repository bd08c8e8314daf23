"""A few images of an entry: clean, adversarial, the difference magnified; proven and wrong ones.

Everything is a small PNG inside the page. Clean images come from the file that `evaluate` keeps
beside the results (docs/file-formats.md). Without it nothing is shown that is stored as a change
of a clean image; adversarial images that are stored whole are.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.reading.arrays_file import read_arrays
from corobench.benchmark.records.result import Result
from corobench.benchmark.records.taken import NO_CLASS
from corobench.benchmark.tracks import get_track, parse_epsilon
from corobench.leaderboard.evidence import EntryEvidence

NUM_ATTACKED = 3  # per epsilon
NUM_CERTIFIED = 6
NUM_WRONG = 4

Picture = NDArray[np.float32]


@dataclass(frozen=True)
class CleanImages:
    """Clean images of a track: float32 (k, C, H, W) in [0, 1] by their index in the test set."""

    images: NDArray[np.float32]
    place: dict[int, int]
    fingerprint: str
    _sources: dict[int, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def get(self, index: int) -> Picture | None:
        """One image, or None where it was not kept."""
        place = self.place.get(index)
        return None if place is None else self.images[place]

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Images that were kept, float32 (len(indices), C, H, W)."""
        return self.images[[self.place[index] for index in indices.tolist()]]

    def source(self, index: int) -> str:
        """The picture of an image that was kept, drawn once for all entries that show it."""
        if index not in self._sources:
            self._sources[index] = png_source(self.images[self.place[index]])
        return self._sources[index]


@dataclass(frozen=True)
class Shown:
    """One figure of a gallery.

    Attributes:
        index: of the image in its test set.
        label: true class, an index.
        epsilon: at which it is attacked or certified.
        source: of the picture, a data address.
        panels: what the picture shows from left to right.
        decided_by: attack that broke it, or certifier that proved it.
        magnified: factor of the difference; 0 without one.
        margin: certified lower bound of the logit margin; None where there is none.
        predicted: class that the picture is taken for, an index; None where that is the true class,
            where it is not known, and where a logit is not finite.
        is_named: whether it is known which class an adversarial image is taken for.
        row: of the adversarial file, or -1.
    """

    index: int
    label: int
    epsilon: str
    source: str
    panels: tuple[str, ...]
    decided_by: str = ""
    magnified: float = 0.0
    margin: float | None = None
    predicted: int | None = None
    is_named: bool = False
    row: int = -1


@dataclass(frozen=True)
class Gallery:
    """Figures of one entry; every part may be empty."""

    attacked: tuple[Shown, ...]
    certified: tuple[Shown, ...]
    wrong: tuple[Shown, ...]

    @property
    def is_empty(self) -> bool:
        return not (self.attacked or self.certified or self.wrong)

    @property
    def names_classes(self) -> bool:
        """Whether it is known which class each adversarial image is taken for."""
        return all(shown.is_named for shown in self.attacked)


def read_clean_images(folder: Path, fingerprint: str) -> CleanImages | None:
    """The clean images beside results, or None where there are none.

    Raises:
        ResultError: the file is damaged or belongs to other data.
    """
    path = folder / f"clean-images.{fingerprint[:8]}.npz"
    if not path.is_file():
        return None
    arrays = read_arrays(path, ("images", "indices", "fingerprint"))
    images, indices, found = arrays["images"], arrays["indices"], str(arrays["fingerprint"])
    is_images = images.dtype == np.float32 and images.ndim == 4 and len(images) == indices.size
    if not is_images or indices.dtype.kind not in "iu":
        raise ResultError(
            f"{path}: expected float32 images (m, C, H, W) and m integer `indices`, found "
            f"{images.dtype} {images.shape} and {indices.dtype} {indices.shape}; "
            "remove it and run `corobench pictures` on the results"
        )
    if found != fingerprint:
        raise ResultError(
            f"{path}: fingerprint: expected {fingerprint[:12]} as in the results beside it, found "
            f"{found[:12]}; remove it and run `corobench pictures` on the results"
        )
    return CleanImages(
        images.astype(np.float32),
        {int(index): place for place, index in enumerate(indices)},
        fingerprint,
    )


def gallery(
    result: Result,
    evidence: EntryEvidence,
    clean: CleanImages | None,
    taken: Sequence[int] | None = None,
) -> Gallery:
    """Choose and draw the figures of one entry.

    Args:
        result: of the entry.
        evidence: what lies beside it.
        clean: images of the track, or None.
        taken: class that each stored adversarial image is taken for (`records.taken`), or None.

    Raises:
        ResultError: a file beside the result is damaged, or names no other class than the true one.
    """
    has_images = evidence.has_pictures(clean)
    attacked = _attacked(evidence, clean, list(result.epsilons)) if has_images else ()
    if taken is not None:
        num_classes = len(get_track(result.track).classes)
        attacked = tuple(_named(shown, taken, num_classes) for shown in attacked)
    return Gallery(attacked, _certified(result, evidence, clean), _wrong(evidence, clean))


def png_source(picture: Picture) -> str:
    """A picture (C, H, W) in [0, 1] as the address of a PNG inside the page.

    Columns of NaN are see-through, so that they have the colour of the page, whichever that is.
    """
    is_seen = ~np.isnan(picture[:1])
    if not is_seen.all():
        picture = np.concatenate([np.nan_to_num(picture), is_seen])
    pixels = np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=False, compress_level=6)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _attacked(
    evidence: EntryEvidence, clean: CleanImages | None, epsilons: Sequence[str]
) -> tuple[Shown, ...]:
    """Per epsilon the first images that it breaks and that were not shown at a smaller one."""
    chosen: list[tuple[str, int]] = []
    seen: set[int] = set()
    for epsilon in epsilons:
        known = evidence.epsilons[epsilon]
        left = NUM_ATTACKED
        for position in np.flatnonzero((known.letters == "a") & (known.rows >= 0)):
            row, index = int(known.rows[position]), int(evidence.images[position])
            if row in seen or (clean is not None and clean.get(index) is None):
                continue
            seen.add(row)
            chosen.append((epsilon, int(position)))
            left -= 1
            if not left:
                break
    if not chosen:
        return ()
    images = evidence.adversarial(
        [int(evidence.epsilons[epsilon].rows[position]) for epsilon, position in chosen],
        [int(evidence.images[position]) for _, position in chosen],
        clean,
    )
    return tuple(
        _broken(evidence, clean, epsilon, position, image)
        for (epsilon, position), image in zip(chosen, images, strict=True)
    )


def _broken(
    evidence: EntryEvidence,
    clean: CleanImages | None,
    epsilon: str,
    position: int,
    adversarial: Picture,
) -> Shown:
    index = int(evidence.images[position])
    before = clean.get(index) if clean is not None else None
    panels: tuple[str, ...]
    if before is None:
        panels, picture, magnified = ("adversarial",), adversarial, 0.0
    else:
        magnified = 0.5 / float(parse_epsilon(epsilon))
        difference = 0.5 + (adversarial - before) * magnified
        panels = ("clean", "adversarial", "difference")
        gap = np.full((*before.shape[:2], max(1, before.shape[2] // 14)), np.nan, np.float32)
        picture = np.concatenate([before, gap, adversarial, gap, difference], axis=2)
    label, by = int(evidence.labels[position]), evidence.epsilons[epsilon].decided_by.at(position)
    row = int(evidence.epsilons[epsilon].rows[position])
    return Shown(index, label, epsilon, png_source(picture), panels, by, magnified, row=row)


def _named(shown: Shown, taken: Sequence[int], num_classes: int) -> Shown:
    """A broken image with the class that it is taken for.

    Raises:
        ResultError: there is none for it, or it is the true one.
    """
    found = taken[shown.row] if shown.row < len(taken) else shown.label
    if found == shown.label or found >= num_classes:
        raise ResultError(
            f"the class that adversarial image {shown.row} is taken for: expected one of "
            f"{num_classes} that is not its true class {shown.label}; write the file again with "
            "`corobench pictures RESULTS --submissions DIR`"
        )
    return replace(shown, predicted=None if found == NO_CLASS else found, is_named=True)


def _certified(
    result: Result, evidence: EntryEvidence, clean: CleanImages | None
) -> tuple[Shown, ...]:
    """Proven images at the largest epsilon that has any: largest and smallest margins."""
    if clean is None:
        return ()
    for epsilon in sorted(result.epsilons, key=parse_epsilon, reverse=True):
        known = evidence.epsilons[epsilon]
        proven = (known.letters == "c") & np.isfinite(known.margins)
        proven &= np.isin(evidence.images, list(clean.place))
        places = np.flatnonzero(proven)
        if len(places):
            order = places[np.argsort(-known.margins[places], kind="stable")].tolist()
            half = NUM_CERTIFIED // 2
            chosen = order if len(order) <= NUM_CERTIFIED else [*order[:half], *order[-half:]]
            return tuple(_proven(evidence, clean, epsilon, place) for place in chosen)
    return ()


def _wrong(evidence: EntryEvidence, clean: CleanImages | None) -> tuple[Shown, ...]:
    """The first images that are wrong without an attack, with the class predicted instead."""
    if clean is None:
        return ()
    wrong = (evidence.predicted != evidence.labels) & (evidence.predicted >= 0)
    wrong &= np.isin(evidence.images, list(clean.place))
    return tuple(
        Shown(
            int(evidence.images[place]),
            int(evidence.labels[place]),
            "0",
            clean.source(int(evidence.images[place])),
            ("clean",),
            predicted=int(evidence.predicted[place]),
        )
        for place in np.flatnonzero(wrong)[:NUM_WRONG]
    )


def _proven(evidence: EntryEvidence, clean: CleanImages, epsilon: str, place: int) -> Shown:
    index = int(evidence.images[place])
    margin = float(evidence.epsilons[epsilon].margins[place])
    label, by = int(evidence.labels[place]), evidence.epsilons[epsilon].decided_by.at(place)
    return Shown(index, label, epsilon, clean.source(index), ("clean",), by, margin=margin)
