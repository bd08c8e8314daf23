"""The file itself run by onnxruntime: the reference that a converted network must agree with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from corobench.benchmark.errors import DependencyError
from corobench.benchmark.submission.graph.input_layout import InputLayout


class Runtime:
    """An ONNX file in onnxruntime, on one thread of the processor; opened when it is first called.

    Args:
        content: the file.
        batch: the one batch size the file is made for, or None for any.
        optimise: whether the runtime may rewrite the graph, as it does by default.
        layout: how images go into the file; as they are by default.
    """

    def __init__(
        self,
        content: bytes,
        batch: int | None = None,
        optimise: bool = True,
        layout: InputLayout | None = None,
    ) -> None:
        self.content, self.batch, self.optimise = content, batch, optimise
        self.layout = layout
        self._session: Any = None

    def __call__(self, x_BCHW: Tensor) -> Tensor:
        """Logits for float32 images (B, C, H, W), on the processor.

        Raises:
            RuntimeError: the runtime does not take the file or fails.
        """
        x_BCHW = x_BCHW.detach().cpu()
        images = (x_BCHW if self.layout is None else self.layout.apply(x_BCHW)).numpy()
        step = self.batch or max(1, len(images))
        found = [self._run(images[start : start + step]) for start in range(0, len(images), step)]
        return torch.from_numpy(np.concatenate(found))

    def _run(self, images: np.ndarray) -> np.ndarray:
        missing = 0 if self.batch is None else self.batch - len(images)
        if missing:
            images = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        session = self.session()
        try:
            (logits,) = session.run(None, {session.get_inputs()[0].name: images})
        except Exception as error:  # the runtime raises anything
            raise RuntimeError(f"onnxruntime: {_first_line(error)}") from error
        return np.asarray(logits)[: len(images) - missing]

    def session(self) -> Any:
        """The open session.

        Raises:
            DependencyError: onnxruntime is not installed.
            RuntimeError: it does not take the file.
        """
        if self._session is None:
            try:
                import onnxruntime
            except ImportError as error:
                raise DependencyError(
                    "onnxruntime is needed for ONNX files: pip install onnxruntime"
                ) from error
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            options.log_severity_level = 4
            if not self.optimise:
                level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
                options.graph_optimization_level = level
            try:
                self._session = onnxruntime.InferenceSession(
                    self.content, options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # the runtime raises anything
                raise RuntimeError(f"onnxruntime: {_first_line(error)}") from error
        return self._session


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
