"""Size of packed files against what a bitmask and the kept values need: 4 * non-zeros + values / 8.

    python perf/pack_ratio.py [--at-most 1.03]

CNN-large and VGG16-BN for 3x32x32 images with random weights, of which 50, 90, 95 and 99 % of each
convolution and linear layer are removed by magnitude. Each file is unpacked and compared bit by
bit. The last line is the largest ratio of file size to that formula; exit code 1 above the bar.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from common import verdict

from corobench.benchmark.network.compactness import prunable_layers
from corobench.benchmark.submission.architectures import build
from corobench.benchmark.submission.packing import repack
from corobench.benchmark.submission.weights import write_weights

NETWORKS = ("cnn-large", "vgg16-bn")
SPARSITIES = (0.5, 0.9, 0.95, 0.99)


def measure(network: str, sparsity: float) -> float:
    """Pack one pruned network and print its sizes; returns the ratio to the formula."""
    torch.manual_seed(0)
    model = build(network, (3, 32, 32), 10, {})
    with torch.no_grad():
        for layer in prunable_layers(model).values():
            size = layer.weight.abs().flatten()
            removed = size.argsort()[: round(sparsity * len(size))]
            layer.weight.view(-1)[removed] = 0.0
    with tempfile.TemporaryDirectory() as folder:
        dense = Path(folder) / "model.safetensors"
        write_weights(dense, model.state_dict())
        done = repack(dense, to_packed=True)
    expected = 4 * done.num_kept + done.num_values / 8
    ratio = done.bytes_after / expected
    print(
        f"{network:<10} {100 * sparsity:>3.0f} % zeros  dense {done.bytes_before:>11,}  packed "
        f"{done.bytes_after:>11,}  formula {expected:>11,.0f}  ratio {ratio:.4f}  "
        f"{done.bytes_before / done.bytes_after:5.1f}x smaller",
        flush=True,
    )
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--at-most", type=float, default=1.03)
    options = parser.parse_args()
    ratios = [measure(network, share) for network in NETWORKS for share in SPARSITIES]
    verdict(max(ratios), at_most=options.at_most)


if __name__ == "__main__":
    main()
