"""Packed weights: a bitmask and the values that it keeps, lossless, inside a safetensors file.

A tensor ``<name>`` is either there as it is, or as two flat tensors, whichever needs fewer bytes:
``<name>#mask`` (U8, one bit per value, the first value in the lowest bit of the first byte) and
``<name>#values`` (the values whose bit is 1, in order). Shapes stand in the metadata. A bit is 0
only where all bits of the value are 0, so that even a negative zero comes back. The layout is
described in docs/file-formats.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from corobench.benchmark.files.safe_json import check_depth, no_repeats
from corobench.benchmark.submission.files import FileFaultError
from corobench.benchmark.submission.header import (
    FLOAT_BYTES,
    MAX_DIMENSIONS,
    MAX_WEIGHTS_BYTES,
    Header,
)

#: What the metadata key ``format`` says.
FORMAT = "corobench-packed-1"
MASK, VALUES = "#mask", "#values"

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def is_packed(metadata: Mapping[str, str]) -> bool:
    """Whether the metadata of a safetensors file say that it is packed."""
    return metadata.get("format", "").startswith("corobench-packed")


def pack(state: Mapping[str, Tensor]) -> bytes:
    """A state dict as a packed safetensors file; types are kept.

    Args:
        state: floating-point tensors by name.

    Returns:
        The file; equal tensors give equal bytes.

    >>> content = pack({"w": torch.tensor([0.0] * 30 + [1.5, -2.0])})
    >>> {name: len(t) for name, t in sorted(safetensors.torch.load(content).items())}
    {'w#mask': 4, 'w#values': 2}
    """
    tensors: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        bits = tensor.reshape(-1).view(_BITS[tensor.element_size()]) != 0
        num_bytes = -(-len(bits) // 8) + int(bits.sum()) * tensor.element_size()
        if num_bytes >= tensor.numel() * tensor.element_size():
            tensors[name] = tensor.clone()
            continue
        mask = np.packbits(bits.numpy(), bitorder="little")
        tensors[name + MASK] = torch.from_numpy(mask)
        tensors[name + VALUES] = tensor.reshape(-1)[bits].clone()
        shapes[name] = list(tensor.shape)
    text = json.dumps(shapes, sort_keys=True, separators=(",", ":"))
    content = safetensors.torch.save(tensors, metadata={"format": FORMAT, "shapes": text})
    return _with_sorted_metadata(content)


def _with_sorted_metadata(content: bytes) -> bytes:
    """The same file; the library writes the metadata's keys in an order drawn anew each time."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def unpacked_header(header: Mapping[str, Header], metadata: Mapping[str, str]) -> dict[str, Header]:
    """The tensors that a packed file stands for, before any value is read.

    Raises:
        FileFaultError: another version, or masks, values and shapes that do not belong together.
    """
    if metadata["format"] != FORMAT:
        raise FileFaultError(
            f"metadata `format`: expected {FORMAT!r}, but found {metadata['format'][:80]!r}"
        )
    shapes = _shapes(metadata)
    whole = {name: entry for name, entry in header.items() if "#" not in name}
    parts = {name for name in header if "#" in name}
    wanted = {name + part for name in shapes for part in (MASK, VALUES)}
    for name in sorted(parts ^ wanted):
        kind = "missing" if name in wanted else "unexpected"
        raise FileFaultError(f"{kind} tensor `{name}`: every packed tensor has a mask and values")
    total = sum(math.prod(entry.shape) for entry in whole.values())
    for name, shape in shapes.items():
        if name in whole:
            raise FileFaultError(f"tensor `{name}`: is there twice, packed and plain")
        mask, values = header[name + MASK], header[name + VALUES]
        size = math.prod(shape)
        if (mask.dtype, mask.shape) != ("U8", (-(-size // 8),)):
            raise FileFaultError(
                f"tensor `{name}{MASK}`: expected U8 of shape [{-(-size // 8)}] for the "
                f"shape {list(shape)}, but found {mask.dtype} {list(mask.shape)}"
            )
        if values.dtype not in FLOAT_BYTES or len(values.shape) != 1 or values.shape[0] > size:
            raise FileFaultError(
                f"tensor `{name}{VALUES}`: expected at most {size} values in one row, one of "
                f"{', '.join(FLOAT_BYTES)}, but found {values.dtype} {list(values.shape)}"
            )
        whole[name] = Header(values.dtype, shape)
        total += size
    if 4 * total > MAX_WEIGHTS_BYTES:
        raise FileFaultError(
            f"expected at most {MAX_WEIGHTS_BYTES} bytes once unpacked, but found {4 * total}"
        )
    return whole


def unpack(loaded: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors of a packed file whose header passed :func:`unpacked_header`.

    Raises:
        FileFaultError: a mask whose number of ones differs from the number of values, or that
            has ones behind the last value.
    """
    state = {name: tensor for name, tensor in loaded.items() if "#" not in name}
    for name, shape in _shapes(metadata).items():
        values, size = loaded[name + VALUES], math.prod(shape)
        bits = np.unpackbits(loaded[name + MASK].numpy(), bitorder="little").astype(bool)
        if bits[size:].any() or int(bits.sum()) != len(values):
            raise FileFaultError(
                f"tensor `{name}{MASK}`: expected as many ones as there are values, "
                f"{len(values)}, within the first {size} bits, but found {int(bits.sum())}"
            )
        flat = torch.zeros(size, dtype=values.dtype)
        flat[torch.from_numpy(bits[:size])] = values
        state[name] = flat.reshape(shape)
    return state


def _shapes(metadata: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """The shapes in the metadata, each a list of whole numbers in range."""
    text = metadata.get("shapes", "")
    try:
        check_depth(text)
        table = json.loads(text, object_pairs_hook=no_repeats)
        if not isinstance(table, dict):
            raise ValueError("no table")
        for name, shape in table.items():
            if (
                not isinstance(shape, list)
                or len(shape) > MAX_DIMENSIONS
                or any(type(size) is not int or size < 0 for size in shape)
                or math.prod(shape) > MAX_WEIGHTS_BYTES
                or "#" in name
            ):
                raise ValueError(f"`{name}`: {shape!r}"[:120])
    except (ValueError, RecursionError) as error:
        raise FileFaultError(
            f"metadata `shapes`: expected JSON with a shape per packed tensor ({error})"
        ) from error
    return {name: tuple(shape) for name, shape in table.items()}
