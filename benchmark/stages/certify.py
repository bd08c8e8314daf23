"""Certification of one chunk at one epsilon by one certifier."""

from __future__ import annotations

import time
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from torch import Tensor

from benchmark import threat

if TYPE_CHECKING:
    from benchmark.certify import BoundedModel


@dataclass
class CertifyResult:
    """What one certifier proved.

    Attributes:
        certified_B: bool (B,), the smallest margin is above the stated float margin.
        margin_B: float32 (B,), smallest lower bound of logit[label] - logit[other].
        seconds: wall-clock.
    """

    certified_B: Tensor
    margin_B: Tensor
    seconds: float


def certify_chunk(
    bounded: BoundedModel,
    certifier: str,
    x_BCHW: Tensor,
    y_B: Tensor,
    logits_BK: Tensor,
    epsilon: Fraction,
) -> CertifyResult:
    """Ask one certifier about a chunk of correctly classified images.

    Args:
        bounded: the model prepared for bounding.
        certifier: "IBP", "CROWN-IBP" or "CROWN".
        x_BCHW: float32 (B, C, H, W) in [0, 1].
        y_B: int64 (B,), the labels, which the model predicts.
        logits_BK: float32 (B, num_classes), clean logits; they scale the float margin.
        epsilon: exact radius; the verified box is rounded outward.
    """
    from benchmark.certify import certified

    start = time.perf_counter()
    lower, upper = threat.box(x_BCHW, epsilon)
    margins_BM = bounded.margins(certifier, lower, upper, y_B)
    proven = certified(margins_BM, logits_BK)
    return CertifyResult(proven, margins_BM.amin(dim=1), time.perf_counter() - start)
