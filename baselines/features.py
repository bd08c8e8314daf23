"""What the last layer of a network reads: its features."""

from __future__ import annotations

from torch import Tensor, nn

from corobench.benchmark.network.compactness import prunable_layers


class Features(nn.Module):
    """A view of a network that gives what its last convolution or linear layer reads.

    Args:
        model: shared, not copied.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.train(model.training)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Features, (B, F)."""
        found: list[Tensor] = []
        last = list(prunable_layers(self.model).values())[-1]
        handle = last.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
        try:
            self.model(x_BCHW)
        finally:
            handle.remove()
        return found[-1].flatten(1)
