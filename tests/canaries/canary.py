"""What a canary is: a network that rounding breaks where real arithmetic proves it right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from canaries.onnx_file import write_onnx
from corobench.benchmark.data import load_test, subset
from corobench.benchmark.submission.manifest import check_manifest, format_manifest
from corobench.benchmark.tracks import TRACKS
from perf.deployments import Deployment, run


class Torch:
    """torch itself, at batch size 1.

    Args:
        flush: with denormals flushed to zero.
    """

    def __init__(self, flush: bool = False) -> None:
        self.flush = flush

    @torch.no_grad()
    def __call__(self, model: nn.Module, x_BCHW: Tensor) -> Tensor:
        """Logits of each image by itself."""
        if self.flush and not torch.set_flush_denormal(True):
            return run(model, x_BCHW, Deployment(flush=True))
        try:
            return torch.cat([model(image[None]) for image in x_BCHW])
        finally:
            torch.set_flush_denormal(False)


class OnnxRuntime:
    """onnxruntime with its rewriting switched on, as it is by default, at batch size 1."""

    def __call__(self, model: nn.Module, x_BCHW: Tensor) -> Tensor:
        """Logits of each image by itself."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            write_onnx(model, tuple(x_BCHW.shape[1:]), path)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        found = [session.run(None, {"image": image[None].numpy()})[0] for image in x_BCHW]
        return torch.from_numpy(np.concatenate(found))


@dataclass(frozen=True)
class Canary:
    """One construction and the image that proves it.

    Attributes:
        name: of the submission.
        network: eval mode, float32.
        image: (1, C, H, W), clean.
        label: its class, which the network gives it.
        epsilon: exact radius.
        broken: (1, C, H, W), inside the ball.
        deployment: the legal float32 in which `broken` is misclassified.
        track: whose shape and classes it has.
        architecture: how a manifest names it; None for an ONNX file.
        arguments: of the architecture.
        verified: the copy whose real arithmetic the naive verifier bounds, where a certifier that
            simplifies would not bound the network itself.
        is_silent: clean image, centre and corners of the ball keep the margin that the naive
            verifier claims.
        is_clean_right: whether the deployment gets the clean image right; every other one does.
    """

    name: str
    network: nn.Module
    image: Tensor
    label: int
    epsilon: Fraction
    broken: Tensor
    deployment: Deployment | Torch | OnnxRuntime = field(default_factory=Torch)
    track: str = "digits"
    architecture: str | None = None
    arguments: Mapping[str, object] = field(default_factory=dict)
    verified: nn.Module | None = None
    is_silent: bool = False
    is_clean_right: bool = True

    def logits(self, x_BCHW: Tensor) -> Tensor:
        """Under the stated deployment."""
        if isinstance(self.deployment, Deployment):
            return run(self.network, x_BCHW, self.deployment)
        return self.deployment(self.network, x_BCHW)


Maker = Callable[[], Canary]


def first_digit() -> tuple[Tensor, int]:
    """The first test image of digits, (1, 1, 8, 8), and its label."""
    images, labels, _ = subset(load_test("digits"), 1)
    return torch.from_numpy(images), int(labels[0])


def with_pixels(image: Tensor, values: Mapping[int, float]) -> Tensor:
    """A copy of an image (1, C, H, W) with other values at flat positions."""
    changed = image.clone()
    for place, value in values.items():
        changed.view(-1)[place] = value
    return changed


def write(canary: Canary, folder: Path) -> Path:
    """Write the canary as a submission.

    Args:
        canary: what to write.
        folder: parent of the new folder.

    Returns:
        The submission folder, named after the canary.
    """
    place = folder / canary.name
    place.mkdir(parents=True)
    layers = [m for m in canary.network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    num_zeros = sum(int((layer.weight == 0).sum()) for layer in layers)
    weights = "model.onnx" if canary.architecture is None else "model.safetensors"
    model = {
        "weights": weights,
        "num_classes": TRACKS[canary.track].num_classes,
        "arguments": dict(canary.arguments),
    }
    if canary.architecture is not None:
        model["architecture"] = canary.architecture
    table = {
        "schema": 1,
        "id": canary.name,
        "title": canary.name,
        "authors": ["nobody"],
        "links": [],
        "description": "",
        "licence": "MIT",
        "track": canary.track,
        "sparsity": num_zeros / sum(layer.weight.numel() for layer in layers),
        "model": model,
        "method": {"name": "none", "pipeline": "none", "pretrain_objective": "none"},
        "training": {"data": "none", "extra_data": False},
    }
    (place / "submission.toml").write_bytes(format_manifest(check_manifest(table)))
    if canary.architecture is None:
        write_onnx(canary.network, tuple(canary.image.shape[1:]), place / weights)
    else:
        save_file(canary.network.state_dict(), place / weights)
    return place
