"""Every format that is read, whole and broken."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import zlib

import numpy as np
import pytest
from data_factory import (
    DEBIAN,
    SHARED,
    encode,
    idx_bytes,
    make_pixels,
    write_idx,
    write_parquet,
)

from corobench.benchmark.data import cifar10, load_test, load_train, subset, svhn
from corobench.benchmark.errors import DatasetError
from corobench.benchmark.tracks import TRACKS, published_order


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """No network, no cache, no data root of whoever runs the tests."""
    monkeypatch.setenv("COROBENCH_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("COROBENCH_DATA", raising=False)


# ------------------------------------------------------------------------------ idx


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_debian_fashion_mnist_is_canonical():
    test, train = load_test("fashion-mnist"), load_train("fashion-mnist")
    assert (test.kind, train.kind) == ("canonical", "canonical")
    assert (len(test), len(train)) == (10000, 60000)
    assert test.fingerprint == TRACKS["fashion-mnist"].fingerprint
    assert np.bincount(test.labels).tolist() == [1000] * 10


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_canonical_images_in_parquet_are_canonical(tmp_path):
    test = load_test("fashion-mnist")
    contents = [encode(pixels) for pixels in test.pixels]
    write_parquet(tmp_path / "test-00000.parquet", contents, test.labels.tolist(), "image")
    again = load_test("fashion-mnist", tmp_path)
    assert (again.kind, again.fingerprint) == ("canonical", test.fingerprint)


@pytest.mark.parametrize("layout", ["", "FashionMNIST/raw", "fashion-mnist"])
def test_idx_layouts(tmp_path, layout):
    pixels, labels = make_pixels(6, (28, 28, 1))[..., 0], np.arange(6)
    write_idx(tmp_path / layout, pixels, labels)
    test = load_test("fashion-mnist", tmp_path)
    assert test.kind == "mirror"
    assert np.array_equal(test.pixels[:, 0], pixels)
    assert np.array_equal(test.images, pixels[:, None].astype(np.float32) / np.float32(255))
    assert subset(test, 4)[2].tolist() == published_order("fashion-mnist", 6)[:4]


def test_plain_idx_is_read_too(tmp_path):
    write_idx(tmp_path, make_pixels(3, (28, 28, 1))[..., 0], np.arange(3))
    for path in tmp_path.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert len(load_test("fashion-mnist", tmp_path)) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starting with 00000803, but found nothing"),
        (idx_bytes(np.zeros(5, np.uint8)), "starting with 00000803, but found 00000801"),
        (idx_bytes(np.zeros((3, 28, 28), np.uint8))[:-1], "expected 2368 bytes .*found 2367"),
        (gzip.compress(idx_bytes(np.zeros((3, 28, 28), np.uint8)))[:-9], "complete gzip"),
        (idx_bytes(np.zeros((3, 28, 27), np.uint8)), "shape 1x28x28 .*but found 1x28x27"),
        (idx_bytes(np.zeros((4, 28, 28), np.uint8)), "found 4 images and 3 labels"),
        (gzip.compress(bytes(200_000_000), 9), "at most 188160000 bytes after decompression"),
        (bytes((0, 0, 8, 3)) + struct.pack(">3I", *[2**32 - 1] * 3), "truncated or damaged"),
    ],
    ids=["empty", "labels", "cut", "cut-gzip", "width", "count", "bomb", "huge"],
)
def test_broken_idx(tmp_path, content, message):
    write_idx(tmp_path, np.zeros((3, 28, 28), np.uint8), np.arange(3))
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        load_test("fashion-mnist", tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_idx_label_that_is_no_class(tmp_path):
    write_idx(tmp_path, np.zeros((3, 28, 28), np.uint8), np.array([0, 10, 1]))
    with pytest.raises(DatasetError, match=r"expected labels 0 to 9 .*but found 10"):
        load_test("fashion-mnist", tmp_path)


# -------------------------------------------------------------------------- parquet


@pytest.mark.parametrize(
    ("place", "column"), [("", "img"), ("data", "image"), ("plain_text", "img")]
)
def test_parquet_shards_in_the_order_of_their_names(tmp_path, place, column):
    pixels = make_pixels(5, (3, 32, 32))
    contents = [encode(image) for image in pixels]
    write_parquet(tmp_path / place / "test-00001-of-2.parquet", contents[3:], [3, 4], column)
    write_parquet(tmp_path / place / "test-00000-of-2.parquet", contents[:3], [0, 1, 2], column)
    test = load_test("cifar10", tmp_path)
    assert np.array_equal(test.pixels, pixels)
    assert test.labels.tolist() == [0, 1, 2, 3, 4]
    assert test.kind == "mirror"


def _bomb() -> bytes:
    """A valid PNG header of 60000x60000 pixels before a few bytes of data."""
    small = encode(np.zeros((3, 32, 32), np.uint8))
    header = small[12:16] + struct.pack(">2I", 60000, 60000) + small[24:29]
    return small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]


@pytest.mark.parametrize(
    ("content", "label", "message"),
    [
        (encode(make_pixels(1, (3, 32, 31))[0]), 0, r"row 0: expected a 32x32 picture.*31x32"),
        (encode(make_pixels(1, (1, 32, 32))[0]), 0, "mode RGB .*but found 32x32 of mode L"),
        (encode(make_pixels(1, (3, 32, 32))[0])[:200], 0, "expected a complete picture"),
        (b"not a picture", 0, "expected a PNG or JPEG picture"),
        (_bomb(), 0, "expected a complete picture, but found .*exceeds limit"),
        (bytes(300_000), 0, "at most 262144 bytes"),
        (encode(make_pixels(1, (3, 32, 32))[0]), 10, "expected a label 0 to 9 .*found 10"),
        (encode(make_pixels(1, (3, 32, 32))[0]), -1, "expected a label 0 to 9 .*found -1"),
        (encode(make_pixels(1, (3, 32, 32))[0]), None, "expected a label 0 to 9 .*found None"),
        (None, 0, "expected the bytes of a picture"),
    ],
    ids=["size", "mode", "cut", "text", "bomb", "long", "label", "negative", "null", "empty"],
)
def test_broken_parquet_rows(tmp_path, content, label, message):
    path = tmp_path / "test-0.parquet"
    write_parquet(path, [content], [label])
    with pytest.raises(DatasetError, match=message) as caught:
        load_test("cifar10", tmp_path)
    assert str(path) in str(caught.value)


def test_parquet_with_other_columns_or_no_parquet(tmp_path):
    path = tmp_path / "test-0.parquet"
    write_parquet(path, [b""], [0], column="picture")
    with pytest.raises(
        DatasetError, match=r"expected the columns `img` or `image`.*label, picture"
    ):
        load_test("cifar10", tmp_path)
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DatasetError, match="expected a parquet file"):
        load_test("cifar10", tmp_path)
    write_parquet(path, [], [])
    with pytest.raises(DatasetError, match="expected images, but found no rows"):
        load_test("cifar10", tmp_path)


@pytest.mark.skipif(not (SHARED / "cifar10-jpeg").is_dir(), reason="shared data is not here")
def test_public_mirror_of_cifar10():
    test = load_test("cifar10", SHARED / "cifar10-jpeg")
    assert (len(test), test.kind) == (10000, "mirror")
    assert np.bincount(test.labels).tolist() == [1000] * 10


# -------------------------------------------------------------------- image folders


@pytest.mark.parametrize(
    "names",
    [
        [str(index) for index in range(10)],
        [
            "T-shirt-top",
            "trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "ankle_boot",
        ],
        [f"n{index:04d}" for index in range(10)],
    ],
)
def test_image_folders(tmp_path, names):
    pixels = make_pixels(20, (1, 28, 28))
    for index, image in enumerate(pixels):
        folder = tmp_path / "test" / names[index % 10]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index:02d}.png").write_bytes(encode(image))
    test = load_test("fashion-mnist", tmp_path)
    assert test.labels.tolist() == sorted(list(range(10)) * 2)
    assert np.array_equal(test.pixels[0], pixels[0])
    assert np.array_equal(test.pixels[-1], pixels[19])


def test_image_folders_that_do_not_say_their_class(tmp_path):
    for name in ("cats", "dogs"):
        (tmp_path / "test" / name).mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"expected one folder per class of cifar10.*cats, dogs"):
        load_test("cifar10", tmp_path)


# -------------------------------------------------------------- CIFAR-10's and SVHN's files


def _cifar_batch(folder, monkeypatch):
    pixels = make_pixels(4, (3, 32, 32))
    content = pickle.dumps({"data": pixels.reshape(4, -1), "labels": [3, 1, 4, 1]})
    folder.mkdir(parents=True)
    (folder / "test_batch").write_bytes(content)
    md5 = hashlib.md5(content).hexdigest()
    monkeypatch.setitem(cifar10.MD5, "test", {"test_batch": md5})
    return pixels


def test_verified_cifar_batches_are_canonical(tmp_path, monkeypatch):
    pixels = _cifar_batch(tmp_path / "cifar-10-batches-py", monkeypatch)
    test = load_test("cifar10", tmp_path)
    assert test.kind == "canonical"
    assert np.array_equal(test.pixels, pixels)
    assert test.labels.tolist() == [3, 1, 4, 1]


class _Bomb:
    def __reduce__(self):
        raise_it = "raise SystemExit('a pickle was opened')"
        return (exec, (raise_it,))


def test_unverified_cifar_pickle_is_never_opened(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(DatasetError, match="a pickle that differs is never opened"):
        load_test("cifar10", tmp_path)


def test_svhn_label_ten_is_a_zero(tmp_path, monkeypatch):
    from scipy.io import savemat

    pixels = make_pixels(3, (3, 32, 32))
    stream = io.BytesIO()
    savemat(stream, {"X": pixels.transpose(2, 3, 1, 0), "y": np.array([[10], [1], [9]], np.uint8)})
    (tmp_path / "test_32x32.mat").write_bytes(stream.getvalue())
    with pytest.raises(DatasetError, match="expected the published SVHN file with md5"):
        load_test("svhn", tmp_path)
    md5 = hashlib.md5(stream.getvalue()).hexdigest()
    monkeypatch.setitem(svhn.FILES, "test", ("test_32x32.mat", md5))
    test = load_test("svhn", tmp_path)
    assert test.kind == "canonical"
    assert test.labels.tolist() == [0, 1, 9]
    assert np.array_equal(test.pixels, pixels.transpose(0, 1, 2, 3))


def test_published_checksums_are_those_of_torchvision():
    from torchvision.datasets import CIFAR10, SVHN

    assert dict(CIFAR10.test_list) == cifar10.MD5["test"]
    assert dict(CIFAR10.train_list) == cifar10.MD5["train"]
    for split in ("train", "test"):
        assert tuple(SVHN.split_list[split][1:]) == svhn.FILES[split]
