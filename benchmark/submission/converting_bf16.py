"""`corobench convert --bf16`: the weights of a submission in bfloat16, as an entry of its own.

The network still computes in float32: its matrices and kernels have 8 significant bits, and take
half the bytes. Biases and normalisations stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor

from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.files.new_folder import fresh_folder, refuse_existing
from corobench.benchmark.network import compactness
from corobench.benchmark.records.reports import Converted
from corobench.benchmark.records.result import Manifest
from corobench.benchmark.records.sizes import Compactness
from corobench.benchmark.submission.files import write_atomically
from corobench.benchmark.submission.load import Submission, load_submission
from corobench.benchmark.submission.manifest import MANIFEST, check_manifest, format_manifest
from corobench.benchmark.submission.weights import effective_sha256, rounded, write_weights
from corobench.benchmark.submission.writing import (
    compare_versions,
    largest_difference,
    merge,
    sample_images,
    version_table,
)

WEIGHTS = "model.safetensors"


def to_bf16(folder: Path, out: Path, data_root: Path | None = None) -> Converted:
    """A submission with weights of a named architecture as one whose weights are bfloat16.

    Args:
        folder: of the submission.
        out: the new folder.
        data_root: where the dataset is; without it the two are compared on random images.

    Raises:
        SubmissionError: faults of the folder, an ONNX file, weights that are bfloat16 values
            already, or one that is too large for the type.
        OutputError: `out` exists or cannot be written.
    """
    refuse_existing(out)
    source = load_submission(folder)
    if source.format != "safetensors":
        raise SubmissionError(
            folder,
            [
                "expected the weights of a named architecture, but found an ONNX file; "
                "`corobench convert --architecture NAME` makes them of it"
            ],
        )
    made = deepcopy(source.model)
    made.load_state_dict(rounded(made.state_dict(), torch.bfloat16))
    _check_rounding(folder, source, made.state_dict())
    sample = sample_images(source.track, data_root)
    manifest = _manifest(source, out.name, round(compactness.sparsity(made), 6))
    with fresh_folder(out) as fresh:
        write_weights(fresh / WEIGHTS, made.state_dict(), torch.bfloat16)
        write_atomically(fresh / MANIFEST, format_manifest(manifest))
        found = load_submission(fresh)
        difference = largest_difference(made, found.model, sample.images, str(folder))
        what = f"({sample.what})"
        lines = compare_versions(source, found, sample.images, what, _stored, "stored")
    return Converted(
        out, source.folder, difference, f"{sample.what}, to its rounded source,", lines
    )


def _check_rounding(folder: Path, source: Submission, state: Mapping[str, Tensor]) -> None:
    too_large = [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]
    if too_large:
        raise SubmissionError(
            folder, [f"{too_large[0]}: expected values that bfloat16 holds, but one is too large"]
        )
    if effective_sha256(state) == source.weights_sha256:
        raise SubmissionError(folder, ["has weights of bfloat16 values already"])


def _manifest(source: Submission, name: str, sparsity: float) -> Manifest:
    """The source's manifest as that of its bfloat16 version."""
    old = source.manifest
    said = f"bfloat16 version of {old.id}: weights rounded to 8 significant bits, biases float32."
    table = version_table(old, name, "bf16", said, sparsity)
    return check_manifest(merge(table, {"model": {"weights": WEIGHTS}}))


def _stored(size: Compactness) -> str:
    return f"{size.bytes_stored:,}"
