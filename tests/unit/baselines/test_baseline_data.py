"""Training data: split once, never a test image; batches and shifts from seeds."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from corobench import baselines
from corobench.baselines.training_data import augment, batches_of, load
from corobench.benchmark.data import load_train
from corobench.benchmark.errors import ConfigError

CPU = torch.device("cpu")


def test_both_parts_together_are_the_training_set() -> None:
    data = load("digits", 0, 0.1, 10_000, CPU)
    whole = load_train("digits")
    assert len(data.labels_N) + len(data.held_labels_N) == len(whole.labels)
    together = torch.cat([data.x_NCHW, data.held_x_NCHW]).flatten(1)
    expected = torch.from_numpy(whole.images).flatten(1)
    assert torch.equal(together.sum(dim=1).sort().values, expected.sum(dim=1).sort().values)


def test_the_split_depends_on_the_seed_and_the_cap_only_shortens_it() -> None:
    first, again = (load("digits", 0, 0.2, 50, CPU) for _ in range(2))
    assert torch.equal(first.held_x_NCHW, again.held_x_NCHW)
    full, other = load("digits", 0, 0.2, 10_000, CPU), load("digits", 1, 0.2, 50, CPU)
    assert torch.equal(first.held_x_NCHW, full.held_x_NCHW[:50])
    assert torch.equal(first.x_NCHW, full.x_NCHW)
    assert not torch.equal(first.held_x_NCHW, other.held_x_NCHW)


def test_no_file_of_the_package_can_load_test_images() -> None:
    for path in sorted(Path(next(iter(baselines.__path__))).rglob("*.py")):
        names = {
            name.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom | ast.Import)
            for name in node.names
        }
        assert "load_test" not in names and "corobench.benchmark.data" not in names, path


def test_an_empty_part_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"validation_rate 0\.0001"):
        load("digits", 0, 0.0001, 10, CPU)


def test_batches_are_disjoint_and_seeded() -> None:
    batches = batches_of(100, 32, seed=5)
    seen = torch.cat(batches)
    assert len(seen) == 96 == len(seen.unique())
    assert torch.equal(seen, torch.cat(batches_of(100, 32, seed=5)))
    assert not torch.equal(seen, torch.cat(batches_of(100, 32, seed=6)))
    assert [len(batch) for batch in batches_of(5, 32, seed=0)] == [5]


@pytest.mark.parametrize("kind", ["crop", "crop-flip"])
def test_each_image_becomes_a_shift_of_itself_or_of_its_mirror(kind: str) -> None:
    x = torch.rand(12, 2, 8, 16)
    found = augment(x, kind, torch.Generator().manual_seed(0))
    assert found.shape == x.shape
    padded = torch.nn.functional.pad(x, (2, 2, 1, 1))
    shifts = [padded[:, :, r : r + 8, c : c + 16] for r in range(3) for c in range(5)]
    if kind == "crop-flip":
        shifts += [shift.flip(3) for shift in shifts]
    matches = torch.stack([(shift == found).flatten(1).all(dim=1) for shift in shifts])
    assert matches.any(dim=0).all()
    assert matches.any(dim=1).sum() > 3


def test_flip_mirrors_some_images_and_leaves_the_others() -> None:
    x = torch.rand(40, 2, 8, 16)
    found = augment(x, "flip", torch.Generator().manual_seed(0))
    is_same = (found == x).flatten(1).all(dim=1)
    is_mirror = (found == x.flip(3)).flatten(1).all(dim=1)
    assert torch.equal(is_same, ~is_mirror)
    assert 5 < int(is_mirror.sum()) < 35


def test_no_augmentation_is_the_images_themselves() -> None:
    x = torch.rand(2, 1, 8, 8)
    assert augment(x, "none", torch.Generator()) is x
