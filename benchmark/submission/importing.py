"""`corobench import`: a PyTorch checkpoint to a submission folder, checked against its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.files.new_folder import fresh_folder, refuse_existing
from corobench.benchmark.network import compactness
from corobench.benchmark.records.reports import ImportReport
from corobench.benchmark.records.result import Manifest
from corobench.benchmark.submission.architectures import build
from corobench.benchmark.submission.checkpoint import read_checkpoint
from corobench.benchmark.submission.collecting import collect
from corobench.benchmark.submission.contract import check_contract, output_step
from corobench.benchmark.submission.files import FileFaultError, write_atomically
from corobench.benchmark.submission.fitting import Matched
from corobench.benchmark.submission.graph.external import read_whole
from corobench.benchmark.submission.graph.network import read_network
from corobench.benchmark.submission.load import Submission, fill, load_submission
from corobench.benchmark.submission.manifest import MANIFEST, check_manifest, format_manifest
from corobench.benchmark.submission.masks import MIN_KEEP_RATIO
from corobench.benchmark.submission.matching import match
from corobench.benchmark.submission.rounding import difference, in_quanta
from corobench.benchmark.submission.strangers import stranger
from corobench.benchmark.submission.weights import State, effective_state, write_weights
from corobench.benchmark.submission.writing import Sample, largest_difference, merge, sample_images
from corobench.benchmark.tracks import Track, get_track

WEIGHTS, ONNX_WEIGHTS = "model.safetensors", "model.onnx"
#: Below this share of zeros a model is taken for dense.
DENSE_BELOW = 0.01


def import_checkpoint(
    source: Path,
    out: Path,
    *,
    architecture: str,
    track: str,
    arguments: Mapping[str, Any] | None = None,
    title: str | None = None,
    authors: Sequence[str] = (),
    licence: str = "unknown",
    meta: Mapping[str, Any] | None = None,
    images: Tensor | None = None,
    reference: nn.Module | None = None,
    keep_ratio: float | None = None,
    min_keep_ratio: float = MIN_KEEP_RATIO,
    data_root: Path | None = None,
    state_key: str | None = None,
) -> ImportReport:
    """Write a submission folder from a checkpoint and compare it, reloaded, with its source.

    Args:
        source: a file of `torch.save` (weights only) or safetensors, whatever its name ends in.
        out: the folder to make; must not exist. Its name becomes the id.
        architecture: a name from `corobench architectures`.
        track: the submission's track.
        arguments: of the architecture, e.g. ``{"width": 0.5}``.
        title: what the board shows; the folder's name by default.
        authors: at least one name, or "unknown".
        licence: of the weights.
        meta: further tables and keys as in ``submission.toml``; they win over the others.
        images: float32 (B, C, H, W) in [0, 1] for the self-check; by default the track's first
            test images where they are on this machine, else random ones.
        reference: the model the checkpoint came from, in eval mode; by default our own network,
            given the checkpoint's tensors directly.
        keep_ratio: share of each layer that HYDRA's scores keep.
        min_keep_ratio: smallest share of a layer under HARP.
        data_root: where the track's images are looked for first.
        state_key: of the state dict, in a checkpoint that holds several; keys in keys, and what
            names begin with, are joined by dots.

    Returns:
        A report, whose text is for people.

    Raises:
        SubmissionError: the checkpoint or the manifest is refused (every fault), or the reloaded
            submission differs from its source.
        ConfigError: no such track.
        OutputError: `out` exists or cannot be written.
    """
    checkpoint, out = Path(source), Path(out)
    chosen = get_track(track)
    refuse_existing(out)
    arguments = dict(arguments or {})
    network = build(architecture, chosen.shape, chosen.num_classes, arguments)
    matched = match(
        checkpoint,
        collect(read_checkpoint(checkpoint)),
        network.state_dict(),
        key=state_key,
        keep_ratio=keep_ratio,
        min_keep_ratio=min_keep_ratio,
    )
    state = _to_weights(checkpoint, matched)
    fill(network, state)
    model = {"architecture": architecture, "weights": WEIGHTS, "arguments": arguments}
    sparsity = compactness.sparsity(network)
    table = _describe(out.name, chosen, sparsity, model)
    table |= {"title": title or out.name, "licence": licence}
    table |= {"authors": list(authors)} if authors else {}
    try:
        manifest = check_manifest(merge(table, meta or {}))
        with fresh_folder(out) as folder:
            write_atomically(folder / MANIFEST, format_manifest(manifest))
            write_weights(folder / manifest.model.weights, state)
            reloaded = load_submission(folder)
            sample = _sample(images, chosen, data_root)
            difference = largest_difference(
                reference or network, reloaded.model, sample.images, "import"
            )
    except SubmissionError as error:
        raise SubmissionError(out, error.faults) from error
    return ImportReport(
        folder=out,
        source=checkpoint,
        weights_sha256=reloaded.weights_sha256,
        sparsity=sparsity,
        prefix=matched.prefix,
        num_images=len(sample.images),
        images=sample.what,
        max_difference=difference,
        is_against_reference=reference is not None,
        notes=(*matched.notes, *_notes(manifest, matched.filled)),
    )


def _sample(images: Tensor | None, track: Track, data_root: Path | None) -> Sample:
    if images is None:
        return sample_images(track, data_root)
    return Sample(images, f"{len(images)} images given by the caller")


def import_graph(
    source: Path,
    out: Path,
    *,
    track: str,
    title: str | None = None,
    authors: Sequence[str] = (),
    licence: str = "unknown",
    meta: Mapping[str, Any] | None = None,
    data_root: Path | None = None,
) -> ImportReport:
    """Write a submission folder from an ONNX file and compare it with onnxruntime's logits.

    Args:
        source: the file; its bytes are kept, with values of files beside it brought inside.
        out: the folder to make; must not exist. Its name becomes the id.
        track: the submission's track.
        title: what the board shows; the folder's name by default.
        authors: at least one name, or "unknown".
        licence: of the weights.
        meta: further tables and keys as in ``submission.toml``.
        data_root: where the track's images are looked for first.

    Raises:
        SubmissionError: the file breaks a rule, or its network differs from onnxruntime.
        ConfigError: no such track.
        OutputError: `out` exists or cannot be written.
    """
    chosen = get_track(track)
    refuse_existing(out)
    if fault := stranger(source):
        raise SubmissionError(source, [fault])
    try:
        content = read_whole(source)
        graph = read_network(content, chosen.shape)
    except FileFaultError as error:
        raise SubmissionError(source, [str(error)]) from error
    sparsity = compactness.sparsity(graph.network)
    table = _describe(out.name, chosen, sparsity, {"weights": ONNX_WEIGHTS})
    table |= {"title": title or out.name, "licence": licence}
    table |= {"authors": list(authors)} if authors else {}
    manifest = check_manifest(merge(table, meta or {}))
    sample = sample_images(chosen, data_root)
    try:
        with fresh_folder(out) as folder:
            write_atomically(folder / MANIFEST, format_manifest(manifest))
            write_atomically(folder / ONNX_WEIGHTS, content)
            reloaded = load_submission(folder)
            assert reloaded.reference is not None
            largest, seen = _same_as_runtime(reloaded, sample.images)
            check_contract(reloaded.model, sample.images, chosen.num_classes)
    except SubmissionError as error:
        raise SubmissionError(source, error.faults) from error
    except RuntimeError as error:
        raise SubmissionError(source, [str(error)]) from error
    return ImportReport(
        folder=out,
        source=source,
        weights_sha256=reloaded.weights_sha256,
        sparsity=sparsity,
        prefix="",
        num_images=len(sample.images),
        images=f"{sample.what}, compared with onnxruntime,",
        max_difference=largest,
        is_against_reference=True,
        notes=(*seen, *graph.notes, *_notes(manifest, ())),
    )


def _same_as_runtime(submission: Submission, images: Tensor) -> tuple[float, tuple[str, ...]]:
    """The largest difference from onnxruntime, and the figures of a quantised file in words.

    Batches change the last bits of sums, which a rounding may turn into a whole step: a quantised
    file is compared one image at a time.

    Raises:
        SubmissionError: more than rounding explains.
    """
    reference, step = submission.reference, output_step(submission.model)
    assert reference is not None
    if step is None:
        return largest_difference(reference, submission.model, images, "import"), ()
    with torch.no_grad():
        found = torch.cat([submission.model(image) for image in images.split(1)])
    expected = torch.cat([reference(image) for image in images.split(1)])
    figures = in_quanta(found, expected, step)
    what, _ = difference(found, expected, step)
    if what:
        raise SubmissionError("import", [f"self-check: {what}; {figures}"])
    return float((found - expected).abs().max()), (f"quantised: {figures}",)


def _to_weights(checkpoint: Path, matched: Matched) -> State:
    """The matched tensors as float32; anything but floating point is refused by name."""
    others = [
        f"tensor `{name}`: expected a floating-point type, but found {tensor.dtype}; import the "
        "weights as real numbers, from before any quantisation"
        for name, tensor in matched.state.items()
        if not tensor.is_floating_point()
    ]
    others += [
        f"tensor `{name}`: expected finite values that float32 holds, but found "
        f"{int((~torch.isfinite(tensor.float())).sum())} others; was the training stopped by NaN?"
        for name, tensor in matched.state.items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all())
    ]
    others += [
        f"tensor `{name}`: expected variances above 0, but the smallest is "
        f"{float(tensor.min()):.3g}, whose root is NaN"
        for name, tensor in matched.state.items()
        if name.endswith("running_var") and bool((tensor < 0).any())
    ]
    if others:
        raise SubmissionError(checkpoint, others)
    return effective_state(matched.state)


def _describe(name: str, track: Track, sparsity: float, model: dict[str, Any]) -> dict[str, Any]:
    """The manifest's table as far as the checkpoint tells; the rest is "unknown"."""
    return {
        "schema": 1,
        "id": name,
        "authors": ["unknown"],
        "track": track.name,
        "sparsity": round(sparsity, 6),
        "model": {"num_classes": track.num_classes, **model},
        "method": {
            "name": name,
            "pipeline": "none" if sparsity < DENSE_BELOW else "after",
            "pretrain_objective": "unknown",
        },
        "training": {"data": "unknown"},
    }


def _notes(manifest: Manifest, filled: Sequence[str]) -> tuple[str, ...]:
    """What the checkpoint could not tell, for the submitter to fill in."""
    notes = []
    unknown = [
        key
        for key, value in (
            ("authors", manifest.authors[0]),
            ("licence", manifest.licence),
            ("method.pretrain_objective", manifest.method.pretrain_objective),
            ("training.data", manifest.training.data),
        )
        if value == "unknown"
    ]
    if unknown:
        notes.append(f"fill in what is unknown in {MANIFEST}: {', '.join(unknown)}")
    if manifest.method.pipeline == "after":
        notes.append(
            "`method.pipeline` is set to 'after'; check it, because the checkpoint does not say"
        )
    if filled:
        notes.append(f"taken from the arguments: {', '.join(filled)}")
    return tuple(notes)
