"""Products with a fixed matrix that may be mostly zeros."""

from __future__ import annotations

import warnings

import torch
from scipy import sparse
from torch import Tensor, from_numpy

SPARSE_RATE = 0.25
"""Up to this share of non-zeros, products skip the zeros: measured break-even on one core is near
0.4 at 128 columns, and rows of a convolution have 0.02 to 0.1."""


class Coupling:
    """A matrix M (rows, columns), float32, for products from both sides.

    A neuron of a convolution sees few inputs, so that M is mostly zeros. On a CPU it is then stored
    in compressed rows, the transpose too; elsewhere, or where it is full, as it is. The choice
    depends on the matrix, the device and the build of torch alone.

    Args:
        matrix: M.
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        full = matrix.numel() * SPARSE_RATE
        self._rows: Tensor | sparse.csr_array | None = None
        if matrix.device.type == "cpu" and int(matrix.count_nonzero()) < full:
            rows = sparse.csr_array(matrix.numpy())
            self._rows, self._columns = compressed(rows), compressed(sparse.csr_array(rows.T))

    def times(self, x: Tensor) -> Tensor:
        """M @ x, where x is (columns, B)."""
        return self.matrix @ x if self._rows is None else _product(self._rows, x)

    def transposed_times(self, x: Tensor) -> Tensor:
        """M.T @ x, where x is (rows, B)."""
        return self.matrix.T @ x if self._rows is None else _product(self._columns, x)


def compressed(matrix: sparse.csr_array) -> Tensor | sparse.csr_array:
    """torch's own kind of it where torch has MKL, whose products take less than half the time."""
    if not torch.backends.mkl.is_available():
        return matrix
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            from_numpy(matrix.indptr.astype("int32")),
            from_numpy(matrix.indices.astype("int32")),
            from_numpy(matrix.data),
            size=matrix.shape,
            check_invariants=True,
        )


def _product(matrix: Tensor | sparse.csr_array, x: Tensor) -> Tensor:
    if isinstance(matrix, Tensor):
        return matrix @ x
    return from_numpy(matrix @ x.numpy())
