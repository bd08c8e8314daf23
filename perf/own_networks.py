"""The three lines of Python on networks that corobench has never seen, with their seconds.

    python perf/own_networks.py [N]

A vision transformer, a residual network with SiLU and a pruned CNN, each trained for a moment on
scikit-learn's digits, are evaluated on the first N images (20 by default) with the whole protocol.
Last line: processor seconds of all three, training not counted.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

import corobench

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "unit" / "interactive"))

import own_networks


def main(n: int) -> None:
    torch.set_num_threads(1)
    makers = {
        "ViT": lambda: own_networks.trained(own_networks.TinyViT()),
        "ResNet with SiLU": lambda: own_networks.trained(own_networks.SiluResNet()),
        "pruned CNN": own_networks.pruned_cnn,
    }
    total = 0.0
    for name, make in makers.items():
        torch.manual_seed(0)
        network = make()
        start, wall = time.process_time(), time.perf_counter()
        result = corobench.evaluate(network, track="digits", n=n, verbose=False)
        spent = time.process_time() - start
        total += spent
        print(f"{name}: {spent:.1f} s of a processor, {time.perf_counter() - wall:.1f} s")
        print(result)
    print(f"seconds {total:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
