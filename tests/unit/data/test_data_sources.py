"""The order of the search, and the one error of a missing dataset."""

from __future__ import annotations

import socket

import numpy as np
import pytest
from data_factory import encode, make_pixels, write_idx, write_parquet

from corobench.benchmark.data import fashion_mnist, find, load_test, load_train, sources, svhn
from corobench.benchmark.errors import DatasetError


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """No system copy, no cache, no data root of whoever runs the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "cache_folder", lambda track: tmp_path / "cache" / track)
    monkeypatch.delenv("COROBENCH_DATA", raising=False)
    monkeypatch.setenv("COROBENCH_OFFLINE", "1")
    monkeypatch.setitem(sources.SYSTEM, "fashion-mnist", (tmp_path / "system", "apt-get x"))


def _idx(folder, num_images):
    write_idx(folder, np.zeros((num_images, 28, 28), np.uint8), np.zeros(num_images))


def test_order_of_the_search(tmp_path, monkeypatch):
    root, named = tmp_path / "root", tmp_path / "environment"
    for num_images, folder in enumerate(
        [tmp_path / "cache" / "fashion-mnist", tmp_path / "system", named, root], start=1
    ):
        _idx(folder, num_images)
        monkeypatch.setenv("COROBENCH_DATA", str(named) if named.is_dir() else "")
        given = root if root.is_dir() else None
        assert len(load_test("fashion-mnist", given)) == num_images
    places = find("fashion-mnist", root)
    assert [place.is_found for place in places] == [True, True, True]
    assert places[0].where == str(root)


def test_missing_dataset_lists_the_three_ways(tmp_path):
    for split, load in (("test", load_test), ("train", load_train)):
        with pytest.raises(DatasetError) as caught:
            load("fashion-mnist")
        message = str(caught.value)
        assert f"the {split} images of fashion-mnist (Fashion-MNIST) were not found" in message
        for way in ("1. a folder: --data-root", "2. a system copy: `apt-get x`", "3. torchvision"):
            assert way in message
        assert "COROBENCH_OFFLINE is set" in message
    assert [place.is_found for place in find("fashion-mnist")] == [False, False, False]
    assert not (tmp_path / "cache").exists()


def test_data_root_that_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(DatasetError, match="--data-root: expected a folder"):
        load_test("cifar10", tmp_path / "nowhere")
    monkeypatch.setenv("COROBENCH_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match="COROBENCH_DATA: expected a folder"):
        load_test("cifar10")
    assert find("cifar10")[0].is_found is False


def test_broken_data_is_not_passed_over(tmp_path):
    _idx(tmp_path / "system", 3)
    _idx(tmp_path / "root", 3)
    (tmp_path / "root" / "t10k-images-idx3-ubyte.gz").write_bytes(b"broken")
    with pytest.raises(DatasetError, match="root"):
        load_test("fashion-mnist", tmp_path / "root")


def test_folder_named_after_another_track_is_not_taken(tmp_path):
    root = tmp_path / "cifar10-png"
    write_parquet(root / "test-0.parquet", [encode(make_pixels(1, (3, 32, 32))[0])], [0])
    assert len(load_test("cifar10", root)) == 1
    with pytest.raises(DatasetError, match="were not found"):
        load_test("svhn", root)


def _refused(*arguments, **options):
    raise OSError("no network in this test")


def test_failed_download_is_one_clear_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("COROBENCH_OFFLINE")
    monkeypatch.setattr(socket, "create_connection", _refused)
    monkeypatch.setattr(socket, "getaddrinfo", _refused)
    for track in ("fashion-mnist", "cifar10", "svhn"):
        with pytest.raises(DatasetError, match=r"(?s)Three ways.*failed \(.*no network"):
            load_test(track)
        assert list((tmp_path / "cache" / track).iterdir()) == []
    assert socket.getdefaulttimeout() is None


def test_download_is_kept_and_half_of_one_is_not(tmp_path, monkeypatch):
    monkeypatch.delenv("COROBENCH_OFFLINE")

    def whole(folder, split):
        _idx(folder / "FashionMNIST" / "raw", 4)

    def half(folder, split):
        (folder / "test_32x32.mat").write_bytes(b"half")
        raise ConnectionResetError("cut off")

    monkeypatch.setattr(fashion_mnist, "download", whole)
    monkeypatch.setattr(svhn, "download", half)
    assert len(load_test("fashion-mnist")) == 4
    monkeypatch.setattr(fashion_mnist, "download", _refused)
    assert len(load_test("fashion-mnist")) == 4
    with pytest.raises(DatasetError, match="ConnectionResetError: cut off"):
        load_test("svhn")
    assert list((tmp_path / "cache" / "svhn").iterdir()) == []
