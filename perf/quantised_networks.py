"""Files of onnxruntime's static quantiser at full size: imported, and asked for the contract.

    python perf/quantised_networks.py [NETWORK ...] [--steps N] [--images N] [--markdown]

ResNet-18, VGG11, RegNetY-400MF and MobileNetV2 as torchvision has them, with ten classes, and
networks in the layouts of VNN-COMP's resnet_2b and resnet_4b. Each is trained for N steps of 64
images of CIFAR-10 (COROBENCH_DATA; 100 by default), exported, and quantised with three settings of
the quantiser, calibrated on 64 training images. A row says whether `corobench import` takes the
file, which clauses of the contract the file breaks on N test images (64 by default), and how far
the network read from it is from the runtime, one image at a time, the network in batches of 64 from
itself, and the runtime from itself when it may not rewrite the graph. Each of these is three
numbers: the quanta by which the image moves whose logits move most, images that move by more than
4 quanta (one in twenty may, by up to 16), and images of another class.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody calls it

from corobench.benchmark.data import load_test, load_train, subset
from corobench.benchmark.errors import CorobenchError
from corobench.benchmark.submission import import_graph
from corobench.benchmark.submission.contract import find_broken_clauses, output_step
from corobench.benchmark.submission.graph.network import read_network
from corobench.benchmark.submission.graph.runtime import Runtime
from corobench.benchmark.submission.rounding import MAX_QUANTA, quantum
from corobench.benchmark.tracks import get_track

TRACK = "cifar10"
BATCH, NUM_CALIBRATION = 64, 64
SETTINGS = ("default", "per channel", "symmetric")


class Block(nn.Module):
    """Two convolutions and a shortcut, without batch-norm."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, stride, 1)
        self.second = nn.Conv2d(out, out, 3, 1, 1)
        is_same = stride == 1 and channels == out
        self.shortcut = nn.Identity() if is_same else nn.Conv2d(channels, out, 1, stride)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The block's output, (B, out, H / stride, W / stride)."""
        inner: Tensor = self.second(F.relu(self.first(x_BCHW)))
        return F.relu(inner + self.shortcut(x_BCHW))


def competition(channels: int, blocks: list[tuple[int, int]], size: int) -> nn.Module:
    """A convolution of stride 2, blocks (channels, stride), and two linear layers."""
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, 2, 1), nn.ReLU()]
    before = channels
    for out, stride in blocks:
        layers.append(Block(before, out, stride))
        before = out
    head = [nn.Flatten(), nn.Linear(before * size * size, 100), nn.ReLU(), nn.Linear(100, 10)]
    return nn.Sequential(*layers, *head)


def _of_torchvision(name: str) -> nn.Module:
    from torchvision import models

    made: nn.Module = getattr(models, name)(num_classes=10)
    if name.startswith("vgg"):
        # Images of 32 pixels leave one pixel, which the published layer would repeat 49 times.
        made.avgpool = nn.Identity()
        made.classifier[0] = nn.Linear(512, 4096)
    return made


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet_2b": lambda: competition(8, [(16, 2), (16, 2)], 4),
    "resnet_4b": lambda: competition(16, [(32, 2), (32, 1), (32, 2), (32, 1)], 4),
    **{
        name: (lambda name=name: _of_torchvision(name))  # type: ignore[misc]
        for name in ("resnet18", "vgg11", "regnet_y_400mf", "mobilenet_v2")
    },
}


def trained(name: str, num_steps: int, images: Tensor, labels: Tensor) -> nn.Module:
    """A network that has learnt a little, in eval mode.

    Args:
        name: of :data:`NETWORKS`.
        num_steps: of Adam, each on 64 images.
        images: float32 (N, 3, 32, 32) in [0, 1].
        labels: int64 (N,).
    """
    torch.manual_seed(0)
    network = NETWORKS[name]()
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(num_steps):
        chosen = torch.randint(0, len(images), (BATCH,))
        optimiser.zero_grad()
        F.cross_entropy(network(images[chosen]), labels[chosen]).backward()
        optimiser.step()
    return network.eval().requires_grad_(False)


