"""How a file wants its images: channels first as everybody here, channels last, or in one row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from corobench.benchmark.submission.graph.layers import Reshape, Transpose
from corobench.benchmark.submission.graph.rules import GraphFaultError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class InputLayout:
    """What an image goes through before it enters the file.

    Attributes:
        image_shape: channels, height, width.
        file_shape: of one image as the file takes it.
        is_last: whether the channels are moved behind height and width.
    """

    image_shape: tuple[int, int, int]
    file_shape: Shape
    is_last: bool = False

    @property
    def note(self) -> str:
        """What is done, for people; empty where images go in as they are."""
        if not self.modules():
            return ""
        order = "row, column, channel" if self.is_last else "channel, row, column"
        return (
            f"the file takes images as {_shown(self.file_shape)}: each is given to it in the order "
            f"{order}, from {_shown(self.image_shape)}"
        )

    def modules(self) -> list[nn.Module]:
        """The layers that do it; none where images go in as they are."""
        shape: Shape = self.image_shape
        found: list[nn.Module] = []
        if self.is_last:
            found.append(Transpose([0, 2, 3, 1]))
            shape = (*shape[1:], shape[0])
        if shape != self.file_shape:
            is_row = len(self.file_shape) == 1
            found.append(nn.Flatten(1) if is_row else Reshape(self.file_shape))
        return found

    def apply(self, x_BCHW: Tensor) -> Tensor:
        """Images as the file takes them; float32 (B, *file_shape)."""
        for module in self.modules():
            x_BCHW = module(x_BCHW)
        return x_BCHW.contiguous()


def layout_of(file_shape: Sequence[int], image_shape: tuple[int, int, int] | None) -> InputLayout:
    """How images of a track go into a file.

    Args:
        file_shape: sizes of the file's input behind the batch.
        image_shape: channels, height, width of the track; None takes them from the file.

    Raises:
        GraphFaultError: other sizes, which no order of the values explains.
    """
    found = tuple(file_shape)
    if image_shape is None or found == image_shape:
        if len(found) != 3:
            raise GraphFaultError(
                "onnx-input",
                "expected the input float32 (batch, channels, height, width) with all sizes but "
                f"the batch fixed, but found sizes {list(found)} behind the batch",
            )
        return InputLayout((found[0], found[1], found[2]), found)
    channels, height, width = image_shape
    last = (height, width, channels)
    if math.prod(found) == math.prod(image_shape):
        if channels > 1 and _without_ones(found) == _without_ones(last):
            return InputLayout(image_shape, found, is_last=True)
        if _without_ones(found) in ((math.prod(found),), _without_ones(image_shape)):
            return InputLayout(image_shape, found)
    raise GraphFaultError(
        "onnx-input",
        f"expected images {list(image_shape)}, the same with channels last, or "
        f"{math.prod(image_shape)} values in one row, but found {list(found)}",
    )


def _without_ones(shape: Sequence[int]) -> Shape:
    return tuple(size for size in shape if size != 1)


def _shown(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)
