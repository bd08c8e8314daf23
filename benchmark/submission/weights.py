"""Weights in safetensors files: read with every size checked first, hashed, written in one step.

What counts as a weight is what the network needs to compute: its parameters and buffers without
``num_batches_tracked``, which batch-norm only counts with while it is trained.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from corobench.benchmark.errors import SubmissionError, printable
from corobench.benchmark.submission import packed
from corobench.benchmark.submission.files import FileFaultError, read_plain_file, write_atomically
from corobench.benchmark.submission.header import (
    FLOAT_BYTES,
    MAX_WEIGHTS_BYTES,
    Header,
    parse_header,
)

MAX_LISTED = 10
COUNTER = "num_batches_tracked"
SUFFIX, PACKED_SUFFIX = ".safetensors", ".packed.safetensors"

State = dict[str, Tensor]


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


def rounded(state: Mapping[str, Tensor], matrices: torch.dtype) -> State:
    """A state dict with the values that a file of :func:`write_weights` gives back.

    Args:
        matrices: floating-point type of the tensors of two or more dimensions in the file.

    Returns:
        The same names, types, shapes and devices.
    """
    return {
        name: tensor.to(matrices).to(tensor.dtype) if tensor.ndim > 1 else tensor
        for name, tensor in state.items()
    }


def write_weights(
    path: Path, state: Mapping[str, Tensor], matrices: torch.dtype = torch.float32
) -> None:
    """Write the effective weights as safetensors, whole or not at all.

    Args:
        matrices: type of the tensors of two or more dimensions in the file; see
            :func:`rounded`.

    Raises:
        OutputError: the file cannot be written.
    """
    # A copy of every tensor, as the format refuses tensors that share memory.
    content = safetensors.torch.save(
        {
            name: tensor.to(matrices if tensor.ndim > 1 else torch.float32, copy=True)
            for name, tensor in effective_state(state).items()
        }
    )
    write_atomically(Path(path), content)


def read_weights(folder: Path, name: str, expected: Mapping[str, Tensor]) -> State:
    """The weights of a submission, float32 on the CPU.

    Header, names, types and shapes are compared with the network's before any value is read.

    Args:
        folder: of the submission.
        name: of the file in it, or of its packed or unpacked counterpart.
        expected: state dict of the network; only names and shapes are used, so it may be on
            the "meta" device.

    Raises:
        SubmissionError: every fault: refused or damaged file, tensors missing, unexpected, of
            another shape or type, NaN or infinite values.
    """
    try:
        name = present_name(folder, name)
        content = read_plain_file(folder, name, MAX_WEIGHTS_BYTES)
        loaded = read_tensors(content, expected)
    except FileFaultError as error:
        lines = str(error).splitlines()
        raise SubmissionError(
            folder, [line if line.startswith(name) else f"{name}: {line}" for line in lines]
        ) from error
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


def counterpart(name: str) -> str | None:
    """The name of the same weights packed or unpacked; None for another kind of file.

    >>> counterpart("model.safetensors"), counterpart("model.packed.safetensors")
    ('model.packed.safetensors', 'model.safetensors')
    """
    if name.endswith(PACKED_SUFFIX):
        return name.removesuffix(PACKED_SUFFIX) + SUFFIX
    if name.endswith(SUFFIX):
        return name.removesuffix(SUFFIX) + PACKED_SUFFIX
    return None


def present_name(folder: Path, name: str) -> str:
    """The weights file that a folder really has: the one named, or its counterpart.

    Raises:
        FileFaultError: both are there, so that it is not clear which is meant.
    """
    other = counterpart(name)
    if other is None or not (folder / other).exists():
        return name
    if not (folder / name).exists():
        return other
    raise FileFaultError(
        f"{name}: expected one weights file, but {other} is there as well; keep one"
    )


def read_tensors(content: bytes, expected: Mapping[str, Tensor] | None = None) -> State:
    """The tensors of a safetensors file, packed or not, with the types that they are stored in.

    Args:
        content: the file.
        expected: state dict of the network they are for; None takes any floating-point tensors.

    Raises:
        FileFaultError: one line per fault; nothing is read before header and network agree.
    """
    header, metadata = parse_header(content)
    whole = packed.unpacked_header(header, metadata) if packed.is_packed(metadata) else header
    faults = [] if expected is None else _compare(whole, expected)
    if faults:
        raise FileFaultError("\n".join(printable(fault) for fault in faults))
    try:
        loaded = safetensors.torch.load(content)
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise FileFaultError(
            f"expected a complete safetensors file, but it is damaged: {error}"
        ) from error
    return packed.unpack(loaded, metadata) if packed.is_packed(metadata) else loaded


def _is_count(entry: Header) -> bool:
    """One whole number: of any other tensor of that name nobody would know what it is for."""
    return entry.dtype[:1] in ("I", "U") and math.prod(entry.shape) == 1


def _compare(header: Mapping[str, Header], expected: Mapping[str, Tensor]) -> list[str]:
    """How the tensors of a file differ from those of the network."""
    wanted = {key: tuple(tensor.shape) for key, tensor in expected.items() if not is_counter(key)}
    given = {
        key: entry
        for key, entry in header.items()
        if not (is_counter(key) and key in expected and _is_count(entry))
    }
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
