"""Random networks certified up to the edge of the proof, then attacked inside the certified ball.

    python perf/fuzz_certificates.py [--seconds S] [--count N] [--seed 0] [--images 32]

For each network and image the largest certified radius is bisected. Inside that box the images of
smallest margin are searched: corners, gradient descent in float64 from many starts, and moves of
single values by one float32; each is judged under several float32 deployments
(`perf/deployments.py`). A certificate is wrong where one of them gives another class, a tie or a
NaN. Every wrong one is printed with its seed; the last line counts, and the exit code is 1 where
there is any.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from deployments import Deployment, run
from random_networks import Drawn, draw
from torch import Tensor, nn

Claims = Callable[[nn.Module, Tensor, Tensor, Tensor], Mapping[str, Tensor]]

DEPLOYMENTS: dict[str, Deployment | None] = {
    "torch": None,
    "forward": Deployment("forward"),
    "bias first": Deployment("bias-first"),
    "backward": Deployment("backward"),
    "pairwise": Deployment("pairwise"),
    "shuffled": Deployment("shuffled", seed=1),
    "fused": Deployment("forward", fma=True),
    "fused backward": Deployment("backward", fma=True),
    "flushed": Deployment("forward", flush=True),
    "literal norm": Deployment("forward", literal_norm=True),
}
STARTS = 12
STEPS = 8
BISECTIONS = 14
SMALLEST_RADIUS = 1e-7


def claims(network: nn.Module, low: Tensor, high: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
    """Which boxes the engine certifies: the one function that knows it.

    Args:
        network: eval mode, float32.
        low: float32 (B, C, H, W), lower corners.
        high: float32 like `low`.
        labels: int64 (B,).

    Returns:
        certifier -> bool (B,).
    """
    try:
        from benchmark.certify.checker.proofs import margins
        from benchmark.certify.checker.reading import read_network
    except ImportError:
        return _library_claims(network, low, high, labels)
    known = read_network(network, low.shape[1:])
    corners = (side.double().numpy() for side in (low, high))
    found = margins(known, *corners, labels.numpy(), "CROWN")
    return {"CROWN": torch.from_numpy(found.min(axis=1) > 0)}


def _library_claims(
    network: nn.Module, low: Tensor, high: Tensor, labels: Tensor
) -> Mapping[str, Tensor]:
    """Of an engine without a checker."""
    import benchmark.certify as engine

    with torch.no_grad():
        logits = network((low + high) / 2)
    bounded = _bounded(network, tuple(low.shape[1:]), logits.shape[1])
    found = {}
    for method in ("IBP", "CROWN"):
        try:
            margins = bounded.margins(method, low, high, labels)  # type: ignore[attr-defined]
            found[method] = engine.certified(margins, logits)  # type: ignore[attr-defined]
        except engine.NotCertifiable:
            found[method] = torch.zeros(len(low), dtype=torch.bool)
    return found


_LAST: list[object] = [None, None]


def _bounded(network: nn.Module, shape: tuple[int, ...], num_classes: int) -> object:
    """Built once for each network in turn."""
    from benchmark.certify import BoundedModel

    if _LAST[0] is not network:
        _LAST[:] = [network, BoundedModel(network, shape, num_classes)]
    return _LAST[1]


@dataclass
class Wrong:
    """A certificate that does not hold."""

    number: int
    image: int
    deployment: str
    margin: float
    by: str
    drawn: Drawn

    def __str__(self) -> str:
        traits = " ".join(self.drawn.traits)
        return (
            f"WRONG network {self.number} image {self.image}: {self.by} certified, "
            f"{self.deployment} gives {self.margin:.3g} ({self.drawn.kind}; {traits})"
        )


def box(x: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 corners around images for one radius each, within [0, 1]."""
    shaped = radius.view(-1, 1, 1, 1)
    return (x - shaped).clamp(min=0), (x + shaped).clamp(max=1)


def largest(drawn: Drawn, x: Tensor, y: Tensor, asked: Claims) -> tuple[Tensor, list[str]]:
    """The largest radius found at which each image is certified, 0 for none, and by whom."""
    inside, outside = torch.zeros(len(x)), torch.ones(len(x))
    by = [""] * len(x)
    for step in range(BISECTIONS):
        middle = (inside.clamp(min=SMALLEST_RADIUS) * outside).sqrt()
        radius = torch.full_like(middle, SMALLEST_RADIUS) if step == 0 else middle
        found = asked(drawn.network, *box(x, radius), y)
        any_of = torch.stack(list(found.values())).any(dim=0)
        for place in any_of.nonzero().flatten().tolist():
            by[place] = next(name for name, claimed in found.items() if claimed[place])
        inside = torch.where(any_of, radius, inside)
        if step:
            outside = torch.where(any_of, outside, radius)
        if not any_of.any() and step == 0:
            break
    return inside, by


