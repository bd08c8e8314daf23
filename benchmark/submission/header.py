"""The header of a safetensors file, read and checked before any value is."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from corobench.benchmark.files.safe_json import check_depth, no_repeats
from corobench.benchmark.submission.files import FileFaultError

#: Largest weights file that is read: 2 GiB.
MAX_WEIGHTS_BYTES = 2 * 1024**3
#: Largest safetensors header that is read.
MAX_HEADER_BYTES = 4 * 1024**2
MAX_TENSORS = 20_000
#: Types of a file that become float32, with the bytes of one value.
FLOAT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
#: Key of a header that is no tensor.
METADATA = "__metadata__"
MAX_DIMENSIONS = 8


@dataclass(frozen=True)
class Header:
    """One tensor as the header of a file describes it."""

    dtype: str
    shape: tuple[int, ...]


def parse_header(content: bytes) -> tuple[dict[str, Header], dict[str, str]]:
    """The tensors that the header of a safetensors file describes, and its metadata.

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
        table = json.loads(text, object_pairs_hook=no_repeats)
    except (ValueError, RecursionError) as error:
        raise FileFaultError(f"expected a safetensors header in JSON, but found: {error}") from (
            error
        )
    if not isinstance(table, dict) or len(table) > MAX_TENSORS:
        raise FileFaultError(f"expected a header that lists at most {MAX_TENSORS} tensors")
    header = {name: _parse_entry(name, entry) for name, entry in table.items() if name != METADATA}
    places = sorted(entry["data_offsets"] for name, entry in table.items() if name in header)
    end = 0
    for begin, after in places:
        if begin != end:
            raise FileFaultError(
                "expected the values of each tensor right after those of another, but found "
                f"{begin} where {end} was expected: overlapping or unused bytes"
            )
        end = after
    if end != len(content) - 8 - size:
        raise FileFaultError(
            f"expected {end} bytes of values, but found {len(content) - 8 - size}: "
            "the file is truncated or damaged"
        )
    return header, _metadata(table.get(METADATA, {}))


def _parse_entry(name: str, entry: Any) -> Header:
    """One tensor of the header, with sizes that are whole numbers and agree with its offsets."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, begin, end]
        if not isinstance(dtype, str) or any(type(number) is not int for number in numbers):
            raise ValueError("sizes must be integers")
        if len(shape) > MAX_DIMENSIONS or min(numbers) < 0 or max(numbers) > MAX_WEIGHTS_BYTES:
            raise ValueError("sizes out of range")
        if dtype in FLOAT_BYTES and end - begin != math.prod(shape) * FLOAT_BYTES[dtype]:
            raise ValueError("shape and offsets disagree")
    except (TypeError, KeyError, ValueError) as error:
        raise FileFaultError(f"tensor `{name}`: expected a valid header entry ({error})") from error
    return Header(dtype, tuple(shape))


def _metadata(value: Any) -> dict[str, str]:
    """Text by name, as the format has it."""
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise FileFaultError(f"`{METADATA}`: expected text by name")
    return value
