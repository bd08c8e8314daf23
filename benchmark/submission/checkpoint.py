"""Checkpoints of PyTorch, opened without running what is in them."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.submission.files import FileFaultError
from corobench.benchmark.submission.header import MAX_WEIGHTS_BYTES
from corobench.benchmark.submission.kinds import kind_of
from corobench.benchmark.submission.strangers import stranger
from corobench.benchmark.submission.weights import read_tensors

#: Why archives of torch.export are refused.
NO_ARCHIVES = (
    "torch-export: archives of torch.export are not read, because torch opens what they hold as "
    "pickles, which can run code; save the same program with torch.onnx.export and hand in the "
    "ONNX file"
)
_NO_SCRIPTS = (
    "expected tensors, but found a TorchScript archive (torch.jit.save), which holds code; save "
    "its weights alone: torch.save(torch.jit.load(path).state_dict(), 'weights.pt')"
)
_NO_GRAPHS = "an ONNX file holds its network: leave the architecture out"
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def read_checkpoint(path: Path) -> Any:
    """What a checkpoint file holds: tensors, and mappings and lists of them.

    Args:
        path: safetensors, or a file of `torch.save`, which is only ever read with
            ``weights_only=True``: a pickle that asks for more is refused, never run. The content
            tells which it is, and not the name.

    Raises:
        SubmissionError: missing, too large or refused.
    """
    if fault := stranger(path):
        raise SubmissionError(path, [fault])
    size = path.stat().st_size
    if size > MAX_WEIGHTS_BYTES:
        raise SubmissionError(path, [f"expected at most {MAX_WEIGHTS_BYTES} bytes, found {size}"])
    kind = kind_of(path)
    if kind == "onnx":
        raise SubmissionError(path, [_NO_GRAPHS])
    if kind == "safetensors" or (kind == "unknown" and path.suffix.lower() == ".safetensors"):
        try:
            return read_tensors(path.read_bytes())
        except (FileFaultError, OSError) as error:
            raise SubmissionError(path, str(error).splitlines()) from error
    if fault := _archive_fault(path):
        raise SubmissionError(path, [fault])
    return _load(path)


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        fault = (
            "refused: it holds more than tensors, and opening it could run code. Save the state "
            "dict alone, `torch.save(model.state_dict(), path)`, and import that "
            f"file{_what(error)}"
        )
        raise SubmissionError(path, [fault]) from error
    except Exception as error:  # damaged files make torch raise anything
        fault = f"expected a file written by torch.save, but cannot read it: {_first_line(error)}"
        raise SubmissionError(path, [fault]) from error


def _archive_fault(path: Path) -> str:
    """Why a zip archive of torch is refused that is none of `torch.save`; "" for all others."""
    if path.suffix.lower() == ".pt2":
        return NO_ARCHIVES
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return ""
    if "archive_format" in names:
        return NO_ARCHIVES
    return _NO_SCRIPTS if "constants.pkl" in names else ""


def _what(error: Exception) -> str:
    """What torch would have to import to open the file, in brackets; empty where it says nothing.

    Its own message is about switching the check off, which is no way out.
    """
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    if found is None:
        return ""
    arrays = (
        "; arrays and numbers of numpy become tensors by torch.as_tensor"
        if found[1].startswith("numpy.")
        else ""
    )
    return f" (it needs {found[1]}{arrays})"


def _first_line(error: Exception) -> str:
    """The first line of an error of torch, without what colours a terminal."""
    text = _ESCAPES.sub("", str(error)).strip() or type(error).__name__
    return text.splitlines()[0][:200]
