"""Files that people bring and that hold no weights that are read here: what each is, what to do.

A pointer of Git LFS, a web page saved under a model's name, a folder of shards, another framework's
file: each begins in a way of its own. Without this they would all be "a damaged file".
"""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from pathlib import Path

from corobench.benchmark.files.regular import open_regular
from corobench.benchmark.submission.files import LFS_POINTER, NOT_PULLED

_NUM_BYTES = 512
_EXPORT = "export the network to ONNX with the tools of its framework, and import that file"
_UNPACK = "unpack it and import the file inside"
_TENSORS = (
    "torch.save({name: torch.as_tensor(array) for name, array in arrays.items()}, 'model.pt')"
)

#: How a file begins -> what it is, and the way out.
_BEGINNINGS: tuple[tuple[int, bytes, str], ...] = (
    (0, LFS_POINTER, NOT_PULLED),
    (0, b"\x1f\x8b", f"is compressed (gzip); {_UNPACK}"),
    (0, b"BZh", f"is compressed (bzip2); {_UNPACK}"),
    (0, b"\xfd7zXZ", f"is compressed (xz); {_UNPACK}"),
    (0, b"\x28\xb5\x2f\xfd", f"is compressed (zstd); {_UNPACK}"),
    (0, b"\x93NUMPY", f"is one array of numpy; save tensors by name: {_TENSORS}"),
    (0, b"\x89HDF", f"is an HDF5 file, as Keras writes it; {_EXPORT}"),
    (4, b"TFL3", f"is a TensorFlow Lite file; {_EXPORT}"),
    (4, b"ORTM", "is in onnxruntime's own format (ORT); import the ONNX file that it was made of"),
)
_PAGE = re.compile(rb"\s*<(?:!doctype html|html)", re.IGNORECASE)
_XML = re.compile(rb"\s*<\?xml")
_JSON = re.compile(rb"\s*[\[{]")
_SHARD = re.compile(r".*-\d{5}-of-(?P<number>\d{5})\.\w+")
_MERGE = (
    "merge the parts into one file: safetensors.torch.load_file of each, dict.update, "
    "safetensors.torch.save_file"
)
#: Endings of files that a folder may hold and that can be imported.
_ENDINGS = (".onnx", ".safetensors", ".pt", ".pth", ".ckpt", ".tar", ".bin")
_MAX_SHOWN = 4
_MAX_JSON_BYTES = 4 * 1024**2


def stranger(path: Path) -> str:
    """Why a path is no file of weights or of a network, and what to do; "" for what may be one.

    Args:
        path: that a user named.
    """
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        return "expected a file, but there is none"
    try:
        with open_regular(path) as stream:
            head = stream.read(_NUM_BYTES)
    except OSError as error:
        return f"cannot read it: {error.strerror or error}"
    if not head:
        return "is empty; was it copied or downloaded to its end?"
    for start, beginning, what in _BEGINNINGS:
        if head[start : start + len(beginning)] == beginning:
            return what
    if _PAGE.match(head):
        return "is a web page and not a model; download the file itself"
    if _XML.match(head):
        return f"is an XML file, as OpenVINO writes it; {_EXPORT}"
    if _JSON.match(head):
        return _json(path)
    return _archive(path)


def shard(path: Path) -> str:
    """What to do with one of several files that share a network's tensors; "" for any other.

    >>> shard(Path("model-00001-of-00002.safetensors"))[:32]
    'it is one of 2 files; merge the '
    """
    found = _SHARD.fullmatch(path.name)
    return f"it is one of {int(found['number'])} files; {_MERGE}" if found else ""


def _folder(folder: Path) -> str:
    names = sorted(one.name for one in folder.iterdir())
    if "submission.toml" in names:
        return f"is a submission already; check it with `corobench validate {folder}`"
    if ".metadata" in names:
        return (
            "is a checkpoint of torch.distributed in many files; make one of it: "
            "torch.distributed.checkpoint.format_utils.dcp_to_torch_save(folder, 'model.pt')"
        )
    files = [name for name in names if name.lower().endswith(_ENDINGS)]
    if files and any(shard(folder / name) for name in files):
        return f"is a folder of parts; {_MERGE}"
    shown = ", ".join(files[:_MAX_SHOWN])
    hint = f"name the file in it, such as {shown}" if files else "name a file"
    return f"is a folder; {hint}"


def _json(path: Path) -> str:
    """A text that is no model: the index of a model in parts, or another."""
    try:
        size = path.stat().st_size
        table = json.loads(path.read_bytes()) if size <= _MAX_JSON_BYTES else None
    except (OSError, ValueError, RecursionError):
        return ""
    if isinstance(table, dict) and "weight_map" in table:
        return f"lists the parts of a model and holds no weights; {_MERGE}"
    return "is a JSON file, which holds no weights that are read here; name the file of weights"


def _archive(path: Path) -> str:
    """A zip or tar file that torch did not write."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return _tar(path)
    if any(name.rpartition("/")[2] in ("data.pkl", "archive_format") for name in names):
        return ""
    if names and all(name.endswith(".npy") for name in names):
        return f"holds arrays of numpy; save tensors by name: {_TENSORS}"
    if "model.weights.h5" in names:
        return f"is a Keras file; {_EXPORT}"
    return f"is a zip archive of other files ({', '.join(names[:_MAX_SHOWN])}); {_UNPACK}"


def _tar(path: Path) -> str:
    try:
        with tarfile.open(path, "r:") as archive:
            names = archive.getnames()
    except (tarfile.TarError, OSError, ValueError, EOFError):
        return ""
    if {"pickle", "storages"} <= {name.removeprefix("./") for name in names}:
        return ""  # as the oldest releases of torch wrote it
    return f"is a tar archive of other files ({', '.join(names[:_MAX_SHOWN])}); {_UNPACK}"
