"""How far a network moves on its way through ONNX and through an import, on real images.

    python perf/self_checks.py [--track fashion-mnist] [--data-root DIR] [--at-most 1e-4]

Every architecture with random weights is exported to ONNX, read back, and compared with its source
and with onnxruntime. The ResNet-18 inside the attack package is imported from its checkpoint and
compared with its own class. The images are the track's first test images where they are on this
machine, else random ones; the output says which. The last line is the largest difference of a
logit, relative to the largest logit (at least 1); exit code 1 above the bar.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path

import torch
from common import verdict
from torch import nn

from corobench.benchmark.submission import import_checkpoint
from corobench.benchmark.submission.architectures import ARCHITECTURES, build, find_faults
from corobench.benchmark.submission.graph.exporting import export_checked
from corobench.benchmark.submission.writing import sample_images
from corobench.benchmark.tracks import get_track


def through_onnx(name: str, track_name: str, data_root: Path | None) -> float:
    """Export, read back, compare; returns the relative difference."""
    track = get_track(track_name)
    torch.manual_seed(0)
    network = build(name, track.shape, track.num_classes, {}).eval().requires_grad_(False)
    sample = sample_images(track, data_root)
    content, graph, difference = export_checked(network, track.shape, sample.images)
    with torch.no_grad():
        largest = max(1.0, float(network(sample.images).abs().max()))
    kind = type(graph.network).__name__
    print(
        f"{name:<10} ONNX {len(content):>11,} bytes, {kind:<12} difference {difference:.2e} "
        f"of logits up to {largest:.3g}, on {sample.what}",
        flush=True,
    )
    return difference / largest


def through_import(data_root: Path | None) -> float:
    """The ResNet-18 of the attack package; returns the largest difference."""
    spec = importlib.util.find_spec("pyautoattack")
    assert spec is not None and spec.origin is not None
    examples = Path(spec.origin).parent / "examples"
    sys.path.insert(0, str(examples))
    try:
        from resnet import ResNet18
    finally:
        sys.path.pop(0)
    reference: nn.Module = ResNet18()
    checkpoint = examples / "model_test.pt"
    reference.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    with tempfile.TemporaryDirectory() as folder:
        report = import_checkpoint(
            checkpoint,
            Path(folder) / "resnet18-natural",
            architecture="resnet18",
            track="cifar10",
            reference=reference.eval(),
            data_root=data_root,
        )
    print(
        f"resnet18   {checkpoint.name} against its own class: largest difference "
        f"{report.max_difference:.2e} on {report.images}"
    )
    return report.max_difference


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--track", default="fashion-mnist")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--at-most", type=float, default=1e-4)
    options = parser.parse_args()
    track = get_track(options.track)
    found = []
    for name in ARCHITECTURES:
        if faults := find_faults(name, track.shape, track.num_classes, {}):
            print(f"{name:<10} left out: {faults[0]}")
        else:
            found.append(through_onnx(name, options.track, options.data_root))
    found.append(through_import(options.data_root))
    verdict(max(found), at_most=options.at_most)


if __name__ == "__main__":
    main()
