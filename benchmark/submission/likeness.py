"""How an entry is another one's: by its weights, by most of them, or by what it computes."""

from __future__ import annotations

import torch

from corobench.benchmark.network.compactness import stored_tensors
from corobench.benchmark.submission.contract import RELATIVE_TOLERANCE
from corobench.benchmark.submission.load import Submission

#: Random images on which entries are compared.
NUM_COMPARED = 16
#: Share of an entry's own weights, bit for bit in their places, that makes it another one's. Two
#: trainings share next to none; a training that goes on for a moment changes nearly all.
MOST_SHARED = 0.5
#: Test images on which orders of logits are compared.
NUM_ORDERED = 500
#: Share of them with the same order of the three largest logits from which on two entries are told
#: to be near each other. Two published trainings of one track share at most 0.878
#: (`docs/security.md`).
NEAR = 0.9


def likeness(entry: Submission, other: Submission, parent: Submission | None) -> str:
    """How an entry is another one's, for people; empty where it is not.

    A smaller network with the same outputs, as `corobench compact` writes, is an entry of its own.

    Args:
        entry: that is new.
        other: that is there.
        parent: that the new one names: weights left as they are there are nobody else's.
    """
    name = other.folder.name
    if other.weights_sha256 == entry.weights_sha256:
        return f"the same effective weights as {name}"
    if other.track != entry.track:
        return ""
    if num_nonzero(entry) >= num_nonzero(other) and _computes_the_same(entry, other):
        return f"computes the same as, and is not smaller than, {name}"
    if other is not parent and (shared := _num_shared(entry, other, parent)):
        return (
            f"{shared} weights are, bit for bit and in their places, those of {name}; name the "
            "dense entry that yours was made from as `parent`"
        )
    return ""


def orders(entry: Submission, images: torch.Tensor) -> torch.Tensor:
    """Classes of the three largest logits, which no monotone change of all logits moves.

    Args:
        entry: the network that is asked.
        images: float32 (N, C, H, W) in [0, 1].

    Returns:
        int64 (N, 3), or (N, 2) of two classes.
    """
    num = min(3, entry.track.num_classes)
    with torch.no_grad():
        parts = [entry.model(part).topk(num, dim=1).indices for part in images.split(100)]
    return torch.cat(parts)


def is_near(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two entries compute nearly the same, such as a copy whose channels are in another
    order or scaled, and of which a few weights are gone.

    Args:
        one: its `orders`.
        other: those of another entry on the same images.
    """
    return float((one == other).all(dim=1).double().mean()) >= NEAR


def _computes_the_same(entry: Submission, other: Submission) -> bool:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(NUM_COMPARED, *entry.track.shape, generator=generator)
    with torch.no_grad():
        found, expected = (_normalised(one.model(images)) for one in (entry, other))
    return float((found - expected).abs().max()) <= RELATIVE_TOLERANCE


def num_nonzero(entry: Submission) -> int:
    """Values that are not zero, of all stored tensors."""
    return sum(int(tensor.count_nonzero()) for tensor in stored_tensors(entry.model))


def _num_shared(entry: Submission, other: Submission, parent: Submission | None) -> str:
    """How many of an entry's own weights another one has, as "N of M"; empty for few.

    Its own are those that are not zero and not its parent's in the same place.
    """
    mine, theirs = (stored_tensors(one.model) for one in (entry, other))
    if [tensor.shape for tensor in mine] != [tensor.shape for tensor in theirs]:
        return ""
    above = [] if parent is None else stored_tensors(parent.model)
    if [tensor.shape for tensor in above] != [tensor.shape for tensor in mine]:
        above = [torch.zeros_like(tensor) for tensor in mine]
    own = shared = 0
    for here, there, before in zip(mine, theirs, above, strict=True):
        is_own = (here != 0) & (here != before)
        own += int(is_own.sum())
        shared += int((is_own & (here == there)).sum())
    return f"{shared:,} of its {own:,}" if shared > MOST_SHARED * own else ""


def _normalised(logits: torch.Tensor) -> torch.Tensor:
    """Logits (B, K) without what decides nothing: a summand per image, and one factor for all."""
    centred = logits.double() - logits.double().mean(dim=1, keepdim=True)
    return centred / centred.abs().max().clamp(min=1e-12)