def export(network: nn.Module, path: Path) -> None:
    """An ONNX file with an open batch, as `torch.onnx.export` writes it."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(2, 3, 32, 32),),
            str(path),
            input_names=["x"],
            external_data=False,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            verbose=False,
        )


def quantise(source: Path, target: Path, setting: str, images: Tensor) -> None:
    """The file as onnxruntime's static quantiser writes it (QDQ).

    Args:
        source: float32.
        target: new.
        setting: one of :data:`SETTINGS`.
        images: float32 (N, 3, 32, 32), to calibrate on.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quant_pre_process,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.parts = iter([{"x": np.asarray(part)} for part in images.split(16)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.parts, None)

    settings: dict[str, dict[str, Any]] = {
        "default": {},
        "per channel": {
            "per_channel": True,
            "activation_type": QuantType.QUInt8,
            "weight_type": QuantType.QInt8,
            "reduce_range": True,
        },
        "symmetric": {
            "activation_type": QuantType.QInt8,
            "weight_type": QuantType.QInt8,
            "extra_options": {"ActivationSymmetric": True, "WeightSymmetric": True},
        },
    }
    ready = target.with_suffix(".ready.onnx")
    # What the quantiser itself asks for: batch-norms folded.
    quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
    options = settings[setting]
    quantize_static(str(ready), str(target), Reader(), quant_format=QuantFormat.QDQ, **options)


def _far(other: Tensor, logits: Tensor, step: float) -> str:
    """Quanta of the worst image, images beyond 4 quanta, images of another class."""
    quanta = (other - logits).abs().amax(dim=1) / quantum(logits, step)
    num_other = int((other.argmax(dim=1) != logits.argmax(dim=1)).sum())
    return f"{float(quanta.max()):.2g}, {int((quanta > MAX_QUANTA).sum())}, {num_other}"


def measure(path: Path, plain: nn.Module, images: Tensor, labels: Tensor, out: Path) -> list[str]:
    """One row: what import says, clauses broken, distances, right answers, seconds."""
    start = time.perf_counter()
    try:
        import_graph(path, out, track=TRACK)
        imported = "yes"
    except CorobenchError as error:
        imported = str(error).splitlines()[-1].strip()
    content = path.read_bytes()
    graph = read_network(content, get_track(TRACK).shape)
    runtime = Runtime(content, graph.batch, optimise=False)
    broken = find_broken_clauses(graph.network, images, 10, runtime)
    step = output_step(graph.network) or 0.0
    with torch.no_grad():
        ours = torch.cat([graph.network(image) for image in images.split(1)])
        before = plain(images).argmax(dim=1)
    theirs = torch.cat([runtime(image) for image in images.split(1)])
    rewriting = Runtime(content, graph.batch, optimise=True)
    again = torch.cat([rewriting(image) for image in images.split(1)])
    with torch.no_grad():
        batches = torch.cat([graph.network(part) for part in images.split(BATCH)])
    seconds = time.perf_counter() - start
    right = int((ours.argmax(dim=1) == labels).sum())
    return [
        imported,
        "; ".join(broken) or "none",
        _far(theirs, ours, step),
        _far(batches, ours, step),
        _far(again, theirs, step),
        f"{right} of {len(images)} (float32: {int((before == labels).sum())})",
        f"{seconds:.0f} s",
    ]


def main() -> None:
    """Print one row per network and setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    logging.disable(logging.WARNING)
    train = load_train(TRACK)
    x, y = torch.from_numpy(train.images), torch.from_numpy(train.labels).long()
    chosen, labels, _ = subset(load_test(TRACK), given.images)
    images = torch.from_numpy(np.ascontiguousarray(chosen))
    targets = torch.from_numpy(np.ascontiguousarray(labels)).long()
    head = ["network", "parameters", "setting", "imported", "clauses broken"]
    head += ["from the runtime", "in batches", "the runtime from itself", "right", "seconds"]
    _print(head, given.markdown)
    if given.markdown:
        _print(["---"] * len(head), True)
    for name in given.networks:
        network = trained(name, given.steps, x, y)
        size = f"{sum(one.numel() for one in network.parameters()):,}"
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "float.onnx"
            export(network, source)
            for setting in SETTINGS:
                target = Path(folder) / f"{setting.replace(' ', '-')}.onnx"
                quantise(source, target, setting, x[:NUM_CALIBRATION])
                row = measure(target, network, images, targets, target.with_suffix(""))
                _print([name, size, setting, *row], given.markdown)


def _print(row: list[str], is_markdown: bool) -> None:
    print(f"| {' | '.join(row)} |" if is_markdown else "  ".join(row), flush=True)


if __name__ == "__main__":
    main()
