"""A reader of packed safetensors files, version 1: sparse weights as bitmasks and values.

One file that needs numpy and nothing else; copy it into your project (MIT licence, the corobench
team). The format is specified in docs/packed-format.md, which has test vectors, too.

    tensors = load_packed("model.packed.safetensors")  # name -> numpy array

Nothing in a file is run, and nothing is allocated before all sizes were checked.
"""

from __future__ import annotations

import json
import math
import re
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The metadata key `format` of the one version that this file reads.
FORMAT = "corobench-packed-1"
MASK, VALUES = "#mask", "#values"

#: Types of packed values.
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
#: Types of tensors that are stored as they are.
_TYPES = {
    **_FLOATS,
    **{f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)},
    "BOOL": "|b1",
    "C64": "<c8",
}
_MAX_HEADER_BYTES = 4 * 1024**2
_MAX_DIMENSIONS = 8
_MAX_DEPTH = 8
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)

Entry = tuple[str, tuple[int, ...], int, int]  # type, shape, begin and end of the bytes


class PackedFileError(ValueError):
    """A file that is no packed safetensors file of this version; its text says why."""


def load_packed(
    source: str | PathLike[str] | bytes, *, max_bytes: int = 4 * 1024**3
) -> dict[str, NDArray[Any]]:
    """Read a packed safetensors file.

    Args:
        source: path of the file, or its bytes.
        max_bytes: most bytes that the file, and all tensors together once unpacked, may have.

    Returns:
        Every tensor by name, in the order of the names. Numpy has no bfloat16: BF16 becomes
        float32, which holds each of its values exactly.

    Raises:
        PackedFileError: another format or version, damaged, or larger than `max_bytes`.
        OSError: the file cannot be read.

    >>> import base64
    >>> load_packed(base64.b64decode(EXAMPLE))
    {'w': array([[ 0. ,  1.5,  0. ],
           [ 0. ,  0. , -2. ]], dtype=float32)}
    """
    content = source if isinstance(source, bytes) else _read(Path(source), max_bytes)
    header, metadata, begin = _parse_header(content)
    if metadata.get("format") != FORMAT:
        raise PackedFileError(
            f"metadata `format`: expected {FORMAT!r}, but found {metadata.get('format')!r:.80}"
        )
    shapes = _parse_shapes(metadata)
    _check(header, shapes, max_bytes)
    values = memoryview(content)[begin:]
    tensors: dict[str, NDArray[Any]] = {}
    for name, entry in header.items():
        if "#" not in name:
            tensors[name] = _widened(_array(entry, values), entry[0]).reshape(entry[1])
    for name, shape in shapes.items():
        mask, kept = header[name + MASK], header[name + VALUES]
        tensors[name] = _widened(
            _unpacked(name, _array(mask, values), _array(kept, values), shape), kept[0]
        )
    return dict(sorted(tensors.items()))


def _unpacked(
    name: str, mask: NDArray[Any], kept: NDArray[Any], shape: tuple[int, ...]
) -> NDArray[Any]:
    size = math.prod(shape)
    bits = np.unpackbits(mask, bitorder="little").astype(bool)
    if bits[size:].any():
        raise PackedFileError(f"tensor `{name}{MASK}`: has ones behind the last of {size} values")
    if int(bits.sum()) != len(kept):
        raise PackedFileError(
            f"tensor `{name}{MASK}`: expected as many ones as values, {len(kept)}, but found "
            f"{int(bits.sum())}"
        )
    flat = np.zeros(size, kept.dtype)
    flat[bits[:size]] = kept
    return flat.reshape(shape)


def _widened(array: NDArray[Any], kind: str) -> NDArray[Any]:
    """A writable array of the machine's own byte order; bfloat16 as float32."""
    if kind == "BF16":
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(array.dtype.newbyteorder("="))


def _array(entry: Entry, values: memoryview) -> NDArray[Any]:
    kind, _, begin, end = entry
    return np.frombuffer(values[begin:end], _TYPES[kind])


def _read(path: Path, max_bytes: int) -> bytes:
    with path.open("rb") as stream:
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise PackedFileError(f"{path}: has more than {max_bytes} bytes")
    return content