def margins_under(name: str, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Smallest margin of each image under a deployment; -inf where there is a NaN.

    torch works on the whole batch here; what it breaks is judged again alone.
    """
    how = DEPLOYMENTS[name]
    with torch.no_grad():
        logits = network(x) if how is None else run(network, x, how)
    return smallest_margin(logits, y)


def smallest_margin(logits: Tensor, y: Tensor) -> Tensor:
    """logit[label] - largest other one, in float64; -inf where a logit is NaN or all tie at inf."""
    exact = logits.double()
    others = exact.scatter(1, y[:, None], -torch.inf).amax(dim=1)
    margin = exact.gather(1, y[:, None])[:, 0] - others
    return torch.nan_to_num(margin, nan=-torch.inf).masked_fill(exact.isnan().any(1), -torch.inf)


def candidates(
    network: nn.Module, low: Tensor, high: Tensor, y: Tensor, rng: torch.Generator
) -> Tensor:
    """Images of each box in which a margin may be smallest, (B, K, C, H, W)."""
    exact = _in_float64(network)
    share = torch.rand(STARTS, *low.shape, generator=rng)
    share[1:4] = share[1:4].round()
    share[0] = 0.5
    found = [low, high]
    points = low + (high - low) * share
    for step in range(STEPS):
        points = points.clamp(low, high)
        found += list(points)
        points = torch.stack([_descended(exact, p, low, high, y, step) for p in points])
    found += list(points.clamp(low, high))
    return torch.stack(found, dim=1)


def _in_float64(network: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(network).double()


def _descended(
    exact: nn.Module, x: Tensor, low: Tensor, high: Tensor, y: Tensor, step: int
) -> Tensor:
    """One step down the smallest margin: to the corner first, then by ever smaller shares."""
    points = x.double().requires_grad_()
    logits = exact(points)
    others = logits.scatter(1, y[:, None], -torch.inf).amax(dim=1)
    margin = (logits.gather(1, y[:, None])[:, 0] - others).nan_to_num().sum()
    (slope,) = torch.autograd.grad(margin, points)
    length = (high - low) * (1.0 if step % 2 == 0 else 2.0**-step)
    return (x - length * slope.sign().float()).clamp(low, high)


def nudged(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Each value alone at either end and one float32 up or down, (B, 4 X, C, H, W)."""
    flat, bottom, top = (t.flatten(1) for t in (x, low, high))
    num = flat.shape[1]
    up = torch.nextafter(flat, torch.full_like(flat, torch.inf)).minimum(top)
    down = torch.nextafter(flat, torch.full_like(flat, -torch.inf)).maximum(bottom)
    eye = torch.eye(num, dtype=torch.bool)
    moved = [torch.where(eye, end[:, None], flat[:, None]) for end in (bottom, top, up, down)]
    return torch.cat(moved, dim=1).view(len(x), -1, *x.shape[1:])


def worst(network: nn.Module, points: Tensor, y: Tensor) -> tuple[Tensor, Tensor, list[str]]:
    """Of (B, K, C, H, W) the image of smallest margin, that margin, and the deployment."""
    num, per = points.shape[:2]
    flat, labels = points.flatten(0, 1), y.repeat_interleave(per)
    best = torch.full((num,), torch.inf, dtype=torch.float64)
    image, names = points[:, 0].clone(), [""] * num
    for name in DEPLOYMENTS:
        margin, place = margins_under(name, network, flat, labels).view(num, per).min(dim=1)
        better = margin < best
        image[better] = points[torch.arange(num), place][better]
        best = torch.where(better, margin, best)
        for row in better.nonzero().flatten().tolist():
            names[row] = name
    return image, best, names


def attack(
    drawn: Drawn, low: Tensor, high: Tensor, y: Tensor, rng: torch.Generator
) -> tuple[Tensor, list[str]]:
    """The smallest margin found in each box, each judged alone, and the deployment that gave it."""
    network = drawn.network
    image, margin, names = worst(network, candidates(network, low, high, y, rng), y)
    for _ in range(2):
        moved, after, others = worst(network, nudged(image, low, high), y)
        better = after < margin
        image = torch.where(better.view(-1, 1, 1, 1), moved, image)
        margin = torch.where(better, after, margin)
        names = [b if one else a for a, b, one in zip(names, others, better.tolist(), strict=True)]
    for row in (margin <= 0).nonzero().flatten().tolist():
        alone = slice(row, row + 1)
        margin[row] = margins_under(names[row], network, image[alone], y[alone])[0]
    return margin, names


def hunt(number: int, seed: int, num_images: int, asked: Claims) -> tuple[int, list[Wrong]]:
    """One random network: how many certificates, and which of them are wrong."""
    rng = np.random.default_rng([seed, number])
    drawn = draw(rng)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    x = torch.rand(num_images, *drawn.shape, generator=generator)
    x = torch.where(torch.rand(x.shape, generator=generator) < 0.2, x.round(), x)
    with torch.no_grad():
        logits = torch.cat([drawn.network(one[None]) for one in x])
    y = logits.argmax(dim=1)
    right = smallest_margin(logits, y) > 0
    x, y = x[right], y[right]
    if not len(x):
        return 0, []
    radius, by = largest(drawn, x, y, asked)
    kept = radius > 0
    if not kept.any():
        return 0, []
    by = [name for name, one in zip(by, kept.tolist(), strict=True) if one]
    low, high = box(x[kept], radius[kept])
    margin, names = attack(drawn, low, high, y[kept], generator)
    wrong = [
        Wrong(number, row, names[row], float(margin[row]), by[row], drawn)
        for row in (margin <= 0).nonzero().flatten().tolist()
    ]
    return int(kept.sum()), wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--count", type=int, default=sys.maxsize, help="certificates to try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=32, help="of each network")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    end = time.monotonic() + options.seconds
    num_certificates, number, wrong = 0, 0, []
    kinds: Counter[str] = Counter()
    while num_certificates < options.count and time.monotonic() < end:
        found, broken = hunt(number, options.seed, options.images, claims)
        num_certificates, number, wrong = num_certificates + found, number + 1, wrong + broken
        kinds.update(one.deployment for one in broken)
        for one in broken[:1]:
            print(one, flush=True)
    print(f"{number} networks; wrong by deployment: {dict(kinds)}")
    print(f"{len(wrong)} wrong of {num_certificates} certificates")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
