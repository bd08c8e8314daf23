"""Which images a result must be about is known without a dataset, and agrees with those there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from corobench.benchmark.data import find, load_test, subset
from corobench.benchmark.records.reading.published import (
    KNOWN,
    images_fault,
    label_digest,
    labels_fault,
)
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.result import DataInfo
from corobench.benchmark.tracks import TRACKS, published_order

ROOT = Path(__file__).parents[3]
FOLDERS = sorted((ROOT / "leaderboard" / "results" / "1.0").iterdir())
DIGITS = DataInfo(kind="canonical", fingerprint=TRACKS["digits"].fingerprint)
MIRROR = DataInfo(kind="mirror", fingerprint="ab" * 32)


@pytest.mark.parametrize("track", ["digits", "fashion-mnist"])
def test_what_is_kept_of_a_test_set_is_what_the_dataset_has(track: str) -> None:
    if not any(place.is_found for place in find(track)):
        pytest.skip(f"{track} is not on this machine")
    dataset = load_test(track)
    known = KNOWN[dataset.fingerprint]
    assert (known.track, known.num_images) == (track, len(dataset))
    assert sorted(known.labels) == list(TRACKS[track].subsets)
    for n, digest in known.labels.items():
        _, labels, indices = subset(dataset, n)
        assert label_digest(labels) == digest
        assert images_fault(track, dataset.info, indices) == ""
        assert labels_fault(track, dataset.info, labels) == ""
        labels[n - 1] = (labels[n - 1] + 1) % 10
        assert "label: expected" in labels_fault(track, dataset.info, labels)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_published_test_set_is_known_with_all_sizes_that_may_be_published(
    folder: Path,
) -> None:
    for path in folder.glob("*.json"):
        known = KNOWN[read_result(path).data.fingerprint]
        assert set(TRACKS[folder.name].subsets) <= set(known.labels)


@pytest.mark.parametrize("n", [1, 8, 99, 500])
def test_labels_of_digits_are_compared_at_every_n(n: int) -> None:
    _, labels, _ = subset(load_test("digits"), n)
    assert labels_fault("digits", DIGITS, labels) == ""
    labels[n - 1] = (labels[n - 1] + 1) % 10
    said = labels_fault("digits", DIGITS, labels)
    assert f"at position {n - 1}" in said


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images + 100_000,
        lambda images: images[::-1],
        lambda images: np.roll(images, 1),
        lambda images: np.sort(images),
        lambda images: np.where(np.arange(len(images)) == 5, images[4], images),
        lambda images: -images,
        lambda images: np.arange(len(images)),
    ],
    ids=["shifted", "reversed", "rolled", "sorted", "double", "negative", "counted"],
)
def test_other_images_than_the_published_ones_are_named(change) -> None:  # type: ignore[no-untyped-def]
    images = np.asarray(published_order("digits", 500))[:100]
    assert images_fault("digits", DIGITS, images) == ""
    assert "image: expected the published order of digits" in images_fault(
        "digits", DIGITS, change(images)
    )


@pytest.mark.parametrize("num_images", [40, 480, 500, 700])
def test_a_mirror_keeps_the_order_of_the_images_it_has(num_images: int) -> None:
    """How many those are is not in a result, and need not be."""
    images = np.asarray(published_order("digits", num_images))[:30]
    assert images_fault("digits", MIRROR, images) == ""
    assert images_fault("digits", MIRROR, images[::-1]) != ""
    chosen = np.asarray(published_order("digits", num_images))[5:35]
    assert images_fault("digits", MIRROR, chosen) != ""


def test_an_index_that_no_test_set_has_is_refused_without_counting_up_to_it() -> None:
    assert "from 0 to 4999" in images_fault("digits", MIRROR, np.array([2**31 - 1]))


def test_no_images_are_no_agreement() -> None:
    assert "found none" in images_fault("digits", DIGITS, np.zeros(0, dtype=np.int64))