def _parse_header(content: bytes) -> tuple[dict[str, Entry], dict[str, str], int]:
    """Tensors by name, metadata, and where the values begin."""
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > min(len(content) - 8, _MAX_HEADER_BYTES):
        raise PackedFileError("expected a safetensors file, but it is truncated or something else")
    table = _json(content[8 : 8 + size], "header")
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(one, str) for one in metadata.values()):
        raise PackedFileError("`__metadata__`: expected text by name")
    header = {name: _entry(name, value) for name, value in table.items()}
    end = 0
    for _, _, begin, after in sorted(header.values(), key=lambda entry: entry[2:]):
        if begin != end:
            raise PackedFileError(
                f"bytes {min(begin, end)} to {max(begin, end)}: used twice or not"
            )
        end = after
    if end != len(content) - 8 - size:
        raise PackedFileError(f"expected {end} bytes of values, found {len(content) - 8 - size}")
    return header, metadata, 8 + size


def _entry(name: str, value: Any) -> Entry:
    try:
        kind, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
        if isinstance(kind, str) and kind not in _TYPES:
            raise PackedFileError(f"tensor `{name}`: numpy has no type for {kind!r:.40}")
        dtype = np.dtype(_TYPES[kind])
        if not _is_shape(shape) or not _is_shape([begin, end]) or len(value) != 3:
            raise ValueError
        if end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError
    except PackedFileError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise PackedFileError(f"tensor `{name}`: its type, shape and offsets do not fit") from error
    return kind, tuple(shape), begin, end


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= _MAX_DIMENSIONS
        and all(type(size) is int and 0 <= size < 2**48 for size in value)
    )


def _parse_shapes(metadata: dict[str, str]) -> dict[str, tuple[int, ...]]:
    table = _json(metadata.get("shapes", "").encode(), "metadata `shapes`")
    for name, shape in table.items():
        if not _is_shape(shape) or "#" in name:
            raise PackedFileError(f"metadata `shapes`: `{name}`: expected a list of sizes")
    return {name: tuple(shape) for name, shape in table.items()}


def _check(header: dict[str, Entry], shapes: dict[str, tuple[int, ...]], max_bytes: int) -> None:
    """Names, types and sizes belong together, before anything is unpacked."""
    parts = {name for name in header if "#" in name}
    wanted = {name + part for name in shapes for part in (MASK, VALUES)}
    for name in sorted(parts ^ wanted):
        raise PackedFileError(f"tensor `{name}`: every packed tensor has a shape, mask and values")
    total = sum(end - begin for _, _, begin, end in header.values())
    for name, shape in shapes.items():
        size = math.prod(shape)
        mask, kept = header[name + MASK], header[name + VALUES]
        if name in header:
            raise PackedFileError(f"tensor `{name}`: is there twice, packed and plain")
        if mask[:2] != ("U8", (-(-size // 8),)):
            raise PackedFileError(f"tensor `{name}{MASK}`: expected U8 [{-(-size // 8)}]")
        if kept[0] not in _FLOATS or len(kept[1]) != 1 or kept[1][0] > size:
            raise PackedFileError(
                f"tensor `{name}{VALUES}`: expected at most {size} values in one row, one of "
                f"{', '.join(_FLOATS)}"
            )
        total += size * np.dtype(_TYPES[kept[0]]).itemsize
    if total > max_bytes:
        raise PackedFileError(f"expected at most {max_bytes} bytes once unpacked, found {total}")


def _json(content: bytes, what: str) -> dict[str, Any]:
    """A JSON object in UTF-8: nested little, no name twice."""
    try:
        text = content.decode("utf-8")
        depth = 0
        for token in _TOKEN.finditer(text):
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token.group()[0], 0)
            if depth > _MAX_DEPTH:
                raise ValueError("nested too deeply")
        table = json.loads(text, object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:
        raise PackedFileError(f"{what}: expected JSON ({error})") from error
    if not isinstance(table, dict):
        raise PackedFileError(f"{what}: expected a JSON object")
    return table


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name is listed twice")
    return table


#: The file of the example above, in base64.
EXAMPLE = (
    "wAAAAAAAAAB7Il9fbWV0YWRhdGFfXyI6eyJmb3JtYXQiOiJjb3JvYmVuY2gtcGFja2VkLTEiLCJzaGFwZXMi"
    "OiJ7XCJ3XCI6WzIsM119In0sIncjdmFsdWVzIjp7ImR0eXBlIjoiRjMyIiwic2hhcGUiOlsyXSwiZGF0YV9v"
    "ZmZzZXRzIjpbMCw4XX0sIncjbWFzayI6eyJkdHlwZSI6IlU4Iiwic2hhcGUiOlsxXSwiZGF0YV9vZmZzZXRz"
    "IjpbOCw5XX19ICAAAMA/AAAAwCI="
)
