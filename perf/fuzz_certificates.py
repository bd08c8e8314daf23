"""Random networks certified up to the edge of the proof, then attacked inside the certified ball.

    python perf/fuzz_certificates.py [--seconds S] [--count N] [--seed 0] [--images 48] [--only BaB]

For each network, image and certifier the largest certified radius is bisected. Inside that box the
images of smallest margin are searched: corners, gradient descent in float64 from many starts, many
random images, and moves of single values by one float32; each is judged under several float32
deployments (`perf/deployments.py`). A certificate is wrong where one of them gives another class, a
tie or a NaN. Of each network the first wrong one is printed; the last line counts, and the exit
code is 1 where there is any.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from deployments import Deployment, run
from random_networks import Drawn, draw
from torch import Tensor, nn

Claims = Callable[[nn.Module, Tensor, Tensor, Tensor, Sequence[str]], Mapping[str, Tensor]]

SHARES = {"IBP": 1.0, "CROWN-IBP": 1.0, "CROWN": 0.125, "BaB": 0.02}
"""Of the images of a network which share each certifier is asked about; the last is the slowest."""

SUBDOMAINS, PLAIN = 80, 2
"""Of branch and bound; after the second number neurons are bounded under the output."""

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
STARTS = 8
STEPS = 6
NUM_SCATTERED = 96
"""Random images of each box, which show what no gradient points at."""

NUM_JUDGED = 16
"""Candidates of each image that are judged under every deployment: those of smallest margin."""

BISECTIONS, OF_A_SEARCH = 28, 11
SMALLEST_RADIUS = 1e-7


def claims(
    network: nn.Module, low: Tensor, high: Tensor, labels: Tensor, certifiers: Sequence[str]
) -> Mapping[str, Tensor]:
    """Which boxes the engine certifies: the one function that knows it.

    Args:
        network: eval mode, float32.
        low: float32 (B, C, H, W), lower corners.
        high: float32 like `low`.
        labels: int64 (B,).
        certifiers: whom to ask.

    Returns:
        certifier -> bool (B,).
    """
    try:
        from corobench.benchmark.certify.checker.intervals import UncheckableError
        from corobench.benchmark.certify.checker.proofs import margins
        from corobench.benchmark.certify.checker.reading import read_network
    except ImportError:
        return _library_claims(network, low, high, labels, certifiers)
    if "BaB" in certifiers:
        return {"BaB": _searched(network, low, high, labels)}
    try:
        known: Any = _kept(network, "checker", lambda: read_network(network, low.shape[1:]))
    except UncheckableError:  # such as a batch-norm that scales by a denormal
        return dict.fromkeys(certifiers, torch.zeros(len(low), dtype=torch.bool))
    box = tuple(side.double().numpy() for side in (low, high))
    found = {name: margins(known, *box, labels.numpy(), name) for name in certifiers}
    return {name: torch.from_numpy(one.min(axis=1) > 0) for name, one in found.items()}


def _searched(network: nn.Module, low: Tensor, high: Tensor, labels: Tensor) -> Tensor:
    """Which boxes branch and bound proves, neurons bounded under the output from early on."""
    from corobench.benchmark.certify import BranchBudget, NotCertifiable, Prover

    with torch.no_grad():
        num_classes = network(low[:1]).shape[1]
    prover: Any = _kept(network, "prover", lambda: Prover(network, low.shape[1:], num_classes))
    # Every second time as with a budget above the protocol's.
    above = SUBDOMAINS * (int(labels.sum()) % 2)
    budget = BranchBudget(SUBDOMAINS, tighten_after=PLAIN, lookahead_above=above)
    none = torch.zeros(len(low), dtype=torch.bool)
    if "BaB" in prover.refusals:
        return none
    try:
        found = prover.search("BaB", low, high, labels, budget)
    except NotCertifiable:
        return none
    return torch.tensor([one.is_certified for one in found])


def _library_claims(
    network: nn.Module, low: Tensor, high: Tensor, labels: Tensor, certifiers: Sequence[str]
) -> Mapping[str, Tensor]:
    """Of an engine without a checker."""
    import corobench.benchmark.certify as engine

    with torch.no_grad():
        logits = network((low + high) / 2)
    bounded: Any = _kept(
        network, "library", lambda: engine.BoundedModel(network, low.shape[1:], logits.shape[1])
    )
    found = {}
    for method in certifiers:
        try:
            margins = bounded.margins(method, low, high, labels)
            found[method] = engine.certified(margins, logits)
        except engine.NotCertifiable:
            found[method] = torch.zeros(len(low), dtype=torch.bool)
    return found


_LAST: dict[str, tuple[nn.Module, object]] = {}


def _kept(network: nn.Module, kind: str, build: Callable[[], object]) -> object:
    """What an engine makes of a network, built once for each network in turn."""
    if kind not in _LAST or _LAST[kind][0] is not network:
        _LAST[kind] = network, build()
    return _LAST[kind][1]


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


def largest(drawn: Drawn, x: Tensor, y: Tensor, asked: Claims, certifier: str) -> Tensor:
    """The largest radius found at which a certifier claims each image; 0 for none."""
    inside, outside = torch.zeros(len(x)), torch.ones(len(x))
    for step in range(OF_A_SEARCH if certifier == "BaB" else BISECTIONS):
        middle = (inside.clamp(min=SMALLEST_RADIUS) * outside).sqrt()
        radius = torch.full_like(middle, SMALLEST_RADIUS) if step == 0 else middle
        claimed = asked(drawn.network, *box(x, radius), y, [certifier])[certifier]
        inside = torch.where(claimed, radius, inside)
        if step:
            outside = torch.where(claimed, outside, radius)
        elif not claimed.any():
            break
    return inside


@torch.no_grad()
def near_borders(network: nn.Module, x: Tensor, rng: torch.Generator) -> Tensor:
    """The images, every other one moved towards one of another class until shortly before it.

    There the certified radius is small, every ReLU keeps its sign, and proofs are exact.
    """
    y = network(x).argmax(dim=1)
    partner = torch.randperm(len(x), generator=rng)
    low, high = torch.zeros(len(x)), torch.ones(len(x))
    for _ in range(24):
        middle = (low + high) / 2
        mixed = torch.lerp(x, x[partner], middle.view(-1, 1, 1, 1))
        same = network(mixed).argmax(dim=1) == y
        low, high = torch.where(same, middle, low), torch.where(same, high, middle)
    distance = 10 ** (-1 - 5 * torch.rand(len(x), generator=rng))
    moved = torch.lerp(x, x[partner], (low * (1 - distance)).view(-1, 1, 1, 1)).clamp(0, 1)
    chosen = (y != y[partner]) & (torch.arange(len(x)) % 2 == 0)
    return torch.where(chosen.view(-1, 1, 1, 1), moved, x)


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
    """The images of each box with the smallest margins found, (B, NUM_JUDGED, C, H, W)."""
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
    images = torch.stack(found, dim=1)
    with torch.no_grad():
        logits = exact(images.flatten(0, 1).double())
    margin = smallest_margin(logits, y.repeat_interleave(len(found))).view(len(y), -1)
    chosen = margin.argsort(dim=1)[:, : NUM_JUDGED - 2]
    rows = torch.arange(len(y))[:, None]
    return torch.cat([images[rows, chosen], low[:, None], high[:, None]], dim=1)


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


def worst(
    network: nn.Module, points: Tensor, y: Tensor, among: Iterable[str] = tuple(DEPLOYMENTS)
) -> tuple[Tensor, Tensor, list[str]]:
    """Of (B, K, C, H, W) the image of smallest margin, that margin, and the deployment."""
    num, per = points.shape[:2]
    flat, labels = points.flatten(0, 1), y.repeat_interleave(per)
    best = torch.full((num,), torch.inf, dtype=torch.float64)
    image, names = points[:, 0].clone(), [""] * num
    for name in among:
        margin, place = margins_under(name, network, flat, labels).view(num, per).min(dim=1)
        better = margin < best
        image[better] = points[torch.arange(num), place][better]
        best = torch.where(better, margin, best)
        for row in better.nonzero().flatten().tolist():
            names[row] = name
    return image, best, names


Found = tuple[Tensor, Tensor, list[str]]
"""Images, their margins, and the deployments that gave them."""


def _smaller(first: Found, second: Found) -> Found:
    """Of each box what has the smaller margin."""
    better = second[1] < first[1]
    image = torch.where(better.view(-1, 1, 1, 1), second[0], first[0])
    pairs = zip(first[2], second[2], better.tolist(), strict=True)
    names = [b if one else a for a, b, one in pairs]
    return image, torch.where(better, second[1], first[1]), names


def attack(
    drawn: Drawn, low: Tensor, high: Tensor, y: Tensor, rng: torch.Generator
) -> tuple[Tensor, list[str]]:
    """The smallest margin found in each box, each judged alone, and the deployment that gave it."""
    network = drawn.network
    image, margin, names = worst(network, candidates(network, low, high, y, rng), y)
    share = torch.rand(len(low), NUM_SCATTERED, *low.shape[1:], generator=rng)
    points = low[:, None] + (high - low)[:, None] * share
    points = points.clamp(low[:, None], high[:, None])
    scattered = worst(network, points, y, ("torch", "fused backward"))
    image, margin, names = _smaller((image, margin, names), scattered)
    for _ in range(2):
        likely = [name for name, _ in Counter(names).most_common(2)]
        moved = worst(network, nudged(image, low, high), y, likely)
        image, margin, names = _smaller((image, margin, names), moved)
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
    x = near_borders(drawn.network, x, generator)
    with torch.no_grad():
        logits = torch.cat([drawn.network(one[None]) for one in x])
    y = logits.argmax(dim=1)
    right = smallest_margin(logits, y) > 0
    x, y = x[right], y[right]
    if not len(x):
        return 0, []
    boxes, labels, by = [], [], []
    for certifier, share in SHARES.items():
        some = slice(math.ceil(share * len(x)))
        radius = largest(drawn, x[some], y[some], asked, certifier)
        kept = radius > 0
        boxes.append(torch.stack(box(x[some][kept], radius[kept])))
        labels.append(y[some][kept])
        by += [certifier] * int(kept.sum())
    if not by:
        return 0, []
    low, high = torch.cat(boxes, dim=1)
    margin, names = attack(drawn, low, high, torch.cat(labels), generator)
    wrong = [
        Wrong(number, row, names[row], float(margin[row]), by[row], drawn)
        for row in (margin <= 0).nonzero().flatten().tolist()
    ]
    return len(by), wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--count", type=int, default=sys.maxsize, help="certificates to try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=tuple(SHARES), help="one certifier, about every image")
    parser.add_argument("--images", type=int, default=48, help="of each network")
    options = parser.parse_args()
    if options.only:
        SHARES.clear()
        SHARES[options.only] = 1.0
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
