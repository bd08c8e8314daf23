"""Bytes of sparse weights in files of several kinds, and seconds to read the packed one.

    python perf/packed_sizes.py [ENTRY ...]

Each entry is a submission folder below submissions/; by default a CNN-small at three shares of
zeros and a CNN-large. All files hold the same float32 tensors by name, all lossless:

- safetensors: as it is, and compressed by gzip -9, zstd -3, zstd -19 and xz;
- packed: bitmask and values (docs/packed-format.md), alone and compressed by zstd -3 and xz;
- npz: numpy's compressed archive;
- csr: indptr, indices (int32) and values of every matrix, its first dimension against the rest, as
  scipy and torch keep them in memory; what is smaller dense stays dense.
"""

from __future__ import annotations

import argparse
import gzip
import io
import lzma
import time
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import zstandard
from torch import Tensor

from corobench.benchmark.submission import load_submission
from corobench.benchmark.submission.packed import pack
from corobench.benchmark.submission.weights import effective_state
from corobench.packed_reader import load_packed

ROOT = Path(__file__).parents[1]
ENTRIES = (
    "fashion-mnist-adv-lwm-2x",
    "fashion-mnist-adv-lwm-10x",
    "fashion-mnist-adv-lwm-100x",
    "cifar10-adv-large-lwm-10x",
)
NUM_READS = 5


def csr_bytes(tensor: Tensor) -> int:
    """Bytes of the smaller of dense and compressed rows."""
    dense = tensor.numel() * 4
    if tensor.ndim < 2:
        return dense
    matrix = tensor.reshape(len(tensor), -1)
    return min(dense, 4 * (len(matrix) + 1) + 8 * int(torch.count_nonzero(matrix)))


def npz_bytes(state: dict[str, Tensor]) -> int:
    """Bytes of numpy's compressed archive."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **{name: tensor.numpy() for name, tensor in state.items()})
    return len(stream.getvalue())


def zstd(content: bytes, level: int) -> int:
    """Bytes after zstandard."""
    return len(zstandard.ZstdCompressor(level=level).compress(content))


def measure(state: dict[str, Tensor]) -> dict[str, int]:
    """Kind of file -> bytes."""
    dense, packed = safetensors.torch.save(state), pack(state)
    found = load_packed(packed)
    assert all((found[name] == tensor.numpy()).all() for name, tensor in state.items())
    return {
        "safetensors": len(dense),
        "gzip -9": len(gzip.compress(dense, 9)),
        "zstd -3": zstd(dense, 3),
        "zstd -19": zstd(dense, 19),
        "xz": len(lzma.compress(dense)),
        "npz": npz_bytes(state),
        "csr": sum(map(csr_bytes, state.values())),
        "packed": len(packed),
        "packed + zstd -3": zstd(packed, 3),
        "packed + xz": len(lzma.compress(packed)),
    }


def reading_seconds(state: dict[str, Tensor]) -> tuple[float, float]:
    """Processor seconds of the fastest of several reads: packed, and out of xz."""
    packed, squeezed = pack(state), lzma.compress(safetensors.torch.save(state))
    best = [float("inf"), float("inf")]
    for _ in range(NUM_READS):
        for place, read in enumerate(
            (lambda: load_packed(packed), lambda: safetensors.torch.load(lzma.decompress(squeezed)))
        ):
            begin = time.process_time()
            read()
            best[place] = min(best[place], time.process_time() - begin)
    return best[0], best[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("entries", nargs="*", default=ENTRIES)
    kinds: list[str] = []
    for name in parser.parse_args().entries:
        submission = load_submission(ROOT / "submissions" / name)
        state = effective_state(submission.model.state_dict())
        sizes = measure(state)
        if not kinds:
            kinds = list(sizes)
            print(f"| entry | zeros | {' | '.join(kinds)} | read packed | read xz |")
            print(f"|---|{'---:|' * (len(kinds) + 3)}")
        packed_s, xz_s = reading_seconds(state)
        cells = " | ".join(f"{sizes[kind]:,}" for kind in kinds)
        times = f"{1000 * packed_s:.1f} ms | {1000 * xz_s:.1f} ms"
        print(f"| {name} | {100 * submission.sparsity:.1f} % | {cells} | {times} |", flush=True)


if __name__ == "__main__":
    main()
