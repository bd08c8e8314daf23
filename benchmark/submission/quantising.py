"""A float32 network of layers in a chain as one of 8-bit whole numbers that is exact in float32.

Every scale is a power of two, and per output channel all magnitudes that are added stay below
2^24 units of one common step. So each product and each sum, in whatever order, is a number that
float32 holds: engines in float32 and in int32 compute the same bits, and what is proven of one
holds for all. (With other scales, two runtimes differ in most logits, and now and then in a whole
step of an activation.) Left out are kernels that saturate, and those that transform a convolution.

No range is lost to that: a ReLU network computes the same where a layer is multiplied by a factor
and the next one divided by it, so that the largest activation of every layer becomes 255 steps of
1/256. An image is rounded to multiples of 1/255, which are the whole numbers 0 to 255. Rounding is
monotone, so an interval of values becomes the interval of its rounded ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from corobench.benchmark.errors import NotCertifiable
from corobench.benchmark.network.prepare import prepare
from corobench.benchmark.submission.architectures.parts import Normalize, split_normalize
from corobench.benchmark.submission.graph.writing_qdq import (
    ACTIVATION_STEP,
    MAX_ACTIVATION_CODE,
    MAX_WEIGHT_CODE,
    IntegerLayer,
    IntegerNetwork,
    Operator,
)

#: What the largest activation becomes; 1 of an image, too.
FULL = MAX_ACTIVATION_CODE * ACTIVATION_STEP
#: Largest activations are rounded up to this many bits, so that another order of summation on
#: another machine gives the same file.
LARGEST_BITS = 8
#: Whole numbers up to this one are float32 numbers.
EXACT = 2**24
BATCH_SIZE = 250
_SUPPORTED = (
    "int8 supports a chain of convolutions (zero padding, no groups) and linear layers, each but "
    "the last followed by a ReLU, with max-pooling and flattening between them"
)


class NotQuantisableError(ValueError):
    """A network that this scheme does not take; the text names the layer and the way out."""


class _Leaves(fx.Tracer):
    """Stops at every module without parts, whoever wrote it."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return next(m.children(), None) is None


class _Layer:
    """A weighted layer in float64, and what follows it."""

    def __init__(self, name: str, module: nn.Conv2d | nn.Linear) -> None:
        self.name, self.module = name, module
        self.weight = module.weight.detach().cpu().numpy().astype(np.float64)
        bias = module.bias
        self.bias = np.zeros(len(self.weight)) if bias is None else bias.detach().cpu().numpy()
        self.bias = self.bias.astype(np.float64)
        self.after: list[Operator] = []
        self.mean: NDArray[np.float64] | None = None
        self.has_ones = False


def quantise_network(
    model: nn.Module, image_shape: tuple[int, int, int], images: Tensor
) -> IntegerNetwork:
    """The network in 8-bit whole numbers.

    Batch-norm is folded first, and a leading `Normalize` into the first layer: where that pads, a
    channel of ones joins the image and carries the mean, so that padded places keep what they
    stand for. Weights are rounded symmetrically, one scale per output channel, so that a zero stays
    zero; an activation has 255 steps up to the largest one of its layer on the images.

    Args:
        model: in eval mode, on the CPU.
        image_shape: channels, height, width.
        images: float32 (B, C, H, W) in [0, 1], on which activations are measured; training images.

    Raises:
        NotQuantisableError: not a chain of the supported layers.
    """
    normalize, network = split_normalize(model)
    before, layers, plain = _read_chain(network, image_shape)
    largest = _largest_inputs(plain, [layer.module for layer in layers], normalize, images)
    if normalize is not None:
        _fold_normalisation(layers[0], normalize)
    factors = [FULL, *(FULL / _rounded_up(value) for value in largest[1:]), 1.0]
    return IntegerNetwork(
        image_shape=image_shape,
        num_classes=len(layers[-1].weight),
        pixel_factor=FULL,
        has_ones=layers[0].has_ones,
        before=tuple(before),
        layers=tuple(
            _rounded(layer, there / here, there)
            for layer, (here, there) in zip(layers, pairwise(factors), strict=True)
        ),
    )


def _rounded_up(largest: float) -> float:
    """A positive number with `LARGEST_BITS` bits, rounded up; 1 where nothing is positive.

    >>> _rounded_up(1.0), _rounded_up(1.0001), _rounded_up(0.0)
    (1.0, 1.0078125, 1.0)
    """
    if largest <= 0:
        return 1.0
    mantissa, exponent = math.frexp(largest)
    return math.ldexp(math.ceil(math.ldexp(mantissa, LARGEST_BITS)), exponent - LARGEST_BITS)


