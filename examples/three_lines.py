"""The score of a network of your own, in three lines.

    python examples/three_lines.py [N]

N images of scikit-learn's digits, 20 by default; nothing is downloaded. Write your own network and
your own training in the place of these.
"""

from __future__ import annotations

import sys

import torch
from torch import nn

import corobench
from corobench.benchmark.data import load_train


def trained_network() -> nn.Module:
    """A small network, trained for a moment. Any `nn.Module` from images to logits will do."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
    train = load_train("digits")
    images, labels = torch.from_numpy(train.images), torch.from_numpy(train.labels)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(100):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimiser.step()
    return network.eval()


def main(n: int) -> None:
    """Score it, and show the numbers, the table and where it would stand."""
    result = corobench.evaluate(trained_network(), track="digits", n=n)
    print(result)
    print(result.to_frame()[["image", "epsilon", "outcome", "decided_by"]].head())
    board = corobench.leaderboard("digits", "1/16")
    print(board[["entry", "n", "clean", "certified", "unbroken"]].head().to_string(index=False))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
