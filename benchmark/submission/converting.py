"""`corobench convert` and `corobench compact`: the same function in another folder, compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.files.new_folder import fresh_folder, refuse_existing
from corobench.benchmark.network import compactness
from corobench.benchmark.network.compaction import smallest_equivalent
from corobench.benchmark.records.reports import Converted
from corobench.benchmark.records.result import Manifest
from corobench.benchmark.submission.architectures import build
from corobench.benchmark.submission.files import write_atomically
from corobench.benchmark.submission.graph.exporting import export_checked
from corobench.benchmark.submission.load import Submission, fill, load_submission
from corobench.benchmark.submission.manifest import MANIFEST, check_manifest, format_manifest
from corobench.benchmark.submission.weights import effective_state, is_counter, write_weights
from corobench.benchmark.submission.writing import largest_difference, merge, sample_images

ONNX, SAFETENSORS = "model.onnx", "model.safetensors"


def to_onnx(folder: Path, out: Path, data_root: Path | None = None) -> Converted:
    """A submission as an ONNX submission.

    Raises:
        SubmissionError: faults of the folder, or a network that cannot be written as ONNX.
        OutputError: `out` exists or cannot be written.
    """
    refuse_existing(out)
    source = load_submission(folder)
    if source.format != "safetensors":
        raise SubmissionError(folder, ["is already an ONNX submission"])
    return _write_onnx(source, source.model, out, data_root)


def to_safetensors(
    folder: Path,
    out: Path,
    architecture: str,
    arguments: Mapping[str, Any],
    data_root: Path | None = None,
) -> Converted:
    """An ONNX submission as weights of a known architecture, where they are found in it.

    Layers are matched in order by the shapes of their weights, which works where the exporter
    folded nothing; the outputs decide.

    Raises:
        SubmissionError: faults of the folder, or another network than the architecture.
        OutputError: `out` exists or cannot be written.
    """
    refuse_existing(out)
    source = load_submission(folder)
    track = source.track
    network = build(architecture, track.shape, track.num_classes, arguments)
    found = [value for name, value in source.model.state_dict().items() if not is_counter(name)]
    wanted = [name for name in network.state_dict() if not is_counter(name)]
    shapes = [tuple(network.state_dict()[name].shape) for name in wanted]
    if [tuple(tensor.shape) for tensor in found] != shapes:
        raise SubmissionError(
            folder,
            [
                f"expected the {len(wanted)} tensors of {architecture}, in order, but found "
                f"{len(found)} or other shapes; exporters fold batch-norm into convolutions, and "
                "that cannot be undone"
            ],
        )
    state = dict(zip(wanted, found, strict=True))
    fill(network, effective_state(state))
    model = {
        "architecture": architecture,
        "weights": SAFETENSORS,
        "arguments": dict(arguments),
    }
    manifest = _manifest_of(source, out.name, model)
    sample = sample_images(track, data_root)
    with fresh_folder(out) as fresh:
        write_weights(fresh / SAFETENSORS, state)
        write_atomically(fresh / MANIFEST, format_manifest(manifest))
        reloaded = load_submission(fresh)
        difference = largest_difference(source.model, reloaded.model, sample.images, str(folder))
    return Converted(out, folder, difference, sample.what)


def compact(folder: Path, out: Path, data_root: Path | None = None) -> Converted:
    """The smallest dense network with the same outputs, as an ONNX submission.

    Raises:
        SubmissionError: faults of the folder; a network without two layers of which one alone reads
            the other; or one without a removable channel.
        OutputError: `out` exists or cannot be written.
    """
    refuse_existing(out)
    source = load_submission(folder)
    found = smallest_equivalent(source.model, source.track.shape)
    if found is None:
        raise SubmissionError(
            folder,
            ["expected a chain of layers, or blocks of layers that nothing else reads"],
        )
    chain, num_channels, num_removed = found
    if not num_removed:
        raise SubmissionError(folder, [f"none of {num_channels} channels can be removed"])
    before = source.measure()
    after = compactness.measure(chain, source.track.shape)
    lines = (
        f"channels    {num_removed:,} of {num_channels:,} removed",
        f"parameters  {before.num_parameters:,} -> {after.num_parameters:,}",
        f"multiply-adds {before.macs_dense:,} -> {after.macs_dense:,} in a dense engine",
        f"bytes       {before.bytes_dense:,} -> {after.bytes_dense:,} dense",
    )
    return _write_onnx(source, chain, out, data_root, lines)


def _write_onnx(
    source: Submission,
    model: nn.Module,
    out: Path,
    data_root: Path | None,
    lines: Sequence[str] = (),
) -> Converted:
    sample = sample_images(source.track, data_root)
    _agree(source, model, sample.images)
    content, graph, _ = export_checked(model, source.track.shape, sample.images)
    table = {
        "sparsity": round(compactness.sparsity(graph.network), 6),
        "model": {"weights": ONNX, "num_classes": source.track.num_classes},
    }
    manifest = _manifest_of(source, out.name, table.pop("model"), table)
    with fresh_folder(out) as fresh:
        write_atomically(fresh / ONNX, content)
        write_atomically(fresh / MANIFEST, format_manifest(manifest))
        reloaded = load_submission(fresh)
        difference = largest_difference(
            source.model, reloaded.model, sample.images, str(source.folder)
        )
    return Converted(out, source.folder, difference, sample.what, tuple(lines))


def _agree(source: Submission, model: nn.Module, images: Tensor) -> None:
    if model is not source.model:
        largest_difference(source.model, model, images, str(source.folder))


def _manifest_of(
    source: Submission, name: str, model: object, over: Mapping[str, Any] | None = None
) -> Manifest:
    """The source's manifest under another id and with another table `[model]`."""
    table = source.manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    return check_manifest(merge(table, over or {}) | {"id": name, "model": model})
