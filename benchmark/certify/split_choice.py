"""Which neuron to split: a cheap score proposes, one backward pass per candidate decides.

The two steps are those of filtered smart branching (De Palma et al., 2021). The score looks at the
image where the linear bound is smallest: there, a neuron gains at most what its relaxation loses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmark.certify.lagrangian import Pass, Relaxation, Subproblems, joined


def split(problems: Subproblems, neuron_B: Tensor) -> Subproblems:
    """Two subproblems of each: first all with the neuron active, then all with it inactive.

    Args:
        problems: B subproblems.
        neuron_B: long, a neuron whose sign is not fixed in the subproblem of that column.
    """
    columns = torch.arange(len(problems), device=neuron_B.device)
    halves = []
    for sign in (1.0, -1.0):
        half = problems.take(columns)
        half.sign_NB[neuron_B, columns] = sign
        half.beta_NB[neuron_B, columns] = 0.0
        halves.append(half)
    return joined(halves)


def relaxation_loss(
    relaxation: Relaxation, problems: Subproblems, found: Pass, z_NB: Tensor
) -> Tensor:
    """How far the relaxation of each free neuron is off at the worst image, in margin units.

    Args:
        relaxation: of the net on the box.
        problems: B subproblems.
        found: their backward pass.
        z_NB: inputs of the neurons in the relaxed net, from the forward pass.

    Returns:
        float32 (N, B), at least 0; -1 where the sign is fixed.
    """
    exact = z_NB.clamp(min=0)
    chord = relaxation.chord_N[:, None] * z_NB + relaxation.offset_N[:, None]
    relaxed = torch.where(found.coefficient_NB >= 0, problems.alpha_NB * z_NB, chord)
    loss = found.coefficient_NB * (exact - relaxed)
    return torch.where(problems.sign_NB == 0, loss.clamp(min=0), -1.0)


def intercepts(relaxation: Relaxation, problems: Subproblems, found: Pass) -> Tensor:
    """The largest loss of each free neuron's upper relaxation over all images.

    Returns:
        float32 (N, B), at least 0; -1 where the sign is fixed.
    """
    loss = found.coefficient_NB.clamp(max=0).neg() * relaxation.offset_N[:, None]
    return torch.where(problems.sign_NB == 0, loss, -1.0)


def best_splits(
    relaxation: Relaxation,
    problems: Subproblems,
    candidates_KB: Tensor,
    enough: float,
) -> Tensor:
    """The candidate whose worse half has the larger bound without optimisation; (B,).

    Bounds above `enough` count alike; ties go to the better half, then to the first candidate.

    Args:
        relaxation: of the net on the box.
        problems: B subproblems.
        candidates_KB: long (K, B), neurons whose sign is not fixed.
        enough: a bound above it closes a subproblem.
    """
    num, batch = candidates_KB.shape
    columns = torch.arange(batch, device=candidates_KB.device).repeat(num)
    halves = split(problems.take(columns), candidates_KB.flatten())
    bounds = torch.maximum(relaxation.backward(halves).bound_B, halves.bound_B).clamp(max=enough)
    active, inactive = bounds.view(2, num, batch)
    score = torch.minimum(active, inactive) + TIE_RATE * torch.maximum(active, inactive)
    return candidates_KB.gather(0, score.argmax(dim=0, keepdim=True))[0]


TIE_RATE = 0.1

MODE = "both"

def candidates_of(loss, size, num):
    if MODE == "loss":
        return loss.topk(num, dim=0).indices
    if MODE == "size":
        return size.topk(num, dim=0).indices
    return torch.cat([loss.topk(num // 2, dim=0).indices, size.topk(num - num // 2, dim=0).indices])
