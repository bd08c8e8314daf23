"""A result with everything its numbers rest on: table, adversarial images, model, test images."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmark import store
from benchmark.data import Dataset, load_test
from benchmark.errors import ResultError
from benchmark.records import Result, Run
from benchmark.result_set import ADVERSARIAL, OUTCOMES, verify_set
from benchmark.result_writing import scored

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.submission import Submission

#: Largest array that is read from an npz file, in bytes once unpacked.
MAX_ARRAY_BYTES = 2 * 1024**3
#: What libraries raise on files that are no npz, or a damaged one.
_NO_NPZ = (
    ValueError,
    KeyError,
    EOFError,
    MemoryError,
    RuntimeError,
    OverflowError,
    SyntaxError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class Evidence:
    """Everything about one result, checked to belong together.

    Attributes:
        path: of the result file.
        result: the scorecard.
        table: the outcome table.
        run: the run it belongs to.
        adversarial: float32 (m, C, H, W), the stored adversarial images.
        submission: the entry.
        dataset: the test set.
    """

    path: Path
    result: Result
    table: pd.DataFrame
    run: Run
    adversarial: NDArray[np.float32]
    submission: Submission
    dataset: Dataset


def load_evidence(path: Path, submission: Path, data_root: Path | None = None) -> Evidence:
    """Read a result and all that belongs to it.

    Args:
        path: the result file; its outcome table and adversarial images lie beside it.
        submission: folder of the entry.
        data_root: folder of the dataset, or None for the usual search.

    Raises:
        CorobenchError: a file is missing or broken, is of another set, or belongs to other weights
            or images.
    """
    from benchmark.submission import load_submission

    result = store.read_result(path)
    table, run = store.read_outcomes(store.beside(path, OUTCOMES))
    stored = store.beside(path, ADVERSARIAL)
    adversarial = read_arrays(stored, ("images",))["images"]
    verify_set(path, result)  # after reading: what fits now is what was read
    if adversarial.dtype != np.float32:
        raise ResultError(f"{stored}: images: expected float32, but found {adversarial.dtype}")
    entry = load_submission(submission, result.track)
    if entry.weights_sha256 != result.weights_sha256:
        raise ResultError(f"{path}: belongs to other weights than {submission}")
    dataset = load_test(result.track, data_root)
    if dataset.fingerprint != result.data.fingerprint:
        raise ResultError(f"{path}: belongs to other images than {dataset.source}")
    return Evidence(path, result, table, run, adversarial.astype(np.float32), entry, dataset)


def find_damage(path: Path, result: Result) -> str:
    """What is missing or damaged beside a result file, in one line; empty where all is whole.

    Args:
        path: of the result file.
        result: as read from it.
    """
    images = store.beside(path, ADVERSARIAL)
    try:
        verify_set(path, result)
        table, _ = store.read_outcomes(store.beside(path, OUTCOMES))
        if store.encode_result(scored(store.beside(path, OUTCOMES))) != path.read_bytes():
            return f"{path}: differs from the scorecard of its outcome table"
        num_images = len(read_arrays(images, ("images",))["images"])
        if num_images <= table["adversarial"].max():
            return f"{images}: holds fewer images than the outcome table names"
    except ResultError as error:
        return error.message
    return ""


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[np.generic]]:
    """Arrays of an npz file that may come from anybody: no pickles, and sizes checked before.

    Args:
        path: the file.
        names: arrays it must hold.

    Raises:
        ResultError: unreadable, no npz, an array missing, of objects, or too large.
    """
    try:
        if path.stat().st_size > MAX_ARRAY_BYTES:
            raise ValueError(f"more than {MAX_ARRAY_BYTES} bytes")
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in names:
                _check_member(archive, name)
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except OSError as error:
        raise ResultError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _NO_NPZ as error:
        wanted = " and ".join(f"`{name}`" for name in names)
        raise ResultError(f"{path}: expected an npz file with {wanted} ({error})") from error


def _check_member(archive: zipfile.ZipFile, name: str) -> None:
    """Compare what an array's header claims with its size in the file, before it is unpacked."""
    try:
        member = archive.getinfo(f"{name}.npy")
    except KeyError as error:
        raise ValueError(f"no array called {name}") from error
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name}: compressed by method {member.compress_type}, which is not read")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)  # type: ignore[no-untyped-call]
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{name}: array format {version} is not known")
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(stream)  # type: ignore[no-untyped-call]
        header = stream.tell()
    if dtype.hasobject:
        raise ValueError(f"{name}: holds objects, not numbers")
    num_bytes = dtype.itemsize
    for length in shape:
        num_bytes *= int(length)
    if num_bytes > MAX_ARRAY_BYTES:
        raise ValueError(f"{name}: {num_bytes} bytes, and at most {MAX_ARRAY_BYTES} are read")
    if num_bytes + header != member.file_size:
        raise ValueError(f"{name}: its header says {num_bytes} bytes, which the file has not")
