"""An ONNX file whose values lie in files beside it, brought into one.

`torch.onnx.export` writes two files by default: the graph, and the values in another file of the
same folder. For a file that somebody hands in by its own path both are read; a submission is one
file, and what is in another one is refused there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from corobench.benchmark.submission.files import FileFaultError, read_plain_file
from corobench.benchmark.submission.graph.rules import GraphFaultError, shown
from corobench.benchmark.submission.header import MAX_WEIGHTS_BYTES

_ONE_FILE = "or save the model as one file (torch.onnx.export with external_data=False)"


def read_whole(path: Path) -> bytes:
    """The bytes of an ONNX file, with the values of files beside it inside.

    Args:
        path: of the file with the graph, or a link to it. The others are plain files of its
            folder, or of the link's, and no larger than a weights file may be, all together.

    Raises:
        FileFaultError: a file is missing, refused or unreadable.
        GraphFaultError: a place that is no plain name, or beyond the end of its file.
    """
    real = path.resolve() if path.is_symlink() else path
    content = read_plain_file(real.parent, real.name, MAX_WEIGHTS_BYTES)
    if b"location" not in content:  # the key that names another file
        return content
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        return content  # the reader names the package
    try:
        model = onnx.ModelProto.FromString(content)
    except (DecodeError, ValueError, RuntimeError, MemoryError, RecursionError):
        return content  # the reader names the fault
    tensors = [tensor for tensor in model.graph.initializer if tensor.external_data]
    if not tensors:
        return content
    _bring_in(tensors, [path.parent, real.parent], MAX_WEIGHTS_BYTES - len(content))
    whole: bytes = model.SerializeToString()
    return whole


def _bring_in(tensors: list[Any], folders: list[Path], limit_bytes: int) -> None:
    """Put the values of tensors into themselves."""
    files: dict[str, bytes] = {}
    taken = 0
    for tensor in tensors:
        settings = {item.key: item.value for item in tensor.external_data}
        name = settings.get("location", "")
        if not isinstance(name, str):  # bytes that are no text
            raise GraphFaultError(
                "onnx-external-data",
                f"tensor {shown(tensor.name)}: expected a plain name as its place, {_ONE_FILE}",
            )
        if name not in files:
            files[name] = _read(folders, name, limit_bytes - sum(map(len, files.values())))
        try:
            start = int(settings.get("offset", "0"))
            size = int(settings.get("length", len(files[name]) - start))
        except ValueError as error:
            raise GraphFaultError(
                "onnx-external-data", f"tensor {shown(tensor.name)}: expected numbers as its place"
            ) from error
        taken += size
        if start < 0 or size < 0 or start + size > len(files[name]) or taken > limit_bytes:
            raise GraphFaultError(
                "onnx-external-data",
                f"tensor {shown(tensor.name)}: its place is beyond the end of {shown(name)}; give "
                f"the file that belongs to it, {_ONE_FILE}",
            )
        tensor.raw_data = files[name][start : start + size]
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def _read(folders: list[Path], name: str, limit_bytes: int) -> bytes:
    plain = name.removeprefix("./")
    has_it = [one for one in folders if "/" not in plain and os.path.lexists(one / plain)]
    try:
        return read_plain_file((has_it or folders)[0], plain, limit_bytes)
    except FileFaultError as error:
        way = "put it beside the ONNX file"
        if has_it and (has_it[0] / plain).is_symlink():
            way = "put the file itself there (cp -L)"
        raise GraphFaultError(
            "onnx-external-data", f"{error}: it holds the values; {way}, {_ONE_FILE}"
        ) from error