def _scale(largest: float) -> float:
    """The smallest power of two of which 127 reach `largest`.

    >>> _scale(1.0), _scale(127 / 128), _scale(0.0)
    (0.015625, 0.0078125, 1.0)
    """
    if largest <= 0:
        return 1.0
    scale = math.ldexp(1.0, math.frexp(largest / MAX_WEIGHT_CODE)[1] - 1)
    return scale if scale * MAX_WEIGHT_CODE >= largest else 2 * scale


def _rounded(layer: _Layer, factor: float, bias_factor: float) -> IntegerLayer:
    """The layer in whole numbers, its weights and its bias multiplied by a factor each before."""
    module = layer.module
    rows = layer.weight.reshape(*layer.weight.shape[:2], -1) * factor
    if layer.mean is not None:
        rows = rows.reshape(len(rows), len(layer.mean), -1)
    found = [
        _round_channel(weights, float(bias), layer.mean, layer.has_ones)
        for weights, bias in zip(rows, layer.bias * bias_factor, strict=True)
    ]
    codes = np.stack([codes for codes, _, _ in found])
    taps = layer.weight.shape[2:]
    return IntegerLayer(
        name=layer.name,
        codes=codes.reshape(len(codes), -1, *taps).astype(np.int8),
        scales=np.array([scale for _, scale, _ in found], np.float32),
        bias=np.array([bias for _, _, bias in found], np.int32),
        attributes=_window(module, module.padding) if isinstance(module, nn.Conv2d) else {},
        after=tuple(layer.after),
    )


def _round_channel(
    weights_CT: NDArray[np.float64],
    bias: float,
    mean_C: NDArray[np.float64] | None,
    has_ones: bool,
) -> tuple[NDArray[np.float64], float, int]:
    """Whole numbers, their scale and the whole bias of one output channel.

    The scale is the smallest power of two with which the weights have 8 bits and no sum can leave
    the whole numbers that float32 holds. What is to be subtracted for the mean is that of the
    rounded weights, so that their errors count on what differs from the mean alone; the bias takes
    what the channel of ones cannot.

    Args:
        weights_CT: by input channel (C) and place in the window (T).
        bias: of the channel.
        mean_C: subtracted from the input channels, or None.
        has_ones: whether a channel of ones carries it.
    """
    shift_T = np.zeros(1) if mean_C is None else mean_C @ weights_CT
    largest = float(np.abs(weights_CT).max(initial=0.0))
    scale = _scale(max(largest, float(np.abs(shift_T).max()) * has_ones) or abs(bias))
    while True:
        codes = np.round(weights_CT / scale)
        wanted = bias / (ACTIVATION_STEP * scale)
        if mean_C is not None:
            shift_T = -(mean_C @ codes)
            ones_T = np.round(shift_T) * has_ones
            wanted += MAX_ACTIVATION_CODE * float((shift_T - ones_T).sum())
            codes = np.vstack([codes, ones_T]) if has_ones else codes
        size = np.abs(codes)
        whole_bias = round(wanted)
        if size.max() <= MAX_WEIGHT_CODE and (
            size.sum() * MAX_ACTIVATION_CODE + abs(whole_bias) < EXACT
        ):
            return codes, scale, whole_bias
        scale *= 2


def _fold_normalisation(layer: _Layer, normalize: Normalize) -> None:
    """(x - mean) / std into the first layer, as weights, a mean, and whether ones carry it."""
    std = normalize.std.detach().cpu().numpy().astype(np.float64).reshape(-1)
    layer.mean = normalize.mean.detach().cpu().numpy().astype(np.float64).reshape(-1)
    by_channel = layer.weight.reshape(len(layer.weight), len(std), -1) / std[None, :, None]
    layer.weight = by_channel.reshape(layer.weight.shape)
    layer.has_ones = isinstance(layer.module, nn.Conv2d) and any(_pads(layer.module.padding))


def _largest_inputs(
    network: nn.Module,
    modules: Sequence[nn.Module],
    normalize: Normalize | None,
    images: Tensor,
) -> list[float]:
    """The largest value that each layer reads, over all images."""
    largest = [0.0] * len(modules)

    def watch(number: int) -> Any:
        def hook(_module: nn.Module, values: tuple[Tensor, ...]) -> None:
            largest[number] = max(largest[number], float(values[0].max()))

        return hook

    handles = [
        module.register_forward_pre_hook(watch(number)) for number, module in enumerate(modules)
    ]
    try:
        with torch.no_grad():
            for batch in images.split(BATCH_SIZE):
                network(batch if normalize is None else normalize(batch))
    finally:
        for handle in handles:
            handle.remove()
    return largest


