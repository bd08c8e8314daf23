"""What an answer to a job may be: it came from a process that held a stranger's network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from corobench.benchmark.evaluation.jobs import Arrays, Job

MAX_TEXT = 300
"""Characters of any text in an answer."""


class _Kind(NamedTuple):
    """Kind of an array's numbers, and its shape: R for rows of the job, any other as it comes."""

    dtype: str
    shape: tuple[str, ...]


_ROWS = ("R",)
_IMAGES = _Kind("f", ("*", "C", "H", "W"))
_PROOFS = {"certified": _Kind("b", _ROWS), "margin": _Kind("f", _ROWS)}
_SECONDS = {"seconds": _Kind("f", ())}
KINDS: Mapping[str, Mapping[str, _Kind]] = {
    "clean": {"logits": _Kind("f", ("R", "K")), **_SECONDS},
    "certify": {**_PROOFS, **_SECONDS},
    "close": {
        **_PROOFS,
        "stopped": _Kind("b", _ROWS),
        "unasked": _Kind("b", _ROWS),
        "refuted": _Kind("b", _ROWS),
        "adversarial": _IMAGES,
        **_SECONDS,
    },
    "attack": {
        "broken": _Kind("b", _ROWS),
        "names": _Kind("U", _ROWS),
        "adversarial": _IMAGES,
        "flags": _Kind("U", ("*",)),
        "doubts": _Kind("U", ("D",)),
        "doubts_rows": _Kind("i", ("D",)),
        "halved": _Kind("i", ()),
        **_SECONDS,
    },
}
_FAILED = {"failed": _Kind("U", ()), **_SECONDS}
_REFUSED = {"refused": _Kind("U", ()), "rule": _Kind("U", ()), **_SECONDS}


def find_fault(job: Job, answer: Arrays, shape: tuple[int, ...], num_classes: int) -> str | None:
    """What an answer to a job cannot be, in one line; None for a well-formed one.

    Args:
        job: that was asked.
        answer: arrays.
        shape: channels, height and width of an image.
        num_classes: of the track.
    """
    if "refused" in answer and job.kind in ("certify", "close"):
        wanted = _REFUSED
    elif "failed" in answer and job.kind == "attack":
        wanted = _FAILED
    else:
        wanted = dict(KINDS[job.kind])
    if set(answer) != set(wanted):
        return f"expected the arrays {', '.join(sorted(wanted))}, but found {sorted(answer)}"
    sizes = dict(zip("CHW", shape, strict=True)) | {"R": len(job.rows), "K": num_classes}
    for key, kind in wanted.items():
        fault = _fault_of(answer[key], kind, sizes)
        if fault:
            return f"{key}: {fault}"
    return _contradiction(job, answer)


def _fault_of(array: np.ndarray, kind: _Kind, sizes: dict[str, int]) -> str | None:
    if array.dtype.kind != kind.dtype or array.dtype.kind == "O":
        return f"expected numbers of kind {kind.dtype!r}, but found {array.dtype}"
    if array.ndim != len(kind.shape):
        return f"expected {len(kind.shape)} axes, but found {array.ndim}"
    for name, size in zip(kind.shape, array.shape, strict=True):
        if name != "*" and size != sizes.setdefault(name, size):
            return f"expected the shape {kind.shape}, but found {array.shape}"
    if kind.dtype == "U" and array.dtype.itemsize > 4 * MAX_TEXT:
        return f"expected at most {MAX_TEXT} characters"
    return None


def _contradiction(job: Job, answer: Arrays) -> str | None:
    """Images that do not belong to what was found, or lie outside [0, 1]."""
    if "adversarial" in answer:
        which = "broken" if job.kind == "attack" else "refuted"
        images = answer["adversarial"]
        if len(images) != int(answer[which].sum()):
            return "adversarial: expected one image for each that was found"
        if images.size and not bool((images >= 0).all() and (images <= 1).all()):
            return "adversarial: expected values from 0 to 1"
    if "doubts_rows" in answer and not np.isin(answer["doubts_rows"], job.places).all():
        return "doubts_rows: expected images of the job"
    return None
