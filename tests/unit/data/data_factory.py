"""Small datasets on disk in every format that is read."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SHARED = Path(__file__).parents[4] / "shared" / "data"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def make_pixels(num_images: int, shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Random uint8 (N, C, H, W)."""
    return np.random.default_rng(seed).integers(0, 256, (num_images, *shape), dtype=np.uint8)


def encode(pixels_CHW: np.ndarray, kind: str = "PNG") -> bytes:
    """One image as a PNG or JPEG file."""
    pixels_HWC = pixels_CHW.transpose(1, 2, 0)
    picture = Image.fromarray(pixels_HWC[:, :, 0] if pixels_HWC.shape[2] == 1 else pixels_HWC)
    stream = io.BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


def write_parquet(
    path: Path, contents: list[bytes], labels: list[int], column: str = "img"
) -> None:
    """Hub-style parquet of encoded images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": content, "path": None} for content in contents]
    struct_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(
        pa.table({column: pa.array(images, struct_type), "label": pa.array(labels)}), path
    )


def idx_bytes(array: np.ndarray) -> bytes:
    """A uint8 array as an idx file."""
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def write_idx(folder: Path, pixels_NHW: np.ndarray, labels_N: np.ndarray) -> None:
    """A small Fashion-MNIST test set, gzipped."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, array in (
        ("t10k-images-idx3-ubyte", pixels_NHW),
        ("t10k-labels-idx1-ubyte", labels_N.astype(np.uint8)),
    ):
        (folder / f"{stem}.gz").write_bytes(gzip.compress(idx_bytes(array), mtime=0))
