"""digits: the embedded default, its split, its fingerprint and its subsets."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from corobench.benchmark.data import find, load_test, load_train, subset
from corobench.benchmark.data.fingerprint import compute_fingerprint
from corobench.benchmark.errors import ConfigError, DatasetError
from corobench.benchmark.tracks import TRACKS, published_order


def _as_multiset(pixels, labels):
    return sorted((image.tobytes(), int(y)) for image, y in zip(pixels, labels, strict=True))


def test_both_splits_are_canonical_and_disjoint():
    test, train = load_test("digits"), load_train("digits")
    assert (len(test), len(train)) == (500, 1297)
    assert test.kind == train.kind == "canonical"
    assert test.fingerprint == TRACKS["digits"].fingerprint

    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.concatenate([test.pixels, train.pixels])
    labels = np.concatenate([test.labels, train.labels])
    assert _as_multiset(pixels, labels) == _as_multiset(bunch.images.astype(np.uint8), bunch.target)


def test_split_is_the_documented_one():
    from sklearn.datasets import load_digits

    def key(index: int) -> str:
        return hashlib.sha256(f"digits-split:{index}".encode()).hexdigest()

    first = min(range(1797), key=key)
    test = load_test("digits")
    assert np.array_equal(test.pixels[0, 0], load_digits().images[first])
    assert test.labels[0] == load_digits().target[first]


def test_images_are_sixteenths():
    test = load_test("digits")
    assert test.images.dtype == np.float32 and test.labels.dtype == np.int64
    assert test.images.shape == (500, 1, 8, 8)
    assert np.array_equal(test.images * 16, test.pixels)
    assert (test.images.min(), test.images.max()) == (0.0, 1.0)


def test_subsets_are_nested_and_follow_the_published_order():
    test = load_test("digits")
    images, labels, indices = subset(test, 500)
    assert indices.tolist() == published_order("digits", 500)
    assert sorted(indices.tolist()) == list(range(500))
    small = subset(test, 100)
    assert np.array_equal(small[0], images[:100])
    assert np.array_equal(small[1], labels[:100])
    assert np.array_equal(images[7], test.images[indices[7]])


@pytest.mark.parametrize("n", [0, -1, 501])
def test_subset_that_is_not_there(n):
    with pytest.raises(DatasetError, match=r"expected a subset of 1 to 500 images.*but got"):
        subset(load_test("digits"), n)


def test_unknown_track_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'digits'"):
        load_test("digit")


def test_info_and_find():
    test = load_test("digits")
    assert test.info.model_dump() == {
        "kind": "canonical",
        "fingerprint": test.fingerprint,
        "source": test.source,
    }
    assert [place.is_found for place in find("digits")] == [True]


def test_fingerprint_is_the_documented_layout():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 1, 2, 3)
    labels = np.array([3, 258], dtype=np.int64)
    layout = (
        b"corobench-fingerprint-1\n2 1 2 3\n" + bytes(range(12)) + bytes((3, 0)) + bytes((2, 1))
    )
    assert compute_fingerprint(pixels, labels) == hashlib.sha256(layout).hexdigest()


def test_fingerprint_depends_on_memory_layout_of_nothing():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2)
    strided = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    labels = np.zeros(2, dtype=np.int64)
    assert compute_fingerprint(strided, labels) == compute_fingerprint(pixels, labels)
