"""`corobench pack` and `unpack`: the same weights in another file, compared bit by bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from corobench.benchmark.errors import OutputError, SubmissionError
from corobench.benchmark.records.reports import Repacked
from corobench.benchmark.submission.files import FileFaultError, read_plain_file, write_atomically
from corobench.benchmark.submission.header import MAX_WEIGHTS_BYTES, parse_header
from corobench.benchmark.submission.headers import ONNX_SUFFIX
from corobench.benchmark.submission.manifest import load_manifest
from corobench.benchmark.submission.packed import is_packed, pack
from corobench.benchmark.submission.weights import (
    PACKED_SUFFIX,
    SUFFIX,
    State,
    present_name,
    read_tensors,
)


def repack(
    path: Path, *, to_packed: bool, out: Path | None = None, place: Path | None = None
) -> Repacked:
    """Pack or unpack a submission folder in place, or one file beside itself.

    A folder then holds the new file instead of the old one; its manifest may go on naming the
    old one.

    Args:
        path: a submission folder, or a safetensors file.
        to_packed: whether to pack or to unpack.
        out: the new file, for a file only; by default ``<stem>.packed.safetensors`` and back.
        place: folder to write it into instead, for the caller to put where it belongs; a source
            that it is to replace then stays.

    Raises:
        SubmissionError: the file is refused, or is what it should become already.
        OutputError: `out` exists, or cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        if out is not None:
            raise OutputError(f"--out {out}: only for a file; a folder is packed in place")
        name = load_manifest(path).model.weights
        try:
            source = path / present_name(path, name)
        except FileFaultError as error:
            raise SubmissionError(path, [str(error)]) from error
        done = _convert(source, to_packed, None, place)
        if place is None:
            source.unlink()
        return done
    return _convert(path, to_packed, out, place)


def _convert(source: Path, to_packed: bool, out: Path | None, place: Path | None) -> Repacked:
    _require_safetensors(source, to_packed)
    try:
        content = read_plain_file(source.parent, source.name, MAX_WEIGHTS_BYTES)
        _, metadata = parse_header(content)
        state = read_tensors(content)
    except FileFaultError as error:
        raise SubmissionError(source, str(error).splitlines()) from error
    if is_packed(metadata) == to_packed:
        word = "packed" if to_packed else "not packed"
        raise SubmissionError(source, [f"is {word} already; nothing to do"])
    others = sorted(name for name, tensor in state.items() if not tensor.is_floating_point())
    if to_packed and others:
        raise SubmissionError(
            source,
            [
                f"tensor `{name}`: expected a floating-point type, but found {state[name].dtype}; "
                "save the file without it (counters of batch-norm are not needed)"
                for name in others[:10]
            ],
        )
    if to_packed and any("#" in name for name in state):
        raise SubmissionError(
            source, ["the name of a tensor contains `#`, which packed files reserve"]
        )
    target = out or source.with_name(_stem(source.name) + (PACKED_SUFFIX if to_packed else SUFFIX))
    if target.exists() or target.is_symlink():
        raise OutputError(f"{target}: already exists; move it away, or choose another --out")
    if place is not None:
        target = place / target.name
    packed = pack(state) if to_packed else safetensors.torch.save(dict(state))
    write_atomically(target, packed)
    try:
        _check_equal(state, read_tensors(target.read_bytes()))
    except (FileFaultError, OSError, ValueError) as error:
        target.unlink(missing_ok=True)
        raise OutputError(f"{target}: differs from {source} after writing ({error})") from error
    kept = sum(int((_bits(tensor) != 0).sum()) for tensor in state.values())
    nonzero = sum(int(torch.count_nonzero(tensor)) for tensor in state.values())
    return Repacked(
        source=source,
        target=target,
        bytes_before=len(content),
        bytes_after=len(packed),
        num_values=sum(tensor.numel() for tensor in state.values()),
        num_kept=nonzero,
        num_negative_zeros=kept - nonzero,
    )


def _require_safetensors(source: Path, to_packed: bool) -> None:
    """Refuse files of other kinds by what they are, and say what is there for them.

    Raises:
        SubmissionError: no safetensors file, by its name.
    """
    if source.suffix == SUFFIX:
        return
    word = "packed" if to_packed else "unpacked"
    if source.suffix == ONNX_SUFFIX:
        raise SubmissionError(
            source,
            [
                f"is an ONNX file, and only safetensors weights are {word}. It stays as it is; "
                "`corobench measure` says what its weights need when packed. A smaller ONNX file "
                "of the same function: `corobench compact`; the weights of a known architecture: "
                "`corobench convert --architecture`"
            ],
        )
    raise SubmissionError(
        source,
        [
            f"expected a {SUFFIX} file to be {word}, but found {source.suffix or 'no suffix'!r}; "
            "a checkpoint becomes one with `corobench import`"
        ],
    )


def _stem(name: str) -> str:
    return name.removesuffix(PACKED_SUFFIX).removesuffix(SUFFIX)


def _bits(tensor: Tensor) -> Tensor:
    """The bits of a tensor as whole numbers of the same size."""
    size = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.contiguous().reshape(-1).view(size)


def _check_equal(before: Mapping[str, Tensor], after: State) -> None:
    """Equal names, types, shapes and bits, or ValueError with the first that is not."""
    if before.keys() != after.keys():
        raise ValueError("other names")
    for name, tensor in before.items():
        found = after[name]
        if (tensor.dtype, tensor.shape) != (found.dtype, found.shape) or not torch.equal(
            _bits(tensor), _bits(found)
        ):
            raise ValueError(f"tensor `{name}`")
