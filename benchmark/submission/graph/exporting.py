"""A torch network as an ONNX file, which is read back and compared before anybody gets it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from corobench.benchmark.errors import DependencyError, SubmissionError
from corobench.benchmark.submission.graph.network import GraphModel, read_network
from corobench.benchmark.submission.graph.runtime import Runtime
from corobench.benchmark.submission.writing import largest_difference

#: Version of the operators that is written.
OPSET = 18


def export(model: nn.Module, input_shape: tuple[int, int, int], batch: int | None = None) -> bytes:
    """The network as one ONNX file, all values inside.

    Args:
        model: in eval mode, on the CPU.
        input_shape: channels, height, width.
        batch: the one batch size of the file; None leaves it open.

    Raises:
        SubmissionError: torch cannot export it.
        DependencyError: the exporter is not installed.
    """
    try:
        with _quiet():
            program = torch.onnx.export(
                model,
                (torch.zeros(batch or 2, *input_shape),),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},) if batch is None else None,
                external_data=False,
                input_names=["image"],
                output_names=["logits"],
                opset_version=OPSET,
                verbose=False,
            )
            assert program is not None
            content: bytes = program.model_proto.SerializeToString()
    except (ImportError, ModuleNotFoundError) as error:
        raise DependencyError(
            f"the ONNX exporter needs {error.name}: pip install onnxscript"
        ) from (error)
    except Exception as error:  # exporting a network raises anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise SubmissionError("export", [f"torch cannot write it as ONNX: {reason}"]) from error
    return content


def export_checked(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    images: Tensor,
    batch: int | None = None,
) -> tuple[bytes, GraphModel, float]:
    """The ONNX file, what is read back from it, and the largest difference of any logit.

    The network read back and onnxruntime are both compared with the source on the images.

    Args:
        model: in eval mode, on the CPU.
        input_shape: channels, height, width.
        images: float32 (B, C, H, W) in [0, 1].
        batch: see :func:`export`.

    Raises:
        SubmissionError: not exportable, not readable, or with other logits.
    """
    content = export(model, input_shape, batch)
    graph = read_network(content)
    difference = max(
        largest_difference(model, graph.network, images, "export"),
        largest_difference(model, Runtime(content, graph.batch), images, "export"),
    )
    return content, graph, difference


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own prints, warnings and log lines."""
    logger = logging.getLogger("torch.onnx")
    onnxscript = logging.getLogger("onnxscript")
    levels = logger.level, onnxscript.level
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        onnxscript.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(levels[0])
            onnxscript.setLevel(levels[1])
