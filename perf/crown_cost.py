"""What CROWN of the checker costs on an image: multiply-adds, processor seconds, memory.

    python perf/crown_cost.py submissions/cifar10-adv-large-dense --epsilon 2/255 -n 5

For each right image: the margins of IBP, CROWN-IBP and CROWN, the signs that intervals leave open
per layer and those that CROWN leaves open, the multiply-adds of the backward passes and the seconds
of one core. At the end: multiply-adds where all signs are open, and the largest memory of the
process above what it had before the first image.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from corobench.benchmark.certify.checker.cost import (
    bounded_values,
    cost_of_neurons,
    open_neurons,
    whole_cost,
)
from corobench.benchmark.certify.checker.network import Bounds, Network
from corobench.benchmark.certify.checker.proofs import crown_bounds, specification
from corobench.benchmark.certify.checker.reading import read_network
from corobench.benchmark.data import load_test, subset
from corobench.benchmark.referee import threat
from corobench.benchmark.submission import load_submission
from corobench.benchmark.tracks import parse_epsilon


def num_open(network: Network, bounds: Bounds) -> list[int]:
    """Open neurons of each value that CROWN bounds."""
    return [int(open_neurons(network, bounds, number).sum()) for number in bounded_values(network)]


def measure(network: Network, low: np.ndarray, high: np.ndarray, label: int) -> tuple[str, float]:
    """A line about one box, and the seconds that CROWN took."""
    rows, last = specification(np.array([label]), network.num_classes), len(network.steps)
    bounds = network.bounds(low, high)
    ibp = network.lower(bounds, last, rows, to_the_image=False).bound_BR.min()
    crown_ibp = network.lower(bounds, last, rows).bound_BR.min()
    start = time.process_time()
    tight = crown_bounds(network, low, high)
    crown = network.lower(tight, last, rows).bound_BR.min()
    seconds = time.process_time() - start
    left = num_open(network, tight)
    least = sum(
        cost_of_neurons(network, number, num)
        for number, num in zip(bounded_values(network), left, strict=True)
    )
    return (
        f"IBP {ibp:.3f}, CROWN-IBP {crown_ibp:.3f}, CROWN {crown:.3f}; open "
        f"{num_open(network, bounds)} -> {left}; at least {least:.2g} multiply-adds"
    ), seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("submission", type=Path)
    parser.add_argument("--epsilon", default="2/255")
    parser.add_argument("-n", type=int, default=5, help="images")
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    entry = load_submission(options.submission)
    images, labels, _ = subset(load_test(entry.track.name, options.data_root), options.n)
    x = torch.from_numpy(images)
    lower, upper = threat.box(x, parse_epsilon(options.epsilon))
    low, high = lower.double().numpy(), upper.double().numpy()
    network = read_network(entry.model.eval(), entry.track.shape)
    with torch.no_grad():
        right = (entry.model(x).argmax(dim=1).numpy() == labels).nonzero()[0]
    if not len(right):
        sys.exit(f"none of the first {options.n} images is right; give a larger -n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spent = []
    with threadpool_limits(1), np.errstate(all="ignore"):
        for row in right.tolist():
            one = slice(row, row + 1)
            line, seconds = measure(network, low[one], high[one], int(labels[row]))
            spent.append(seconds)
            print(f"image {row}: {line}; {seconds:.2f} s", flush=True)
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(
        f"{len(spent)} images: {np.mean(spent):.2f} s on average, {max(spent):.2f} s at most; "
        f"{more / 1024:.0f} MiB more than before; all signs open: {whole_cost(network):.2g} "
        "multiply-adds"
    )


if __name__ == "__main__":
    main()
