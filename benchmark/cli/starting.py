"""`corobench new`: a submission folder to start from, and what is still to do in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.executors import run_import
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.files.new_folder import fresh_folder, refuse_existing
from corobench.benchmark.records.reports import ImportReport
from corobench.benchmark.submission.architectures import build, find_faults
from corobench.benchmark.submission.files import write_atomically
from corobench.benchmark.submission.manifest import MANIFEST, check_manifest
from corobench.benchmark.tracks import get_track

README = "README.md"
WEIGHTS = "model.safetensors"
ONNX = "model.onnx"


@dataclass(frozen=True)
class Started:
    """A new folder.

    Attributes:
        folder: that was made.
        is_complete: whether its weights are there.
        imported: how far it is from what it was imported from, one line; empty for nothing.
        steps: what to do next, in order.
    """

    folder: Path
    is_complete: bool
    steps: tuple[str, ...]
    imported: str = ""

    def __str__(self) -> str:
        numbered = [f"  {number}. {step}" for number, step in enumerate(self.steps, start=1)]
        told = [f"  {self.imported}"] if self.imported else []
        return "\n".join([f"{self.folder}: made", *told, *numbered])


def start(
    folder: Path,
    *,
    track: str,
    architecture: str | None,
    title: str | None = None,
    authors: Sequence[str] = (),
    licence: str = "unknown",
    method: str | None = None,
    checkpoint: Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    keep_ratio: float | None = None,
    limits: Limits | None = None,
) -> Started:
    """Make a submission folder from what is known.

    Args:
        folder: new; its name becomes the id.
        track: that it is for.
        architecture: a known name, or None for a network in ONNX.
        title: for people; the folder's name by default.
        authors: of the entry.
        licence: of the weights.
        method: short name; the folder's name by default.
        checkpoint: weights or an ONNX file to import at once, or None.
        arguments: of the architecture.
        keep_ratio: see `import_checkpoint`.
        limits: of the process that imports the checkpoint; None for this one.

    Raises:
        SubmissionError: faults of what was given, all at once.
        ConfigError: no such track.
        OutputError: `folder` exists or cannot be written.
    """
    refuse_existing(folder)
    chosen, arguments = get_track(track), dict(arguments or {})
    meta = {"method": {"name": method or folder.name}}
    if architecture is not None:
        faults = find_faults(architecture, chosen.shape, chosen.num_classes, arguments)
        if faults:
            raise SubmissionError(folder, faults)
    if checkpoint is not None:
        given: dict[str, Any] = {
            "track": track,
            "title": title,
            "authors": authors,
            "licence": licence,
            "meta": meta,
        }
        if architecture is not None:
            more = {"architecture": architecture, "arguments": arguments, "keep_ratio": keep_ratio}
            given |= more
        return _with_readme(run_import(checkpoint, folder, limits, **given))
    weights = ONNX if architecture is None else WEIGHTS
    model: dict[str, Any] = {"weights": weights, "num_classes": chosen.num_classes}
    if architecture is not None:
        model |= {"architecture": architecture, "arguments": arguments}
    table = {
        "schema": 1,
        "id": folder.name,
        "title": title or folder.name,
        "authors": list(authors) or ["unknown"],
        "licence": licence,
        "track": chosen.name,
        "model": model,
        "method": {"pipeline": "none", "pretrain_objective": "unknown", **meta["method"]},
        "training": {"data": "unknown"},
    }
    check_manifest(table)
    with fresh_folder(folder) as fresh:
        write_atomically(fresh / MANIFEST, tomli_w.dumps(table).encode())
        write_atomically(fresh / README, _readme(folder.name).encode())
    steps = (
        _weights_step(folder, chosen, model),
        f"replace every 'unknown' in {folder / MANIFEST}; set `[method]`",
        *_checks(folder),
    )
    return Started(folder, False, steps)


def _with_readme(report: ImportReport) -> Started:
    write_atomically(report.folder / README, _readme(report.folder.name).encode())
    difference = (
        f"reloaded: the largest difference of a logit from {report.source} is "
        f"{report.max_difference:.3g} on {report.images}"
    )
    # The notes say what is unknown, and the sparsity was measured.
    return Started(report.folder, True, (*report.notes, *_checks(report.folder)), difference)


def _weights_step(folder: Path, track: Any, model: Mapping[str, Any]) -> str:
    shape = "x".join(map(str, track.shape))
    if "architecture" not in model:
        return (
            f"export your network to {folder / ONNX}: float32 images (batch, {shape}) in, logits "
            f"(batch, {track.num_classes}) out (README.md in the folder)"
        )
    network = build(model["architecture"], track.shape, track.num_classes, model["arguments"])
    return (
        f"write {folder / WEIGHTS}: the {len(network.state_dict())} tensors of "
        f"{model['architecture']}, with write_weights (README.md in the folder)"
    )


def _checks(folder: Path) -> tuple[str, ...]:
    return (
        f"corobench validate {folder}",
        f"corobench evaluate {folder} --subset 100",
    )


def _readme(name: str) -> str:
    return f"""# {name}

Weights from Python, for an architecture by name:

    from corobench.benchmark.submission import write_weights

    write_weights("submissions/{name}/{WEIGHTS}", model.state_dict())

A network of your own as ONNX, with `weights = "{ONNX}"` and no `architecture` in `{MANIFEST}`:

    torch.onnx.export(model.eval(), (images,), "submissions/{name}/{ONNX}",
                      dynamic_shapes=({{0: torch.export.Dim.DYNAMIC}},), external_data=False)

Then:

    corobench validate submissions/{name}
    corobench measure submissions/{name}
    corobench evaluate submissions/{name} --subset 100

Say here how the entry was trained and where the code is.
"""
