"""``corobench.load_model`` and ``corobench.load_result``: what others published, in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from corobench.benchmark.errors import ConfigError, SubmissionError
from corobench.benchmark.interactive.arguments import path_of
from corobench.benchmark.interactive.places import entry_at
from corobench.benchmark.interactive.result import EvaluationResult
from corobench.benchmark.submission.kinds import is_onnx

if TYPE_CHECKING:
    from torch import nn

    from corobench.benchmark.submission.graph.network import GraphModel


def load_model(entry: str | Path) -> nn.Module:
    """The network of an entry, ready to be called.

    It is read in the calling process: from safe formats only, and no code of the folder is run.
    What a stranger made may still be large or slow; `evaluate` gives it limits.

    Args:
        entry: a submission folder, an ONNX file, or the name of an entry in ``submissions``.

    Returns:
        A module in eval mode on the CPU, normalisation inside: float32 (B, C, H, W) in [0, 1] to
        float32 logits (B, classes). Its parameters ask for no gradient; its input may.

    Raises:
        SubmissionError: every fault of the folder or file.
        ConfigError: there is no such entry.

    >>> import torch, corobench
    >>> model = corobench.load_model("digits-ibp-dense")
    >>> model(torch.zeros(2, 1, 8, 8)).shape, model.training
    (torch.Size([2, 10]), False)
    """
    path = entry_at(entry)
    if is_onnx(path):
        return read_graph_file(path).network
    from corobench.benchmark.submission import load_submission

    return load_submission(path).model


def read_graph_file(path: Path) -> GraphModel:
    """The network of an ONNX file, with what the file says beside it.

    Raises:
        SubmissionError: the rule that the file breaks.
    """
    from corobench.benchmark.submission.files import FileFaultError
    from corobench.benchmark.submission.graph.external import read_whole
    from corobench.benchmark.submission.graph.network import read_network

    try:
        return read_network(read_whole(path))
    except FileFaultError as error:
        raise SubmissionError(path, [str(error)]) from error


def load_result(path: str | Path) -> EvaluationResult:
    """A result file as `evaluate` returned it.

    Args:
        path: ``<protocol>/<track>/<entry>.json``; its outcome table lies beside it, and is read
            when `EvaluationResult.to_frame` asks for it.

    Raises:
        ResultError: unreadable, damaged, or at odds with the files beside it.
        ConfigError: nothing is there.
    """
    from corobench.benchmark.records.reading.result_file import read_result

    place = path_of(path, "a result file")
    if place.is_dir():
        raise ConfigError(
            f"{place}: expected a result file such as <entry>.json, but it is a folder"
        )
    return EvaluationResult(read_result(place), place)
