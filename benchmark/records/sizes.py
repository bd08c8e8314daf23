"""The records of compactness; see docs/file-formats.md. Imports no torch."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from corobench.benchmark.records.base import Count, StoredRecord

FileFormat = Literal["safetensors", "onnx", "onnx-qdq"]
#: Of a histogram of magnitudes: float32 spans less than 150 + 128 powers of two, four bins each.
MAX_EDGES = 1200
Edge = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Layer(StoredRecord):
    """One row of the per-layer table.

    Attributes:
        name: of the module in the network.
        kind: "conv" or "linear".
        num_weights: weights without the bias.
        num_nonzero: weights that are not zero.
        macs_dense: multiply-adds per image, all weights.
        macs_nonzero: multiply-adds per image, non-zero weights only.
    """

    name: str
    kind: Literal["conv", "linear"]
    num_weights: Count
    num_nonzero: Count
    macs_dense: Count
    macs_nonzero: Count


class Equivalent(StoredRecord):
    """The smallest dense network known to have the same outputs.

    Attributes:
        num_channels: output channels of all hidden convolution and linear layers.
        num_removed: of those, how many can be removed without changing the outputs.
        num_parameters: of the network without them, batch-norm folded.
        macs_dense: multiply-adds per image of that network.
    """

    num_channels: Count
    num_removed: Count
    num_parameters: Count
    macs_dense: Count


class Magnitudes(StoredRecord):
    """A histogram of the magnitudes of all convolution and linear weights, biases left out.

    Attributes:
        edges: of the bins, ascending; the first may be 0. Every weight that is not zero lies in a
            bin ``edges[i] <= magnitude < edges[i + 1]``. Empty where all weights are zero.
        counts: weights per bin, one less than the edges.
        num_zeros: weights that are zero: the pruned ones, and any that training left at zero.
    """

    edges: Annotated[tuple[Edge, ...], Field(max_length=MAX_EDGES)] = ()
    counts: tuple[Count, ...] = ()
    num_zeros: Count

    @model_validator(mode="after")
    def _check_shape(self) -> Magnitudes:
        if len(self.counts) != max(0, len(self.edges) - 1) or len(self.edges) == 1:
            raise ValueError(
                f"Expected one count between two edges, but got {len(self.counts)} counts and "
                f"{len(self.edges)} edges"
            )
        if self.edges and not any(self.counts):
            raise ValueError("Expected no bins where no weight lies in them")
        if any(low >= high for low, high in pairwise(self.edges)):
            raise ValueError("Expected edges that ascend")
        return self


class Compactness(StoredRecord):
    """What the evaluated weights really weigh; measured, never declared.

    The keys after `layers` are optional and left out where they were not measured: results of
    earlier versions do not have them (`corobench measure --write` adds them).

    Attributes:
        num_parameters: values the network needs to compute: weights, biases, batch-norm
            affine values and statistics.
        num_nonzero: those that are not zero.
        macs_dense: multiply-adds per image of all convolution and linear layers.
        macs_nonzero: the same, counting non-zero weights only.
        bytes_dense: all values stored densely.
        bytes_packed: per tensor the smaller of dense and bitmask plus non-zero values.
        sparsity: share of zeros in convolution and linear weights, in [0, 1].
        layers: the per-layer table.
        format: of the weights file: "safetensors", "onnx" or "onnx-qdq".
        bytes_packed_zstd: the packed values of all tensors after zstandard.
        bytes_coded: per tensor the smallest of packed and numbers into a table of its distinct
            values.
        peak_activation_bytes: float32 activations that must be held at once for one image.
        equivalent: the smallest dense network with the same outputs.
        magnitudes: histogram of the weights' magnitudes.
        num_live: convolution and linear weights that are not zero and lie on a path from a value
            of the image to a logit.
    """

    num_parameters: Count
    num_nonzero: Count
    macs_dense: Count
    macs_nonzero: Count
    bytes_dense: Count
    bytes_packed: Count
    sparsity: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    layers: tuple[Layer, ...] = ()
    format: FileFormat | None = None
    bytes_packed_zstd: Count | None = None
    bytes_coded: Count | None = None
    peak_activation_bytes: Count | None = None
    equivalent: Equivalent | None = None
    magnitudes: Magnitudes | None = None
    num_live: Count | None = None

    @property
    def bytes_stored(self) -> int:
        """The smallest lossless size that was measured: weights of few bits count as such."""
        return self.bytes_packed if self.bytes_coded is None else self.bytes_coded

    @property
    def num_weights(self) -> int:
        """Convolution and linear weights."""
        return sum(layer.num_weights for layer in self.layers)

    @property
    def num_weights_kept(self) -> int:
        """Those that are not zero."""
        return sum(layer.num_nonzero for layer in self.layers)

    @model_serializer(mode="wrap")
    def _without_missing(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """What was not measured has no key, so that earlier files keep their bytes."""
        dumped: dict[str, object] = handler(self)
        return {key: value for key, value in dumped.items() if value is not None}
