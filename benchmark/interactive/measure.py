"""``corobench.measure``: what a network weighs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from corobench.benchmark.errors import ConfigError, ContractError
from corobench.benchmark.interactive.places import entry_at
from corobench.benchmark.records.result import Compactness
from corobench.benchmark.records.sizes import FileFormat
from corobench.benchmark.submission.kinds import is_onnx
from corobench.benchmark.tracks import get_track

if TYPE_CHECKING:
    from torch import nn


def measure(
    model: nn.Module | str | Path,
    track: str | None = None,
    *,
    shape: Sequence[int] | None = None,
) -> Compactness:
    """What a network really weighs: parameters, non-zeros, multiply-adds, bytes (RULES.md).

    Args:
        model: a ``torch.nn.Module`` in eval mode, with pruning masks or without; or a submission
            folder, an ONNX file, or an entry's name.
        track: whose images a network in memory is for; or give their `shape`.
        shape: channels, height, width of its images.

    Returns:
        Counts and bytes, key by key as in docs/file-formats.md.

    Raises:
        ConfigError: a network in memory without `track` and `shape`.
        ContractError: it is in training mode, or does not take such images.
        SubmissionError: every fault of the folder or file.

    >>> import torch, corobench
    >>> layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False)).eval()
    >>> _ = layers[1].weight.data.copy_(torch.tensor([[1.0, 0, 0, 2], [0, 0, 0, 3]]))
    >>> weighed = corobench.measure(layers, shape=(1, 2, 2))
    >>> weighed.num_parameters, weighed.num_nonzero, weighed.sparsity, weighed.macs_nonzero
    (8, 3, 0.625, 3)
    """
    import torch

    from corobench.benchmark.network import compactness

    if isinstance(model, torch.nn.Module | type):
        return _in_memory(model, _shape_of(track, shape))
    path = entry_at(model)
    if is_onnx(path):
        from corobench.benchmark.interactive.loading import read_graph_file

        graph = read_graph_file(path)
        kind: FileFormat = "onnx-qdq" if graph.is_quantised else "onnx"
        codes = graph.codes if graph.codes.num_values else None
        return compactness.measure(graph.network, graph.image_shape, kind, codes)
    from corobench.benchmark.submission import load_submission

    return load_submission(path, track).measure()


def _in_memory(model: nn.Module, shape: tuple[int, int, int]) -> Compactness:
    from corobench.benchmark.interactive import networks
    from corobench.benchmark.network import compactness

    copied = networks.measured_copy(model, shape)
    try:
        return compactness.measure(copied, shape)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        fault = f"contract clause runs: the model fails on one image {list(shape)}: {lines[0]}"
        raise ContractError(networks.name_of(copied), [fault[:400]]) from error


def _shape_of(track: str | None, shape: Sequence[int] | None) -> tuple[int, int, int]:
    if (track is None) == (shape is None):
        raise ConfigError(
            'measure: expected track="..." or shape=(channels, height, width) for a network in '
            "memory, and not both"
        )
    if track is not None:
        return get_track(track).shape
    assert shape is not None
    sizes = tuple(shape)
    if len(sizes) != 3 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ConfigError(f"shape: expected (channels, height, width), but found {sizes}")
    return sizes[0], sizes[1], sizes[2]
