"""Images and labels of one evaluation, as a file that workers share in memory."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

from corobench.benchmark.files.atomic import write_atomic


def write_images(folder: Path, x: np.ndarray, y: np.ndarray) -> tuple[str, str]:
    """Write them once.

    Args:
        folder: existing; the file is named after its content.
        x: float32 (n, C, H, W).
        y: int64 (n,).

    Returns:
        Name and sha256 of the file.
    """
    buffer = io.BytesIO()
    rows = np.empty(len(x), [("x", np.float32, x.shape[1:]), ("y", np.int64)])
    rows["x"], rows["y"] = x, y
    np.save(buffer, rows, allow_pickle=False)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    write_atomic(folder / f"images-{digest}.npy", content)
    return f"images-{digest}.npy", digest
