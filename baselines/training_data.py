"""Training images as tensors on the device, split once into a fitted and a held-out part.

No loader and no workers: a batch is one indexing of a tensor. Test images are never seen here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from corobench.benchmark.data import load_train
from corobench.benchmark.errors import ConfigError
from corobench.benchmark.tracks import derive_seed

Augmentation = Literal["none", "crop", "flip", "crop-flip"]


@dataclass(frozen=True)
class TrainingData:
    """Two parts of a track's training set.

    Attributes:
        x_NCHW, labels_N: images to fit, float32 in [0, 1], and their int64 classes.
        held_x_NCHW, held_labels_N: images held out to select the epoch.
        kind: "canonical" or "mirror".
        fingerprint: of the whole training set.
    """

    x_NCHW: Tensor
    labels_N: Tensor
    held_x_NCHW: Tensor
    held_labels_N: Tensor
    kind: str
    fingerprint: str

    @property
    def device(self) -> torch.device:
        return self.x_NCHW.device


def load(
    track: str,
    seed: int,
    validation_rate: float,
    validation_images: int,
    device: torch.device,
    data_root: Path | None = None,
) -> TrainingData:
    """Load and split a track's training set; the split depends on track and seed alone.

    Args:
        validation_rate: share held out, in (0, 1).
        validation_images: at most this many held-out images are kept to be measured.

    Raises:
        DatasetError: the data is not there.
        ConfigError: a part would be empty.
    """
    dataset = load_train(track, data_root)
    num_held = round(len(dataset.labels) * validation_rate)
    if not 0 < num_held < len(dataset.labels):
        raise ConfigError(
            f"validation_rate {validation_rate}: leaves {num_held} of {len(dataset.labels)} "
            "training images to select from; both parts need images"
        )
    generator = torch.Generator().manual_seed(derive_seed(seed, track, "train:split"))
    order = torch.randperm(len(dataset.labels), generator=generator)
    images = torch.from_numpy(dataset.images)
    labels = torch.from_numpy(dataset.labels)
    held, fitted = order[:num_held][:validation_images], order[num_held:]
    return TrainingData(
        x_NCHW=images[fitted].to(device),
        labels_N=labels[fitted].to(device),
        held_x_NCHW=images[held].to(device),
        held_labels_N=labels[held].to(device),
        kind=dataset.kind,
        fingerprint=dataset.fingerprint,
    )


def batches_of(num_images: int, batch_size: int, seed: int) -> tuple[Tensor, ...]:
    """Indices of each batch of one epoch: a seeded order, without the smaller last batch.

    A set smaller than one batch is one batch.

    >>> [len(batch) for batch in batches_of(10, 4, seed=0)]
    [4, 4]
    """
    order = torch.randperm(num_images, generator=torch.Generator().manual_seed(seed))
    num_batches = num_images // batch_size
    return order[: num_batches * batch_size].split(batch_size) if num_batches else (order,)


def augment(x_BCHW: Tensor, kind: Augmentation, generator: torch.Generator) -> Tensor:
    """Shift each image by up to an eighth of its side, zeros coming in, or mirror half, or both.

    Args:
        x_BCHW: images in [0, 1].
        kind: what is done to them.
        generator: on the images' device.
    """
    if kind == "none":
        return x_BCHW
    num, _, height, width = x_BCHW.shape
    device = x_BCHW.device
    if kind == "flip":
        mirrored_B111 = torch.rand(num, 1, 1, 1, generator=generator, device=device) < 0.5
        return torch.where(mirrored_B111, x_BCHW.flip(3), x_BCHW)

    def shifted(side: int) -> tuple[int, Tensor]:
        pad = side // 8
        shift_B = torch.randint(0, 2 * pad + 1, (num,), generator=generator, device=device)
        return pad, shift_B[:, None] + torch.arange(side, device=device)

    pad_rows, rows_BH = shifted(height)
    pad_columns, columns_BW = shifted(width)
    if kind == "crop-flip":
        mirrored_B = torch.rand(num, generator=generator, device=device) < 0.5
        columns_BW = torch.where(mirrored_B[:, None], columns_BW.flip(1), columns_BW)
    padded = torch.nn.functional.pad(x_BCHW, (pad_columns, pad_columns, pad_rows, pad_rows))
    image_B = torch.arange(num, device=device)[:, None, None]
    # Advanced indices around the channel slice put the channels last.
    return padded[image_B, :, rows_BH[:, :, None], columns_BW[:, None, :]].permute(0, 3, 1, 2)
