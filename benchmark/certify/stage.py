"""One chunk at one epsilon and one certifier: proofs, and what a search refutes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from corobench.benchmark.referee import threat
from corobench.benchmark.referee.judge import confirm

if TYPE_CHECKING:
    from corobench.benchmark.certify import Prover
    from corobench.benchmark.tracks import Protocol


@dataclass
class CertifyResult:
    """What one certifier proved.

    Attributes:
        certified_B: bool (B,), claimed by the certifier and confirmed by the checker.
        margin_B: float32 (B,), smallest lower bound of logit[label] - logit[other].
        seconds: wall-clock.
    """

    certified_B: Tensor
    margin_B: Tensor
    seconds: float


def certify_chunk(
    prover: Prover, certifier: str, x_BCHW: Tensor, y_B: Tensor, epsilon: Fraction
) -> CertifyResult:
    """Ask one certifier about a chunk of correctly classified images.

    Args:
        prover: of the submitted network.
        certifier: "IBP", "CROWN-IBP" or "CROWN".
        x_BCHW: float32 (B, C, H, W) in [0, 1].
        y_B: int64 (B,), the labels, which the model predicts.
        epsilon: exact radius; the verified box is rounded outward.
    """
    start = time.perf_counter()
    lower, upper = threat.box(x_BCHW, epsilon)
    found = prover.prove(certifier, lower, upper, y_B)
    return CertifyResult(found.certified_B, found.margin_B, time.perf_counter() - start)


@dataclass
class ClosingResult:
    """What a costly certifier found about images that no attack broke.

    Attributes:
        certified_B: bool (B,), proven.
        margin_B: float32 (B,), smallest lower bound of a margin.
        refuted_B: bool (B,), the search met an image that the submitted model gets wrong.
        adversarial_BCHW: float32 (B, C, H, W), re-measured; only rows with `refuted_B` count.
        stopped_B: bool (B,), the clock ended the search.
        unasked_B: bool (B,), CROWN alone would take more arithmetic than the protocol allows.
        seconds: wall-clock.
    """

    certified_B: Tensor
    margin_B: Tensor
    refuted_B: Tensor
    adversarial_BCHW: Tensor
    stopped_B: Tensor
    unasked_B: Tensor
    seconds: float


def close_chunk(
    prover: Prover,
    certifier: str,
    model: nn.Module,
    x_BCHW: Tensor,
    y_B: Tensor,
    epsilon: Fraction,
    protocol: Protocol,
) -> ClosingResult:
    """Ask a costly certifier about images that no attack broke.

    Args:
        prover: of the submitted network.
        certifier: "alpha-CROWN", "BaB", or "CROWN" of a large network.
        model: the submitted model, which judges what the search refutes.
        x_BCHW: float32 (B, C, H, W) in [0, 1].
        y_B: int64 (B,), the labels, which the model predicts.
        epsilon: exact radius; the verified box is rounded outward.
        protocol: settings of the search.
    """
    from corobench.benchmark.certify import TOO_COSTLY, BranchBudget

    start = time.perf_counter()
    none_B = torch.zeros(len(x_BCHW), dtype=torch.bool, device=x_BCHW.device)
    budget = BranchBudget(
        max_subdomains=protocol.max_subdomains, stop_after_s=protocol.certify_budget_s
    )
    lower, upper = threat.box(x_BCHW, epsilon)
    answers = prover.search(certifier, lower, upper, y_B, budget, protocol.crown_max_macs)
    refuted_B, adversarial = none_B.clone(), x_BCHW.clone()
    claimed = [place for place, answer in enumerate(answers) if answer.proposal is not None]
    for place in claimed:
        proposal = answers[place].proposal
        assert proposal is not None
        adversarial[place] = proposal.to(x_BCHW)
    if claimed:
        rows = torch.tensor(claimed, device=x_BCHW.device)
        refuted_B[rows], adversarial[rows] = confirm(
            model, x_BCHW[rows], y_B[rows], adversarial[rows], epsilon
        )
    return ClosingResult(
        certified_B=torch.tensor([answer.is_certified for answer in answers], dtype=torch.bool),
        margin_B=torch.stack([answer.margins.amin() for answer in answers]),
        refuted_B=refuted_B,
        adversarial_BCHW=adversarial,
        stopped_B=torch.tensor([answer.status == "stopped" for answer in answers]),
        unasked_B=torch.tensor([answer.status == TOO_COSTLY for answer in answers]),
        seconds=time.perf_counter() - start,
    )
