"""How large a tree will be: what its first splits gained, and random walks from its root (Knuth,
Math. Comp. 1975).

A walk goes down to a random child until it comes to a subdomain that is closed. If that is at depth
d, the walk expects 1 + 2 + ... + 2**d nodes. The mean over walks is right on average, whatever the
shape of the tree. Nodes that a walk needs are nodes of the search: nothing is bounded twice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from corobench.benchmark.certify.bab.proof_log import ProofLog


def splits_left(depth_B: Tensor, gain_B: Tensor, missing_B: Tensor) -> float:
    """How many more splits a path of a tree needs, at what those so far gained on average.

    Args:
        depth_B: float32, splits above each open subdomain of the tree.
        gain_B: how far its bound is above the one of the root.
        missing_B: how far it is below the threshold.

    Returns:
        the mean over the subdomains; 0 for a tree without a split, infinite where none gained.
    """
    depth, gain = float(depth_B.sum()), float(gain_B.sum())
    if not depth:
        return 0.0
    return float(missing_B.mean()) * depth / gain if gain > 0 else torch.inf


class Dives:
    """Walks through the trees below some nodes.

    Args:
        log: the tree so far.
        starts: open nodes below which the search goes on.
        num_walks: how many.
    """

    def __init__(self, log: ProofLog, starts: list[int], num_walks: int) -> None:
        self._log = log
        self._factor = float(len(starts))
        self._at = [starts[number % len(starts)] for number in range(num_walks)]
        self._depth = [0] * num_walks
        self._generator = torch.Generator().manual_seed(3)

    def waiting(self) -> set[int]:
        """Open nodes that walks are at, after each has gone down as far as it can."""
        found = set()
        for walk, node in enumerate(self._at):
            children = self._log.children[node]
            while children is not None:
                side = int(torch.randint(2, (), generator=self._generator))
                node, self._depth[walk] = children[side], self._depth[walk] + 1
                children = self._log.children[node]
            self._at[walk] = node
            if not self._log.is_closed[node]:
                found.add(node)
        return found

    def expected(self) -> float:
        """The mean number of nodes, were every walk to end where it is: it only grows."""
        nodes = sum(2.0 ** (depth + 1) - 1 for depth in self._depth)
        return self._factor * nodes / len(self._depth)
