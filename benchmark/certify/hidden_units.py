"""How many inputs of activations one image has: the size by which images are bounded together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.overrides import TorchFunctionMode

_NAMES = (
    *("celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish", "prelu"),
    *("relu", "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus", "softsign", "tanh"),
)
_CALLS = frozenset(
    getattr(holder, name)
    for holder in (F, torch, torch.Tensor)
    for called in _NAMES
    for name in (called, f"{called}_")
    if hasattr(holder, name)
)


class _Counter(TorchFunctionMode):
    """Adds up the sizes of all tensors that are handed to an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.num_inputs = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _CALLS:
            self.num_inputs += (args[0] if args else kwargs["input"]).numel()
        return func(*args, **kwargs)


def num_hidden_units(model: nn.Module, input_shape: Sequence[int]) -> int:
    """Number of inputs of activations per image, counted in one forward pass in eval mode.

    Activations written as modules, functions and tensor methods all count; the training flags of
    the model's modules are restored afterwards.

    Args:
        model: classifier for float32 inputs of shape (B, *input_shape).
        input_shape: (C, H, W).

    Returns:
        The count, 0 for a linear model.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 2))
    >>> num_hidden_units(net, (1, 2, 2))
    7
    """
    flags = {module: module.training for module in model.modules()}
    tensor = next(model.parameters(), None)
    device = torch.device("cpu") if tensor is None else tensor.device
    counter = _Counter()
    try:
        model.eval()
        with torch.no_grad(), counter:
            model(torch.zeros(1, *input_shape, device=device))
    finally:
        for module, flag in flags.items():
            module.training = flag
    return counter.num_inputs
