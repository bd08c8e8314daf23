"""``corobench.export``: a network in memory to a submission folder, in one call."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corobench.benchmark.errors import ConfigError, SubmissionError
from corobench.benchmark.files.new_folder import refuse_existing
from corobench.benchmark.interactive.arguments import folder_of
from corobench.benchmark.records.reports import ImportReport
from corobench.benchmark.tracks import Track, get_track

if TYPE_CHECKING:
    from torch import nn

ONNX = "model.onnx"


def export(
    model: nn.Module,
    out: str | Path,
    *,
    track: str,
    title: str | None = None,
    authors: Sequence[str] = (),
    licence: str = "unknown",
    meta: Mapping[str, Any] | None = None,
    data_root: str | Path | None = None,
) -> ImportReport:
    """Write a submission folder: ``submission.toml`` and an ONNX file that is complete in itself.

    Pruning masks (``torch.nn.utils.prune``) and parametrisations are baked into the weights: what
    is zero is stored as zero. The batch size stays open where torch can export it so, else it is 1.
    The file is read back, and its logits and those of onnxruntime are compared with the network's.

    Args:
        model: a ``torch.nn.Module`` in eval mode that keeps the model contract, normalisation
            inside. Its operators must be among those of RULES.md ("ONNX files").
        out: the folder to make; it must not exist. Its name becomes the entry's.
        track: "digits", "fashion-mnist", "cifar10" or "svhn".
        title: what the board shows; the folder's name by default.
        authors: names.
        licence: of the weights, such as "MIT".
        meta: further tables and keys of ``submission.toml``, such as ``{"method": {"name": "x"}}``.
        data_root: where the track's images are looked for first; the self-check uses them.

    Returns:
        What was made, and what is still unknown in its manifest; ``folder`` is the path.

    Raises:
        ContractError: the model breaks a clause, with its name.
        SubmissionError: torch cannot export it, the file breaks a rule, or its logits differ.
        OutputError: `out` exists or cannot be written.

    >>> import tempfile, torch, corobench
    >>> layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    >>> with tempfile.TemporaryDirectory() as place:
    ...     made = corobench.export(layers, place + "/linear", track="digits")
    ...     sorted(path.name for path in made.folder.iterdir())
    ['model.onnx', 'submission.toml']
    """
    from corobench.benchmark.submission.importing import import_graph

    chosen, folder = get_track(track), folder_of(out, "out")
    if folder is None:
        raise ConfigError("out: expected the path of a new folder")
    if isinstance(authors, str):
        raise ConfigError(f"authors: expected a list of names, but found the text {authors!r}")
    refuse_existing(folder)
    root = folder_of(data_root, "data_root")
    content, name = as_onnx(model, chosen)
    with tempfile.TemporaryDirectory(prefix="corobench-") as place:
        file = Path(place) / ONNX
        file.write_bytes(content)
        try:
            made = import_graph(
                file,
                folder,
                track=track,
                title=title,
                authors=authors,
                licence=licence,
                meta=meta,
                data_root=root,
            )
        except SubmissionError as error:
            raise SubmissionError(name, error.faults) from error
    return replace(made, source=Path(name))


def as_onnx(model: object, track: Track) -> tuple[bytes, str]:
    """A network in memory as an ONNX file that gives the same logits, and what it is called.

    Args:
        model: see :func:`export`.
        track: whose images it takes.

    Raises:
        ContractError: the model breaks a clause.
        SubmissionError: see :func:`export`.
    """
    from corobench.benchmark.interactive import networks
    from corobench.benchmark.submission import check_contract
    from corobench.benchmark.submission.contract import random_images
    from corobench.benchmark.submission.files import FileFaultError
    from corobench.benchmark.submission.graph.exporting import export_checked
    from corobench.benchmark.submission.writing import sample_images

    copied = networks.measured_copy(model, track.shape).cpu()
    name = networks.name_of(copied)
    check_contract(copied, random_images(track.shape, 16), track.num_classes, name)
    images = sample_images(track).images
    faults: list[str] = []
    for batch in (None, 1):
        try:
            return export_checked(copied, track.shape, images, batch)[0], name
        except FileFaultError as error:
            faults += [str(error)]
        except SubmissionError as error:
            faults += error.faults
    raise SubmissionError(name, list(dict.fromkeys(faults)))
