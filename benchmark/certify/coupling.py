"""Products with a fixed matrix that may be mostly zeros."""

from __future__ import annotations

from scipy import sparse
from torch import Tensor, from_numpy

SPARSE_RATE = 0.25
"""Up to this share of non-zeros, products skip the zeros: measured break-even on one core is near
0.4 at 128 columns, and rows of a convolution have 0.02 to 0.1."""


class Coupling:
    """A matrix M (rows, columns), float32, for products from both sides.

    A neuron of a convolution sees few inputs, so that M is mostly zeros. On a CPU it is then stored
    in compressed rows, the transpose too; elsewhere, or where it is full, as it is. The choice
    depends on the matrix and the device alone.

    Args:
        matrix: M.
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        full = matrix.numel() * SPARSE_RATE
        self._rows: sparse.csr_array | None = None
        if matrix.device.type == "cpu" and int(matrix.count_nonzero()) < full:
            self._rows = sparse.csr_array(matrix.numpy())
            self._columns = sparse.csr_array(self._rows.T)

    def times(self, x: Tensor) -> Tensor:
        """M @ x, where x is (columns, B)."""
        if self._rows is None:
            return self.matrix @ x
        return from_numpy(self._rows @ x.numpy())

    def transposed_times(self, x: Tensor) -> Tensor:
        """M.T @ x, where x is (rows, B)."""
        if self._rows is None:
            return self.matrix.T @ x
        return from_numpy(self._columns @ x.numpy())
