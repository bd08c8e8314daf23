"""`corobench convert --bf16`: the weights of a submission in bfloat16, as an entry of its own.

The network still computes in float32: its matrices and kernels have 8 significant bits, and take
half the bytes. Biases and normalisations stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.files.new_folder import fresh_folder, refuse_existing
from corobench.benchmark.network import compactness
from corobench.benchmark.records.reports import Converted
from corobench.benchmark.records.result import Manifest
from corobench.benchmark.submission.files import write_atomically
from corobench.benchmark.submission.load import Submission, load_submission
from corobench.benchmark.submission.manifest import MANIFEST, check_manifest, format_manifest
from corobench.benchmark.submission.weights import effective_sha256, rounded, write_weights
from corobench.benchmark.submission.writing import largest_difference, merge, sample_images

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
        lines = _compare(source, found, sample.images, sample.what)
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
    over: Mapping[str, Any] = {
        "id": name,
        "title": f"{old.title}, bf16",
        "description": f"{old.description} {said}".strip(),
        "parent": old.parent or old.id,
        "sparsity": sparsity,
        "method": {"name": f"{old.method.name}, bf16"},
        "model": {"weights": WEIGHTS},
    }
    table = old.model_dump(mode="json", by_alias=True, exclude_none=True)
    return check_manifest(merge(table, over))


def _compare(source: Submission, made: Submission, images: Tensor, what: str) -> tuple[str, ...]:
    """How the two differ, and what they weigh."""
    with torch.no_grad():
        expected, found = source.model(images), made.model(images)
    num_same = int((expected.argmax(dim=1) == found.argmax(dim=1)).sum())
    moved = float((expected - found).abs().max())
    before, after = source.measure(), made.measure()
    return (
        f"same class as before on {num_same} of {len(images)} ({what}); logits move by up to "
        f"{moved:.3g}",
        f"not zero    {before.num_nonzero:,} -> {after.num_nonzero:,} parameters",
        f"bytes       {before.bytes_stored:,} -> {after.bytes_stored:,} stored",
    )
