"""What a model really weighs, measured on the weights that were evaluated.

Counts follow RULES.md, "Compactness": everything the network needs to compute counts, a weight
is kept when it is not exactly zero, and multiply-adds follow the output size that the layer
really has (groups, stride, padding and dilation included).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from corobench.benchmark.network.compaction import smallest_equivalent
from corobench.benchmark.network.live_weights import count_live_weights
from corobench.benchmark.network.magnitudes import magnitudes
from corobench.benchmark.network.memory import peak_activation_bytes
from corobench.benchmark.network.sizes import (
    BYTES_PER_VALUE,
    Codes,
    coded_bytes,
    packed_bytes,
    zstd_bytes,
)
from corobench.benchmark.records.result import Compactness, Equivalent, Layer
from corobench.benchmark.records.sizes import FileFormat


def prunable_layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Convolution and linear layers by module name, in definition order."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def sparsity(model: nn.Module) -> float:
    """Share of exact zeros in all convolution and linear weights, in [0, 1].

    >>> layer = nn.Linear(4, 1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.0, 1.0, 2.0, 3.0]]))
    >>> sparsity(layer)
    0.25
    """
    weights = [layer.weight for layer in prunable_layers(model).values()]
    total = sum(weight.numel() for weight in weights)
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / total if total else 0.0


@torch.no_grad()
def measure(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    file_format: FileFormat | None = None,
    codes: Codes | None = None,
) -> Compactness:
    """Measure a model.

    Args:
        model: in eval mode; its convolution and linear layers are found as modules.
        input_shape: channels, height, width.
        file_format: of the weights file, which is only passed on.
        codes: weights that the file holds as 8-bit whole numbers, if any.
    """
    calls = _output_positions(model, input_shape)
    layers = []
    for name, layer in prunable_layers(model).items():
        num_weights = layer.weight.numel()
        num_nonzero = int(torch.count_nonzero(layer.weight))
        positions = calls.get(name, 0)
        layers.append(
            Layer(
                name=name,
                kind="conv" if isinstance(layer, nn.Conv2d) else "linear",
                num_weights=num_weights,
                num_nonzero=num_nonzero,
                macs_dense=num_weights * positions,
                macs_nonzero=num_nonzero * positions,
            )
        )
    tensors = stored_tensors(model)
    bytes_dense = sum(tensor.numel() * BYTES_PER_VALUE for tensor in tensors)
    bytes_coded = sum(coded_bytes(tensor) for tensor in tensors)
    if codes is not None:
        bytes_coded = min(bytes_coded, codes.bytes_with(bytes_dense))
    return Compactness(
        num_parameters=sum(tensor.numel() for tensor in tensors),
        num_nonzero=sum(int(torch.count_nonzero(tensor)) for tensor in tensors),
        macs_dense=sum(layer.macs_dense for layer in layers),
        macs_nonzero=sum(layer.macs_nonzero for layer in layers),
        bytes_dense=bytes_dense,
        bytes_packed=sum(packed_bytes(tensor) for tensor in tensors),
        sparsity=sparsity(model),
        layers=tuple(layers),
        format=file_format,
        bytes_packed_zstd=zstd_bytes(tensors),
        bytes_coded=bytes_coded,
        peak_activation_bytes=peak_activation_bytes(model, input_shape),
        equivalent=measure_equivalent(model, input_shape),
        magnitudes=magnitudes([layer.weight for layer in prunable_layers(model).values()]),
        num_live=count_live_weights(model, input_shape),
    )


def measure_equivalent(model: nn.Module, input_shape: tuple[int, int, int]) -> Equivalent | None:
    """The smallest dense network with the same outputs, in numbers; None where none is known."""
    found = smallest_equivalent(model, input_shape)
    if found is None:
        return None
    chain, num_channels, num_removed = found
    layers = prunable_layers(chain)
    calls = _output_positions(chain, input_shape)
    return Equivalent(
        num_channels=num_channels,
        num_removed=num_removed,
        num_parameters=sum(tensor.numel() for tensor in stored_tensors(chain)),
        macs_dense=sum(layer.weight.numel() * calls[name] for name, layer in layers.items()),
    )


def stored_tensors(model: nn.Module) -> list[Tensor]:
    """Every floating-point tensor the network needs: parameters and buffers, shared ones once.

    Integer buffers such as batch-norm's ``num_batches_tracked`` play no part in eval mode.
    """
    named = [*model.named_parameters(), *model.named_buffers()]
    unique = {tensor.data_ptr(): tensor for _, tensor in named if tensor.is_floating_point()}
    return list(unique.values())


def _output_positions(model: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, int]:
    """Times each weight of a layer is used for one image: the layer's output positions."""
    positions: dict[str, int] = {}

    def hook_for(name: str):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, _: object, output: Tensor) -> None:
            per_image = (
                output[0, 0].numel()
                if isinstance(module, nn.Conv2d)
                else (output.numel() // (output.shape[0] * output.shape[-1]))
            )
            positions[name] = positions.get(name, 0) + per_image

        return hook

    handles = [
        layer.register_forward_hook(hook_for(name))
        for name, layer in prunable_layers(model).items()
    ]
    try:
        first = next(model.parameters(), torch.zeros(1))
        model(torch.zeros((1, *input_shape), dtype=torch.float32, device=first.device))
    finally:
        for handle in handles:
            handle.remove()
    return positions
