"""CROWN's bounds of open images, kept in memory from one costly certifier to the next.

CROWN of a large network, alpha-CROWN and branch and bound all begin with the same bounds of the
same box, seconds of work each. They are the checker's own, exactly as it computed them.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

from corobench.benchmark.certify.checker.cost import bounded_values
from corobench.benchmark.certify.checker.intervals import Interval
from corobench.benchmark.certify.checker.network import Network
from corobench.benchmark.certify.checker.passes import Bounds
from corobench.benchmark.certify.checker.proofs import crown_bounds
from corobench.benchmark.certify.checker.rounding import Array

LIMIT = 256 * 2**20
"""Bytes that one process keeps: 564 images of CNN-large on 3x32x32."""

_Sides = dict[int, tuple[Array, Array]]


class KeptBounds:
    """Computes CROWN's bounds of boxes of one network, and keeps those that are asked for again.

    What comes when the memory is full is not kept: stages ask about the same images in the same
    order, so that throwing out the oldest would throw out the one that is asked for next.

    Args:
        network: as deployed.
        limit: bytes that may be kept.
    """

    def __init__(self, network: Network, limit: int = LIMIT) -> None:
        self._network, self._limit = network, limit
        self._numbers = bounded_values(network)
        self._kept: dict[bytes, _Sides] = {}
        self.num_bytes = 0

    def bounds(self, low: Array, high: Array, max_macs: float = math.inf) -> Bounds:
        """Bounds of every value of one box, as `crown_bounds` gives them.

        Args:
            low: float64 (1, C, H, W).
            high: float64 like `low`.
            max_macs: multiply-adds that tightening may take, where it has to be done.

        Raises:
            TooCostlyError: see `crown_bounds`.
        """
        name = _name(low, high)
        sides = self._kept.get(name)
        if sides is not None:
            return self._again(low, high, sides)
        found = crown_bounds(self._network, low, high, max_macs)
        values = {number: found.values[number] for number in self._numbers}
        sides = {number: (value.low, value.high) for number, value in values.items()}
        size = sum(side.nbytes for both in sides.values() for side in both)
        if self.num_bytes + size <= self._limit:
            self._kept[name] = sides
            self.num_bytes += size
        return found

    def forget(self, low: Array, high: Array) -> None:
        """Make room: nobody will ask about this box again."""
        sides = self._kept.pop(_name(low, high), {})
        self.num_bytes -= sum(side.nbytes for both in sides.values() for side in both)

    def _again(self, low: Array, high: Array, sides: _Sides) -> Bounds:
        def refine(known: Bounds, number: int) -> Interval | None:
            if number not in sides:
                return None
            tight_low, tight_high = sides[number]
            return replace(known.values[number], low=tight_low, high=tight_high)

        return self._network.bounds(low, high, refine)


def _name(low: Array, high: Array) -> bytes:
    return hashlib.sha256(low.tobytes() + high.tobytes()).digest()
