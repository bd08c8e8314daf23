"""`corobench convert --int8`: a submission in 8-bit whole numbers, as an entry of its own."""

from __future__ import annotations

from pathlib import Path

import torch

from corobench.benchmark.data import Dataset, load_train
from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.files.new_folder import fresh_folder, refuse_existing
from corobench.benchmark.records.reports import Converted
from corobench.benchmark.records.result import Manifest
from corobench.benchmark.records.sizes import Compactness
from corobench.benchmark.submission.files import write_atomically
from corobench.benchmark.submission.graph.network import read_network
from corobench.benchmark.submission.graph.writing_qdq import write_qdq
from corobench.benchmark.submission.load import Submission, load_submission
from corobench.benchmark.submission.manifest import MANIFEST, check_manifest, format_manifest
from corobench.benchmark.submission.quantising import NotQuantisableError, quantise_network
from corobench.benchmark.submission.writing import (
    NUM_IMAGES,
    compare_versions,
    largest_difference,
    version_table,
)

WEIGHTS = "model.onnx"
#: Training images, the first of the training set in its own order, on which activations are
#: measured, and on how many of them the two networks are compared.
NUM_CALIBRATION, NUM_COMPARED = 10_000, 1_000


def to_int8(folder: Path, out: Path, data_root: Path | None = None) -> Converted:
    """A submission as one with int8 weights and uint8 activations, in an ONNX file (QDQ).

    Activations are measured on training images; no test image is read.

    Args:
        folder: of the submission.
        out: the new folder.
        data_root: where the dataset is, see `benchmark.data.load_train`.

    Raises:
        SubmissionError: faults of the folder, a network that is quantised already, or one that is
            not a chain of the layers that are supported.
        DatasetError: the training images are missing.
        OutputError: `out` exists or cannot be written.
    """
    refuse_existing(out)
    source = load_submission(folder)
    if source.format == "onnx-qdq":
        raise SubmissionError(
            folder, ["is already quantised; convert the entry that it was made from"]
        )
    train = load_train(source.track.name, data_root)
    images = torch.from_numpy(train.take(range(min(NUM_CALIBRATION, len(train)))))
    try:
        network = quantise_network(source.model, source.track.shape, images)
    except NotQuantisableError as error:
        raise SubmissionError(folder, [str(error)]) from error
    content = write_qdq(network)
    sparsity = _sparsity(content)
    manifest = _manifest(source, out.name, sparsity, _calibrated_on(train, len(images)))
    compared = images[:NUM_COMPARED]
    with fresh_folder(out) as fresh:
        write_atomically(fresh / WEIGHTS, content)
        write_atomically(fresh / MANIFEST, format_manifest(manifest))
        made = load_submission(fresh)
        assert made.reference is not None
        difference = largest_difference(
            made.reference, made.model, compared[:NUM_IMAGES], str(folder)
        )
        lines = compare_versions(source, made, compared, "training images", _coded, "coded")
    what = f"{min(NUM_IMAGES, len(images))} training images, compared with onnxruntime,"
    return Converted(out, source.folder, difference, what, lines)


def _sparsity(content: bytes) -> float:
    from corobench.benchmark.network import compactness

    return round(compactness.sparsity(read_network(content).network), 6)


def _calibrated_on(train: Dataset, num_images: int) -> str:
    images = f"the first {num_images:,} training images"
    return images if train.kind == "canonical" else f"{images} (mirror)"


def _manifest(source: Submission, name: str, sparsity: float, calibrated_on: str) -> Manifest:
    """The source's manifest as that of its int8 version."""
    old = source.manifest
    said = (
        f"int8 version of {old.id}: weights int8 with a scale per output channel, activations "
        f"uint8; largest activations measured on {calibrated_on}, no image of the test set."
    )
    table = version_table(old, name, "int8", said, sparsity)
    model = {"weights": WEIGHTS, "num_classes": source.track.num_classes}
    return check_manifest(table | {"model": model})


def _coded(size: Compactness) -> str:
    return "unknown" if size.bytes_coded is None else f"{size.bytes_coded:,}"
