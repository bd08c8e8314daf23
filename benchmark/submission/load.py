"""A submission folder to a network that is ready to be measured, or all reasons why not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from corobench.benchmark.errors import ConfigError, SubmissionError
from corobench.benchmark.network import compactness
from corobench.benchmark.network.sizes import Codes
from corobench.benchmark.records.result import Compactness, Manifest
from corobench.benchmark.records.sizes import FileFormat
from corobench.benchmark.submission.architectures import build, find_faults
from corobench.benchmark.submission.checkpoint import NO_ARCHIVES
from corobench.benchmark.submission.contract import Reference
from corobench.benchmark.submission.files import FileFaultError, read_plain_file
from corobench.benchmark.submission.graph.external import read_whole
from corobench.benchmark.submission.graph.network import read_network
from corobench.benchmark.submission.graph.runtime import Runtime
from corobench.benchmark.submission.header import MAX_WEIGHTS_BYTES
from corobench.benchmark.submission.headers import ONNX_SUFFIX
from corobench.benchmark.submission.kinds import is_onnx
from corobench.benchmark.submission.manifest import check_manifest, load_manifest
from corobench.benchmark.submission.weights import State, effective_sha256, is_counter, read_weights
from corobench.benchmark.tracks import Track, get_track

#: A declared sparsity may differ from the measured one by at most this much.
SPARSITY_TOLERANCE = 0.005


@dataclass(frozen=True, eq=False)
class Submission:
    """A validated, loaded entry.

    Attributes:
        folder: where it came from.
        manifest: what it says of itself; a sparsity that it leaves out is the measured one.
        track: it is evaluated on.
        model: float32 on the CPU, in eval mode, without gradients of its parameters.
        weights_sha256: of the effective weights.
        sparsity: measured share of zeros in convolution and linear weights.
        format: of the weights file: "safetensors", "onnx", or "onnx-qdq" for a quantised graph.
        reference: what the file computes in a runtime of its own; None for safetensors.
        codes: weights that the file holds as 8-bit whole numbers; None where there are none.
        notes: what of an ONNX file is computed otherwise than one might expect, for people.
    """

    folder: Path
    manifest: Manifest
    track: Track
    model: nn.Module
    weights_sha256: str
    sparsity: float
    format: FileFormat = "safetensors"
    reference: Reference | None = None
    codes: Codes | None = None
    notes: tuple[str, ...] = ()

    def measure(self) -> Compactness:
        """What the entry weighs."""
        return compactness.measure(self.model, self.track.shape, self.format, self.codes)


def load_submission(folder: Path, track: str | None = None) -> Submission:
    """Read, check and load a submission folder.

    Args:
        folder: with ``submission.toml`` and the weights file that it names.
        track: evaluate on this track instead of the manifest's; its images must have the same
            shape and number of classes.

    Raises:
        SubmissionError: every fault of the folder.
        ConfigError: `track` is none.
    """
    folder = Path(folder)
    manifest = load_manifest(folder)
    faults: list[str] = []
    asked = get_track(track) if track is not None else None
    try:
        chosen = get_track(manifest.track)
    except ConfigError as error:
        raise SubmissionError(folder, [f"submission.toml: `track`: {error}"]) from error
    if asked is not None:
        chosen = _override(chosen, asked, faults)
    if manifest.model.num_classes != chosen.num_classes:
        faults.append(
            f"submission.toml: `model.num_classes`: expected {chosen.num_classes} (track "
            f"{chosen.name}), but found {manifest.model.num_classes}"
        )
    if manifest.model.weights.endswith(".pt2"):
        raise SubmissionError(folder, [f"{manifest.model.weights}: {NO_ARCHIVES}"])
    if manifest.model.weights.endswith(ONNX_SUFFIX):
        loaded = _load_graph(folder, manifest, chosen, faults)
    else:
        loaded = _load_named(folder, manifest, chosen, faults)
    sparsity = loaded.sparsity
    if manifest.sparsity is None:
        loaded = replace(
            loaded, manifest=manifest.model_copy(update={"sparsity": round(sparsity, 6)})
        )
    elif abs(sparsity - manifest.sparsity) > SPARSITY_TOLERANCE:
        faults.append(
            f"submission.toml: `sparsity`: declared {manifest.sparsity:.4f}, but the weights have "
            f"{sparsity:.4f} (they may differ by {SPARSITY_TOLERANCE})"
        )
    if faults:
        raise SubmissionError(folder, faults)
    return loaded


def load_candidate(path: Path, track: str) -> Submission:
    """A submission folder, or an ONNX file by itself, which is a network without a manifest.

    Args:
        path: of the folder or the file.
        track: that it is evaluated on.

    Raises:
        SubmissionError: every fault.
        ConfigError: no such track.
    """
    if not is_onnx(path):
        return load_submission(path, track)
    chosen = get_track(track)
    table = {
        "schema": 1,
        "id": "candidate",
        "title": path.name,
        "authors": ["unknown"],
        "licence": "unknown",
        "track": track,
        "model": {"weights": path.name, "num_classes": chosen.num_classes},
        "method": {"name": path.name, "pipeline": "none", "pretrain_objective": "unknown"},
        "training": {"data": "unknown"},
    }
    try:
        content = read_whole(path)
        return _load_graph(path.parent, check_manifest(table), chosen, [], content)
    except FileFaultError as error:
        raise SubmissionError(path, [str(error)]) from error
    except SubmissionError as error:
        raise SubmissionError(path, error.faults) from error


def _load_named(folder: Path, manifest: Manifest, track: Track, faults: list[str]) -> Submission:
    """A network built by name and given its weights; adds to `faults` what does not stop it."""
    name = manifest.model.architecture
    if name is None:
        faults.append(
            "submission.toml: missing key `model.architecture`: expected one of `corobench "
            f"architectures`, or an ONNX file as `model.weights`, not {manifest.model.weights!r}"
        )
        raise SubmissionError(folder, faults)
    arguments = manifest.model.arguments
    architecture_faults = find_faults(name, track.shape, manifest.model.num_classes, arguments)
    faults += [f"submission.toml: `model`: {fault}" for fault in architecture_faults]
    if architecture_faults:
        raise SubmissionError(folder, faults)
    # Without memory or values, so that sizes are compared before anything is allocated.
    with torch.device("meta"):
        model = build(name, track.shape, manifest.model.num_classes, arguments)
    try:
        state = read_weights(folder, manifest.model.weights, model.state_dict())
    except SubmissionError as error:
        hint = _normalize_hint(arguments, error.faults)
        raise SubmissionError(folder, [*faults, *hint, *error.faults]) from error
    fill(model, state)
    faults += _normalize_faults(manifest, state)
    return Submission(
        folder, manifest, track, model, effective_sha256(state), compactness.sparsity(model)
    )


def _load_graph(
    folder: Path,
    manifest: Manifest,
    track: Track,
    faults: list[str],
    content: bytes | None = None,
) -> Submission:
    """A network read from an ONNX file, or its bytes; adds to `faults` what does not stop it."""
    name = manifest.model.weights
    if manifest.model.architecture is not None or manifest.model.arguments:
        faults.append(
            "submission.toml: `model`: expected neither `architecture` nor `arguments` with an "
            "ONNX file, which holds its network"
        )
    try:
        if content is None:
            content = read_plain_file(folder, name, MAX_WEIGHTS_BYTES)
        graph = read_network(content, track.shape)
    except FileFaultError as error:
        text = str(error)
        text = text if text.startswith(name) else f"{name}: {text}"
        raise SubmissionError(folder, [*faults, text]) from error
    for what, expected, found in (
        ("images", track.shape, graph.image_shape),
        ("logits", (manifest.model.num_classes,), graph.output_shape),
    ):
        if expected != found:
            way = ""
            if what == "logits":
                is_same = math.prod(expected) == math.prod(found)
                way = "; flatten them: x.flatten(1)" if is_same else "; one for each class"
            faults.append(
                f"{name}: onnx-{'input' if what == 'images' else 'output'}: expected {what} "
                f"{list(expected)} (track {track.name}), but found {list(found)}{way}"
            )
    if faults:
        raise SubmissionError(folder, faults)
    return Submission(
        folder,
        manifest,
        track,
        graph.network,
        graph.sha256(effective_sha256(graph.network.state_dict())),
        compactness.sparsity(graph.network),
        format="onnx-qdq" if graph.is_quantised else "onnx",
        # Integer kernels of some processors saturate; a file that rounds means what it says.
        reference=Runtime(content, graph.batch, optimise=not graph.is_rounded, layout=graph.layout),
        codes=graph.codes if graph.codes.num_values else None,
        notes=graph.notes,
    )


def fill(model: nn.Module, state: State) -> None:
    """Give a network its weights, whichever device it was built on, and make it ready to measure.

    Args:
        model: from :func:`~corobench.benchmark.submission.architectures.build`.
        state: effective weights that fit it; becomes the memory of the network.
    """
    counters = {name: torch.zeros((), dtype=torch.long) for name in model.state_dict()}
    whole: dict[str, Tensor] = {
        name: zero for name, zero in counters.items() if is_counter(name)
    } | dict(state)
    model.load_state_dict(whole, strict=True, assign=True)
    model.eval().requires_grad_(False)


def _override(declared: Track, asked: Track, faults: list[str]) -> Track:
    """The track that was asked for, if a model of the declared one fits it."""
    if declared.shape != asked.shape or declared.num_classes != asked.num_classes:
        faults.append(
            f"track {asked.name}: expected a model for {_describe(asked)}, but the manifest's "
            f"track {declared.name} has {_describe(declared)}"
        )
        return declared
    return asked


def _describe(track: Track) -> str:
    shape = "x".join(str(size) for size in track.shape)
    return f"{shape} images and {track.num_classes} classes"


def _normalize_hint(arguments: Mapping[str, object], faults: Sequence[str]) -> list[str]:
    """What to do where `mean` and `std` were added to a manifest, and its weights have none.

    With them the network stands behind a normalisation, and its names begin with `network.`.
    """
    if "mean" not in arguments or not any("missing tensor `network." in fault for fault in faults):
        return []
    return [
        "submission.toml: `model.arguments`: has `mean` and `std`, but the weights were written "
        "without; import the checkpoint again with --mean and --std, or leave them out"
    ]


def _normalize_faults(manifest: Manifest, state: State) -> list[str]:
    """Whether `mean` and `std` of the file are those that the manifest states."""
    faults = []
    for key in ("mean", "std"):
        stated = manifest.model.arguments.get(key)
        stored = state.get(f"normalize.{key}")
        if isinstance(stated, list) and stored is not None:
            wanted = torch.tensor(stated, dtype=torch.float32)
            if not torch.allclose(wanted, stored, rtol=1e-6, atol=0.0):
                faults.append(
                    f"{manifest.model.weights}: tensor `normalize.{key}`: expected {stated} as "
                    f"in `model.arguments.{key}`, but found {stored.tolist()}"
                )
    return faults
