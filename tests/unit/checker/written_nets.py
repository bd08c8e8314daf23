"""Networks that are one written function of their images."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class Written(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
