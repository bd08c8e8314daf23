"""Weights in safetensors files: read with every size checked first, hashed, written in one step.

What counts as a weight is what the network needs to compute: its parameters and buffers without
``num_batches_tracked``, which batch-norm only counts with while it is trained.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from benchmark.errors import SubmissionError
from benchmark.safe_json import check_depth
from benchmark.submission.files import FileFaultError, read_plain_file, write_atomically

#: Largest weights file that is read: 2 GiB.
MAX_WEIGHTS_BYTES = 2 * 1024**3
#: Largest safetensors header that is read.
MAX_HEADER_BYTES = 4 * 1024**2
MAX_TENSORS = 20_000
MAX_LISTED = 10
#: Types of a file that become float32, with the bytes of one value.
FLOAT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
#: Key of a header that is no tensor.
METADATA = "__metadata__"
MAX_DIMENSIONS = 8
COUNTER = "num_batches_tracked"

State = dict[str, Tensor]


@dataclass(frozen=True)
class Header:
    """One tensor as the header of a file describes it."""

    dtype: str
    shape: tuple[int, ...]


def is_counter(name: str) -> bool:
    """Whether a tensor is batch-norm's counter, which no output depends on."""
    return name.rsplit(".", 1)[-1] == COUNTER


def effective_state(state: Mapping[str, Tensor]) -> State:
    """The weights of a state dict, float32 on the CPU, without counters, sorted by name."""
    return {
        name: state[name].detach().to("cpu", torch.float32).contiguous()
        for name in sorted(state)
        if not is_counter(name)
    }


def effective_sha256(state: Mapping[str, Tensor]) -> str:
    """The hash that identifies the weights of a result.

    For every tensor of :func:`effective_state`, by name: the text ``<name>\\nF32\\n<shape>\\n``
    in UTF-8 (sizes separated by commas), then the values as little-endian float32.

    Returns:
        64 hex digits.

    >>> effective_sha256({"w": torch.zeros(2)})[:16]
    '8bb553272c77e1c5'
    """
    digest = hashlib.sha256()
    for name, tensor in effective_state(state).items():
        shape = ",".join(str(size) for size in tensor.shape)
        digest.update(f"{name}\nF32\n{shape}\n".encode())
        digest.update(tensor.numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def write_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write the effective weights as safetensors, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    # A copy of every tensor, as the format refuses tensors that share memory.
    content = safetensors.torch.save(
        {name: tensor.clone() for name, tensor in effective_state(state).items()}
    )
    write_atomically(Path(path), content)


def read_weights(folder: Path, name: str, expected: Mapping[str, Tensor]) -> State:
    """The weights of a submission, float32 on the CPU.

    Header, names, types and shapes are compared with the network's before any value is read.

    Args:
        folder: of the submission.
        name: of the file in it.
        expected: state dict of the network; only names and shapes are used, so it may be on
            the "meta" device.

    Raises:
        SubmissionError: every fault: refused or damaged file, tensors missing, unexpected, of
            another shape or type, NaN or infinite values.
    """
    try:
        content = read_plain_file(folder, name, MAX_WEIGHTS_BYTES)
        header = _parse_header(content)
    except FileFaultError as error:
        text = str(error)
        raise SubmissionError(folder, [text if text.startswith(name) else f"{name}: {text}"]) from (
            error
        )
    faults = [f"{name}: {fault}" for fault in _compare(header, expected)]
    if faults:
        raise SubmissionError(folder, faults)
    try:
        loaded = safetensors.torch.load(content)
    except (SafetensorError, ValueError, RuntimeError) as error:
        fault = f"{name}: expected a complete safetensors file, but it is damaged: {error}"
        raise SubmissionError(folder, [fault]) from error
    # A copy, as a header of odd length leaves the values unaligned in the file.
    state = {key: tensor.clone() for key, tensor in effective_state(loaded).items()}
    faults = [
        f"{name}: tensor `{key}`: expected finite float32 values, but found "
        f"{int((~torch.isfinite(tensor)).sum())} NaN or infinite"
        for key, tensor in state.items()
        if not bool(torch.isfinite(tensor).all())
    ]
    if faults:
        raise SubmissionError(folder, faults)
    return state


def _parse_header(content: bytes) -> dict[str, Header]:
    """The tensors that the header of a safetensors file describes.

    Raises:
        FileFaultError: truncated, too long, not JSON, a repeated name, or sizes that do not add up.
    """
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > MAX_HEADER_BYTES:
        raise FileFaultError(
            f"expected a safetensors file with a header of at most {MAX_HEADER_BYTES} bytes, but "
            f"found {size if len(content) >= 8 else 'a file of less than 8 bytes'}"
        )
    if 8 + size > len(content):
        raise FileFaultError(
            f"expected a header of {size} bytes, but the file ends after {len(content) - 8}: "
            "it is truncated"
        )
    try:
        text = content[8 : 8 + size].decode("utf-8")
        check_depth(text)
        table = json.loads(text, object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:
        raise FileFaultError(f"expected a safetensors header in JSON, but found: {error}") from (
            error
        )
    if not isinstance(table, dict) or len(table) > MAX_TENSORS:
        raise FileFaultError(f"expected a header that lists at most {MAX_TENSORS} tensors")
    header = {name: _parse_entry(name, entry) for name, entry in table.items() if name != METADATA}
    ends = [entry["data_offsets"][1] for name, entry in table.items() if name in header]
    end = max(ends, default=0)
    if end != len(content) - 8 - size:
        raise FileFaultError(
            f"expected {end} bytes of values, but found {len(content) - 8 - size}: "
            "the file is truncated or damaged"
        )
    return header


def _parse_entry(name: str, entry: Any) -> Header:
    """One tensor of the header, with sizes that are whole numbers and agree with its offsets."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, begin, end]
        if not isinstance(dtype, str) or any(type(number) is not int for number in numbers):
            raise ValueError("sizes must be whole numbers")
        if len(shape) > MAX_DIMENSIONS or min(numbers) < 0 or max(numbers) > MAX_WEIGHTS_BYTES:
            raise ValueError("sizes out of range")
        if dtype in FLOAT_BYTES and end - begin != math.prod(shape) * FLOAT_BYTES[dtype]:
            raise ValueError("shape and offsets disagree")
    except (TypeError, KeyError, ValueError) as error:
        raise FileFaultError(f"tensor `{name}`: expected a valid header entry ({error})") from error
    return Header(dtype, tuple(shape))


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name is listed twice")
    return table


def _compare(header: Mapping[str, Header], expected: Mapping[str, Tensor]) -> list[str]:
    """How the tensors of a file differ from those of the network."""
    wanted = {key: tuple(tensor.shape) for key, tensor in expected.items() if not is_counter(key)}
    given = {key: entry for key, entry in header.items() if not is_counter(key)}
    faults = []
    for kind, names in (("missing", wanted.keys() - given), ("unexpected", given.keys() - wanted)):
        faults += [f"{kind} tensor `{key}`" for key in sorted(names)[:MAX_LISTED]]
        if len(names) > MAX_LISTED:
            faults.append(f"{kind} tensors: {len(names) - MAX_LISTED} more")
    for key in sorted(wanted.keys() & given):
        if given[key].dtype not in FLOAT_BYTES:
            faults.append(
                f"tensor `{key}`: expected one of {', '.join(FLOAT_BYTES)}, "
                f"but found {given[key].dtype}"
            )
        if given[key].shape != wanted[key]:
            faults.append(
                f"tensor `{key}`: expected shape {list(wanted[key])}, "
                f"but found {list(given[key].shape)}"
            )
    return faults
