"""A submission folder to a network that is ready to be measured, or all reasons why not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmark import compactness
from benchmark.errors import ConfigError, SubmissionError
from benchmark.records import Manifest
from benchmark.submission.architectures import build, find_faults
from benchmark.submission.manifest import load_manifest
from benchmark.submission.weights import (
    State,
    effective_sha256,
    is_counter,
    read_weights,
)
from benchmark.tracks import Track, get_track

#: A declared sparsity may differ from the measured one by at most this much.
SPARSITY_TOLERANCE = 0.005


@dataclass(frozen=True, eq=False)
class Submission:
    """A validated, loaded entry.

    Attributes:
        folder: where it came from.
        manifest: what it says of itself.
        track: it is evaluated on.
        model: float32 on the CPU, in eval mode, without gradients of its parameters.
        weights_sha256: of the effective weights.
        sparsity: measured share of zeros in convolution and linear weights.
    """

    folder: Path
    manifest: Manifest
    track: Track
    model: nn.Module
    weights_sha256: str
    sparsity: float


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
    architecture_faults = find_faults(
        manifest.model.architecture,
        chosen.shape,
        manifest.model.num_classes,
        manifest.model.arguments,
    )
    faults += [f"submission.toml: `model`: {fault}" for fault in architecture_faults]
    if architecture_faults:
        raise SubmissionError(folder, faults)
    # Without memory or values, so that sizes are compared before anything is allocated.
    with torch.device("meta"):
        model = build(
            manifest.model.architecture,
            chosen.shape,
            manifest.model.num_classes,
            manifest.model.arguments,
        )
    try:
        state = read_weights(folder, manifest.model.weights, model.state_dict())
    except SubmissionError as error:
        raise SubmissionError(folder, [*faults, *error.faults]) from error
    fill(model, state)
    faults += _normalize_faults(manifest, state)
    sparsity = compactness.sparsity(model)
    if abs(sparsity - manifest.sparsity) > SPARSITY_TOLERANCE:
        faults.append(
            f"submission.toml: `sparsity`: declared {manifest.sparsity:.4f}, but the weights have "
            f"{sparsity:.4f} (they may differ by {SPARSITY_TOLERANCE})"
        )
    if faults:
        raise SubmissionError(folder, faults)
    return Submission(folder, manifest, chosen, model, effective_sha256(state), sparsity)


def fill(model: nn.Module, state: State) -> None:
    """Give a network its weights, whichever device it was built on, and make it ready to measure.

    Args:
        model: from :func:`~benchmark.submission.architectures.build`.
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
