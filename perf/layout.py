"""What the layout for searching saves attacks on a large network, on one core.

    python perf/layout.py [--network cnn-large] [--images 250] [--repeats 5]

Both sides compute a forward pass, and a forward and backward pass to the image, on the same images:
the network as it is, and the copy that `benchmark.attacks.layout` makes of it (channels last, in
parts). They take turns, so that a busy neighbour meets both. The ratio is (as it is) / (copy) in
processor seconds of forward and backward passes, at least 1.1.
"""

from __future__ import annotations

import argparse
import time

import torch
from common import verdict
from torch import Tensor, nn

from corobench.benchmark.attacks.layout import is_large, laid_out
from corobench.benchmark.submission.architectures import build
from corobench.benchmark.tracks import get_track


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--network", default="cnn-large", choices=("cnn-small", "cnn-large", "resnet18")
    )
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    track = get_track("cifar10")
    torch.manual_seed(0)
    model = build(options.network, track.shape, track.num_classes, {}).eval().requires_grad_(False)
    x = torch.rand(options.images, *track.shape)
    networks = {"as it is": model, "copy": laid_out(model, x)}
    spent = {name: [0.0, 0.0] for name in networks}
    for repeat in range(options.repeats + 1):
        for name, network in networks.items():
            for kind, passes in enumerate((_forward, _forward_and_backward)):
                start = time.process_time()
                passes(network, x)
                spent[name][kind] += (time.process_time() - start) * bool(repeat)  # 0 warms up
    for name, seconds in spent.items():
        forward, both = (1e3 * each / options.repeats for each in seconds)
        print(f"{name}: forward {forward:.1f} ms, forward and backward {both:.1f} ms")
    print(f"evaluations use the copy: {'yes' if is_large(model) else 'no, it is small'}")
    verdict(spent["as it is"][1] / spent["copy"][1], at_least=1.1)


@torch.no_grad()
def _forward(network: nn.Module, x_BCHW: Tensor) -> None:
    network(x_BCHW)


def _forward_and_backward(network: nn.Module, x_BCHW: Tensor) -> None:
    images = x_BCHW.clone().requires_grad_()
    torch.autograd.grad(network(images).logsumexp(dim=1).sum(), images)


if __name__ == "__main__":
    main()
