"""What is written is read back and compared with what it came from, on real images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from corobench.benchmark.errors import CorobenchError, SubmissionError
from corobench.benchmark.submission.rounding import rounding
from corobench.benchmark.tracks import Track

if TYPE_CHECKING:
    from corobench.benchmark.records.manifest import Manifest
    from corobench.benchmark.records.sizes import Compactness
    from corobench.benchmark.submission.load import Submission

NUM_IMAGES = 16
SEED = 0


@dataclass(frozen=True)
class Sample:
    """Images for a self-check.

    Attributes:
        images: float32 (B, C, H, W) in [0, 1].
        what: which, for people.
    """

    images: Tensor
    what: str


def sample_images(track: Track, data_root: Path | None = None) -> Sample:
    """The first test images of a track where they are on this machine, else random ones.

    Raises:
        DatasetError: `data_root` is not a folder.
    """
    from corobench.benchmark.data import find, load_test, subset
    from corobench.benchmark.data.sources import get_data_root

    if data_root is not None:
        get_data_root(data_root)  # what is named must be there
    try:
        if any(place.is_found for place in find(track.name, data_root)):
            images, _, _ = subset(load_test(track.name, data_root), NUM_IMAGES)
            return Sample(torch.from_numpy(images), f"the first {NUM_IMAGES} test images")
    except CorobenchError:
        pass  # broken data are the evaluation's to report
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.rand(NUM_IMAGES, *track.shape, generator=generator)
    return Sample(noise, f"{NUM_IMAGES} random images, because {track.name} is not on this machine")


def largest_difference(
    source: Callable[[Tensor], Tensor], new: Callable[[Tensor], Tensor], images: Tensor, what: str
) -> float:
    """The largest difference of any logit of two networks; above rounding it is a fault.

    Raises:
        SubmissionError: another shape, or a difference that rounding does not explain.
    """
    with torch.no_grad():
        expected, found = source(images), new(images)
    if expected.shape != found.shape:
        fault = f"self-check: the source returns {list(expected.shape)}, not {list(found.shape)}"
        raise SubmissionError(what, [fault])
    difference_B = (expected - found).abs().amax(dim=1)
    tolerance_B = rounding(expected)
    difference, tolerance = float(difference_B.max()), float(tolerance_B.max())
    if not bool((difference_B <= tolerance_B).all()):
        fault = (
            "self-check: expected the reloaded submission to agree with its source within "
            f"{tolerance:.3g}, but a logit differs by {difference:.3g}"
        )
        raise SubmissionError(what, [fault])
    return difference


def merge(table: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `table`, table by table."""
    merged = dict(table)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def version_table(
    old: Manifest, name: str, kind: str, said: str, sparsity: float
) -> dict[str, Any]:
    """An entry's manifest as that of a version in another number format.

    Args:
        old: of the entry.
        name: id of the version.
        kind: of its numbers, behind title and method.
        said: in one or two sentences, behind the description.
        sparsity: of the version.
    """
    over = {
        "id": name,
        "title": f"{old.title}, {kind}",
        "description": f"{old.description} {said}".strip(),
        "parent": old.parent or old.id,
        "sparsity": sparsity,
        "method": {"name": f"{old.method.name}, {kind}"},
    }
    return merge(old.model_dump(mode="json", by_alias=True, exclude_none=True), over)


def compare_versions(
    source: Submission,
    made: Submission,
    images: Tensor,
    what: str,
    bytes_of: Callable[[Compactness], str],
    kind: str,
) -> tuple[str, ...]:
    """How an entry and its version differ on images, and what they weigh.

    Args:
        images: float32 (B, C, H, W) in [0, 1].
        what: which they are, for people.
        bytes_of: the size that is told.
        kind: its name.
    """
    with torch.no_grad():
        expected, found = source.model(images), made.model(images)
    num_same = int((expected.argmax(dim=1) == found.argmax(dim=1)).sum())
    moved = float((expected - found).abs().max())
    before, after = source.measure(), made.measure()
    return (
        f"same class as before on {num_same:,} of {len(images):,} {what}; logits move by up to "
        f"{moved:.3g}",
        f"not zero    {before.num_nonzero:,} -> {after.num_nonzero:,} parameters",
        f"bytes       {bytes_of(before)} -> {bytes_of(after)} {kind}",
    )