def _read_chain(
    model: nn.Module, image_shape: tuple[int, int, int]
) -> tuple[list[Operator], list[_Layer], nn.Module]:
    """What stands before the first weighted layer, the layers, and the network they are read off.

    Raises:
        NotQuantisableError: see `quantise_network`.
    """
    try:
        plain = prepare(model, image_shape)
    except NotCertifiable as error:
        raise NotQuantisableError(f"{error}; {_SUPPORTED}") from error
    before: list[Operator] = []
    layers: list[_Layer] = []
    is_signed = False
    for name, module in _modules_in_order(plain):
        if isinstance(module, nn.Conv2d | nn.Linear):
            _check_weighted(name, module, layers, is_signed)
            layers.append(_Layer(name, module))
            is_signed = True
            continue
        operator = _operator(name, module, has_layers=bool(layers))
        if operator is None or (operator[0] == "Relu" and not is_signed):
            continue
        is_signed = is_signed and operator[0] != "Relu"
        (layers[-1].after if layers else before).append(operator)
    if not layers or not is_signed:
        raise NotQuantisableError(
            f"expected a convolution or linear layer last, which gives the logits; {_SUPPORTED}"
        )
    return before, layers, plain


def _modules_in_order(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules of a forward pass that applies one after another, by name."""
    try:
        nodes = list(_Leaves().trace(model).nodes)
    except Exception as error:  # tracing a network raises anything
        raise NotQuantisableError(
            f"cannot follow the forward pass ({type(error).__name__}); {_SUPPORTED}; write the "
            "network as torch.nn.Sequential, or convert it without --int8"
        ) from error
    last = nodes[0]
    for node in nodes[1:-1]:
        if node.op == "get_attr":
            continue
        what = str(node.target) if node.op != "call_function" else node.name
        if node.op != "call_module":
            raise NotQuantisableError(
                f"`{what}`: is an operation between layers; {_SUPPORTED}, each a module of "
                "torch.nn; convert it without --int8"
            )
        if node.args != (last,) or node.kwargs:
            raise NotQuantisableError(
                f"`{what}`: does not read the layer before it, so the network has branches; "
                f"{_SUPPORTED}; convert it without --int8"
            )
        yield what, model.get_submodule(what)
        last = node
    if nodes[-1].args != (last,):
        raise NotQuantisableError(f"expected one output, the logits; {_SUPPORTED}")


def _check_weighted(
    name: str, module: nn.Conv2d | nn.Linear, layers: Sequence[_Layer], is_signed: bool
) -> None:
    kind = type(module).__name__
    if is_signed:
        raise NotQuantisableError(
            f"`{name}` ({kind}): expected a ReLU between it and `{layers[-1].name}`; activations "
            "are unsigned here; add one, merge the two layers, or convert it without --int8"
        )
    if any(module is layer.module for layer in layers):
        raise NotQuantisableError(f"`{name}` ({kind}): is used twice; {_SUPPORTED}")
    if isinstance(module, nn.Conv2d) and (
        module.groups != 1 or module.padding_mode != "zeros" or module.padding == "same"
    ):
        raise NotQuantisableError(
            f"`{name}` ({kind}): has groups or another padding than zeros, the same on both sides; "
            f"{_SUPPORTED}; convert it without --int8"
        )


def _operator(name: str, module: nn.Module, has_layers: bool) -> Operator | None:
    """The operator of a layer without weights, or None for one that does nothing."""
    if isinstance(module, nn.Identity):
        return None
    if isinstance(module, nn.ReLU):
        return "Relu", {}
    if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
        return "Reshape", {}
    if (
        isinstance(module, nn.MaxPool2d)
        and has_layers
        and not (module.ceil_mode or module.return_indices)
    ):
        return "MaxPool", _window(module, module.padding)
    raise NotQuantisableError(
        f"`{name}` ({type(module).__name__}): is not supported here; {_SUPPORTED}; replace it, or "
        "convert the network without --int8"
    )


def _pads(padding: object) -> tuple[int, int]:
    if isinstance(padding, str):  # "valid"; "same" was made explicit or refused
        return 0, 0
    high, wide = padding if isinstance(padding, tuple) else (padding, padding)
    return int(high), int(wide)  # type: ignore[call-overload]


def _window(module: nn.Conv2d | nn.MaxPool2d, padding: object) -> dict[str, Any]:
    """Attributes of a Conv or MaxPool operator."""
    high, wide = _pads(padding)
    return {
        "dilations": _pair(module.dilation),
        "kernel_shape": _pair(module.kernel_size),
        "pads": [high, wide, high, wide],
        "strides": _pair(module.stride),
    }


def _pair(value: object) -> list[int]:
    return [int(one) for one in value] if isinstance(value, tuple) else [int(value)] * 2  # type: ignore[call-overload]
