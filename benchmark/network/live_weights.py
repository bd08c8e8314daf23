"""Weights that a logit can feel: those on a path from a value of the image to a logit.

The network's own forward pass is run once, with other functions in it. A convolution or linear
layer has 1 where its weight is not zero, and no bias; a nonlinear function passes its image on;
a maximum becomes a sum. Every value is then 0, or larger where a path from the image leads to it,
and a weight is on a path exactly where it is not zero and the derivative of the logits by it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_LAYERS = {"conv1d", "conv2d", "conv3d", "linear"}
_PASS = {
    *("relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "elu", "elu_", "celu"),
    *("selu", "gelu", "silu", "mish", "softplus", "sigmoid", "tanh", "hardtanh", "hardtanh_"),
    *("hardsigmoid", "hardswish", "logsigmoid", "clamp", "clamp_", "clip", "clamp_min", "erf"),
    *("clamp_max", "abs", "neg", "exp", "sqrt", "square", "round", "dropout", "dropout2d"),
    *("alpha_dropout", "feature_alpha_dropout", "contiguous", "float", "to", "clone", "detach"),
}
_MIX = {"add", "__add__", "__radd__", "__iadd__", "add_", "sub", "__sub__", "__rsub__", "maximum"}
_MIX |= {"minimum", "subtract", "rsub"}
_SCALE = {"mul", "__mul__", "__rmul__", "mul_", "div", "__truediv__", "true_divide", "multiply"}
_AS_IS = {
    *("view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "squeeze", "chunk"),
    *("unsqueeze", "cat", "concat", "stack", "split", "__getitem__", "expand", "expand_as", "size"),
    *("mean", "sum", "avg_pool2d", "avg_pool1d", "adaptive_avg_pool2d", "narrow", "unbind"),
    *("adaptive_avg_pool1d", "dim", "numel", "movedim", "select", "tile", "repeat", "interpolate"),
    *("pixel_shuffle", "channel_shuffle", "view_as", "reshape_as", "split_with_sizes", "pad"),
    *("mT", "T", "shape", "dtype", "device", "is_floating_point", "__get__", "type"),
}
_MAX_POOL = {"max_pool2d", "max_pool2d_with_indices", "boolean_dispatch", "max_pool1d"}
_SHAPES = {"stride", "padding", "dilation", "groups"}
_NORMS = {"batch_norm", "group_norm", "layer_norm", "instance_norm"}


class _NotFollowedError(Exception):
    """A function that is none of those above met a value of the image."""


class _Paths(TorchFunctionMode):
    """Replaces functions of tensors that depend on the image."""

    def __init__(self, masks: dict[int, Tensor]) -> None:
        super().__init__()
        self._masks = masks

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        values = [*args, *kwargs.values()]
        if not any(_depends(value) for value in values):
            return func(*args, **kwargs)
        if name in _LAYERS:
            return self._layer(func, args, kwargs)
        if name in _PASS:
            return _first(args, kwargs)
        if name in _MIX or name in _SCALE:
            return self._two(name, values[:2])
        if name in ("matmul", "bmm", "mm", "__matmul__"):
            return _level(func(*(self._mask(value) for value in values[:2])))
        if name in _NORMS:
            return self._norm(name, args, kwargs)
        if name in _MAX_POOL:
            return _sum_pool(*args, **kwargs)
        if name == "amax":
            return _level(torch.sum(*args, **kwargs))
        if name.startswith("adaptive_max_pool"):
            pool: Callable[..., Tensor] = getattr(F, name.replace("max", "avg"))
            return pool(*args[:2])
        if name in ("softmax", "log_softmax"):
            x = _first(args, kwargs)
            return x + x.sum(kwargs.get("dim", args[1] if len(args) > 1 else -1), keepdim=True)
        if name in _AS_IS:
            return func(*args, **kwargs)
        raise _NotFollowedError(name)

    def _layer(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        named = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        more = {key: value for key, value in kwargs.items() if key in _SHAPES}
        found: Tensor = func(named["input"], self._mask(named["weight"]), None, *args[3:], **more)
        return _level(found)

    def _two(self, name: str, values: list[Any]) -> Tensor:
        """A sum of two values that depend on the image; a product is felt through either."""
        one, other = values
        if _depends(one) and _depends(other):
            return _level(one + other)
        value, other = (one, other) if _depends(one) else (other, one)
        constant = torch.as_tensor(other)
        kept = self._mask(constant) if name in _SCALE else torch.zeros_like(constant)
        found: Tensor = value * kept.to(value) if name in _SCALE else value + kept.to(value)
        return found

    def _norm(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        order = {
            "batch_norm": ("input", "running_mean", "running_var", "weight"),
            "instance_norm": ("input", "running_mean", "running_var", "weight"),
            "group_norm": ("input", "num_groups", "weight"),
            "layer_norm": ("input", "normalized_shape", "weight"),
        }[name]
        named = dict(zip(order, args, strict=False)) | kwargs
        x: Tensor = named["input"]
        if name == "layer_norm":
            dims = tuple(range(-len(named["normalized_shape"]), 0))
            x = x + x.sum(dims, keepdim=True)
        elif name == "group_norm":
            grouped = x.unflatten(1, (named["num_groups"], -1))
            x = (grouped + grouped.sum(tuple(range(2, grouped.ndim)), keepdim=True)).flatten(1, 2)
        elif name == "instance_norm":
            x = x + x.sum(tuple(range(2, x.ndim)), keepdim=True)
        weight = named.get("weight")
        if weight is None:
            return _level(x)
        shape = (1, -1) + (1,) * (x.ndim - 2) if name != "layer_norm" else weight.shape
        return _level(x * self._mask(weight).view(shape).to(x))

    def _mask(self, tensor: Tensor) -> Tensor:
        if _depends(tensor):
            return tensor
        known = self._masks.get(tensor.data_ptr()) if tensor.ndim > 1 else None
        return known if known is not None else (tensor != 0).double()


def count_live_weights(model: nn.Module, input_shape: tuple[int, int, int]) -> int | None:
    """Convolution and linear weights on a path from a value of the image to a logit.

    Args:
        model: in eval mode.
        input_shape: channels, height, width.

    Returns:
        how many, or None where the forward pass does something that is not followed.
    """
    found = live_weights(model, input_shape)
    return None if found is None else sum(int(live.sum()) for live in found.values())


@torch.enable_grad()
def live_weights(model: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, Tensor] | None:
    """Which convolution and linear weights are on a path from a value of the image to a logit.

    Args:
        model: in eval mode.
        input_shape: channels, height, width.

    Returns:
        bool tensors by the name of the weight, on the CPU, or None where the forward pass does
        something that is not followed.
    """
    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    layers = {
        f"{name}.weight": one.weight
        for name, one in model.named_modules()
        if isinstance(one, nn.Conv2d | nn.Linear)
    }
    masks = {
        weight.data_ptr(): (weight != 0).double().requires_grad_() for weight in layers.values()
    }
    x = torch.ones((1, *input_shape), dtype=torch.float64, requires_grad=True)
    try:
        with _Paths(masks):
            logits = model(x)
        leaves = list(masks.values())
        found = torch.autograd.grad(logits.sum(), leaves, allow_unused=True)
    except Exception:  # a forward pass raises anything
        return None
    live = {
        key: torch.zeros_like(mask, dtype=torch.bool)
        if slope is None
        else (mask != 0) & (slope != 0)
        for (key, mask), slope in zip(masks.items(), found, strict=True)
    }
    # A weight that two layers share counts once.
    return {
        name: live.pop(weight.data_ptr())
        for name, weight in layers.items()
        if weight.data_ptr() in live
    }


def _depends(value: Any) -> bool:
    """Whether a tensor, or one in a list, depends on the image."""
    if isinstance(value, list | tuple):
        return any(_depends(one) for one in value)
    return isinstance(value, Tensor) and value.requires_grad


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    found: Tensor = args[0] if args else kwargs["input"]
    return found


def _level(x: Tensor) -> Tensor:
    """The same zeros, with values that do not grow from layer to layer."""
    return x / x.detach().amax().clamp(min=1.0)


def _sum_pool(
    x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, *rest: Any, **more: Any
) -> Tensor:
    ceil_mode = more.get("ceil_mode", False) or (len(rest) > 1 and bool(rest[1]))
    pool: Callable[..., Tensor] = F.avg_pool2d if x.ndim == 4 else F.avg_pool1d
    return pool(x, kernel_size, stride or kernel_size, padding, ceil_mode)
