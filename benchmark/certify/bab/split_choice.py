"""Which neuron to split: cheap scores propose, one backward pass per candidate decides.

The two steps are those of filtered smart branching (De Palma et al., 2021), as in beta-CROWN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from corobench.benchmark.certify.bab.lagrangian import (
    Lines,
    Pass,
    Relaxation,
    Subdomains,
    joined,
)

TIE_RATE = 0.1
"""What the better half of a split counts against the worse one."""


def split(subdomains: Subdomains, neuron_B: Tensor) -> Subdomains:
    """Two subdomains of each: first all with the neuron active, then all with it inactive.

    Args:
        subdomains: B subdomains.
        neuron_B: long, a neuron whose sign is not fixed in the subdomain of that column.

    Returns:
        2 B subdomains with the slopes, multipliers and bounds of those they come from.
    """
    columns = torch.arange(len(subdomains), device=neuron_B.device)
    active, inactive = subdomains.take(columns), subdomains.take(columns)
    for half, bounds in ((active, active.low_NB), (inactive, inactive.high_NB)):
        bounds[neuron_B, columns] = 0.0
        half.beta_NB[neuron_B, columns] = 0.0
    return joined([active, inactive])


def candidates(
    relaxation: Relaxation, subdomains: Subdomains, found: Pass, num_candidates: int
) -> Tensor:
    """Neurons worth trying: half by what they lose at the worst image, half by what they may lose.

    At the image where the linear bound is smallest, fixing a neuron gains at most what its
    relaxation loses there. The largest loss of its upper relaxation over all images is the score
    of BaBSR (Bunel et al., JMLR 2020) without its bias term.

    Args:
        relaxation: of the net on the box.
        subdomains: B subdomains, each with a free neuron.
        found: their backward pass.
        num_candidates: K.

    Returns:
        long (K, B); all are free, some may be there twice.
    """
    lines = Lines.of(subdomains)
    z = relaxation.forward(subdomains, found, lines, relaxation.worst(found))
    a = found.coefficient_NB
    chord = lines.chord_NB * z + lines.offset_NB
    relaxed = torch.where(a >= 0, subdomains.alpha_NB * z, chord)
    at_worst = (a * (z.clamp(min=0) - relaxed)).clamp(min=0)
    largest = a.clamp(max=0).neg() * lines.offset_NB
    free = lines.free_NB > 0
    num_first = min((num_candidates + 1) // 2, len(z))
    num_second = min(num_candidates // 2, len(z))
    first = torch.where(free, at_worst, -1.0).topk(num_first, dim=0).indices
    second = torch.where(free, largest, -1.0).topk(num_second, dim=0).indices
    proposed = torch.cat([first, second])
    return torch.where(free.gather(0, proposed), proposed, first[:1])


def best_split(
    relaxation: Relaxation, subdomains: Subdomains, candidates_KB: Tensor, enough: float
) -> Tensor:
    """The candidate whose worse half has the larger bound before any optimisation.

    Bounds above `enough` count alike; the better half counts a little; ties go to the first.

    Args:
        relaxation: of the net on the box.
        subdomains: B subdomains.
        candidates_KB: long (K, B), neurons whose sign is not fixed.
        enough: a bound above it closes a subdomain.

    Returns:
        long (B,).
    """
    num, batch = candidates_KB.shape
    columns = torch.arange(batch, device=candidates_KB.device).repeat(num)
    halves = split(subdomains.take(columns), candidates_KB.flatten())
    bounds = torch.maximum(relaxation.backward(halves).bound_B, halves.bound_B)
    active, inactive = bounds.clamp(max=enough).view(2, num, batch)
    score = torch.minimum(active, inactive) + TIE_RATE * torch.maximum(active, inactive)
    return candidates_KB.gather(0, score.argmax(dim=0, keepdim=True))[0]
