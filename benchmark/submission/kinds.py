"""What kind of file somebody brings: its first bytes tell, whatever its name ends in."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Kind = Literal["onnx", "safetensors", "torch", "unknown"]

_ONNX_SUFFIX = ".onnx"
_NUM_BYTES = 512
#: Where a tar archive, as the oldest releases of torch wrote it, names itself.
_TAR_NAME = slice(257, 262)


def kind_of(path: Path) -> Kind:
    """The kind of a file: by its first bytes, or by its name where these say nothing.

    Args:
        path: may be missing, or a folder.
    """
    by_name: Kind = "onnx" if path.suffix.lower() == _ONNX_SUFFIX else "unknown"
    try:
        if path.is_dir():
            return "unknown"
        if not path.is_file():
            return by_name
        with path.open("rb") as stream:
            head = stream.read(_NUM_BYTES)
    except OSError:
        return by_name
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80" or head[_TAR_NAME] == b"ustar":
        return "torch"
    if head[8:9] == b"{":  # behind eight bytes that say how long the header is
        return "safetensors"
    if head[:1] == b"\x08":  # the first field of an ONNX file: the version of the format
        return "onnx"
    return by_name


def is_onnx(path: Path) -> bool:
    """Whether a path is an ONNX file, by its content or by its name."""
    return kind_of(Path(path)) == "onnx"
