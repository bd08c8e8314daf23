"""Images per second of one training step against a plain hand-written loop.

    python perf/train_step.py [--network cnn-small] [--steps 20] [--at-least 0.95]

One step of PGD-7 adversarial training and one of IBP training (half clean, half worst case) on
batches of 128 images of 1x28x28, as `corobench train` takes them: with masks, schedules, a random
order and the bounds of the certifier's library. The plain loop does the same arithmetic on the same
batches and nothing else; its interval bounds are written out layer by layer. Both take turns, in
processor seconds of one thread; the median of each side counts. The ratio is the smaller of the
two objectives' (our images per second) / (the plain loop's); exit code 1 below the bar.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from fractions import Fraction

import torch
import torch.nn.functional as F  # noqa: N812
from common import verdict
from torch import Tensor, nn

from corobench.baselines.masks import Masks
from corobench.baselines.measures import LazyBounds
from corobench.baselines.objectives import Ibp, PgdAt
from corobench.baselines.train_stage import Optimiser, TrainStage
from corobench.baselines.trainer import StageTrainer
from corobench.baselines.training_data import TrainingData
from corobench.benchmark.submission.architectures import build
from corobench.benchmark.tracks import derive_seed

SHAPE, NUM_CLASSES, BATCH, EPSILON = (1, 28, 28), 10, 128, 0.1
#: Steps before the clock runs.
NUM_WARM = 2
Step = Callable[[Tensor], Tensor]


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build(name, SHAPE, NUM_CLASSES, {})


def trainer_step(name: str, objective: PgdAt | Ibp, data: TrainingData) -> Step:
    """A step as `corobench train` takes it; a tenth of the weights is kept."""
    model = network(name)
    masks = Masks(
        {
            f"{layer}.weight": module.weight.abs() >= module.weight.abs().quantile(0.9)
            for layer, module in model.named_modules()
            if isinstance(module, nn.Conv2d)
        }
    )
    trainer = StageTrainer(
        "perf",
        TrainStage(objective=objective, epochs=1, batch_size=BATCH, optimiser=Optimiser(lr=1e-3)),
        model,
        masks,
        data,
        Fraction(1, 10),
        lambda purpose, index: derive_seed(0, "digits", purpose, index),
        LazyBounds(model, SHAPE, NUM_CLASSES),
    )
    return lambda batch: trainer._step(batch, 0.5)


def plain_pgd_step(name: str, data: TrainingData) -> Step:
    """Madry's loop."""
    model = network(name)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step(batch: Tensor) -> Tensor:
        x, y = data.x_NCHW[batch], data.labels_N[batch]
        low, high = (x - EPSILON).clamp(0, 1), (x + EPSILON).clamp(0, 1)
        moved = (x + EPSILON * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
        for _ in range(7):
            moved.requires_grad_(True)
            loss = F.cross_entropy(model(moved), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, moved)
            moved = moved.detach() + 0.25 * EPSILON * gradient.sign()
            moved = torch.minimum(torch.maximum(moved, low), high)
        loss = F.cross_entropy(model(moved.detach()), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.detach()

    return step


def plain_ibp_step(name: str, data: TrainingData) -> Step:
    """Interval arithmetic on centre and radius, the last layer merged with the margins."""
    model = network(name)
    layers = list(next(m for m in model.modules() if isinstance(m, nn.Sequential)))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)

    def margins(low: Tensor, high: Tensor, y: Tensor) -> Tensor:
        for layer in layers[:-1]:
            if isinstance(layer, nn.ReLU):
                low, high = low.relu(), high.relu()
            elif isinstance(layer, nn.Flatten):
                low, high = low.flatten(1), high.flatten(1)
            else:
                centre, radius = (low + high) / 2, (high - low) / 2
                middle = layer(centre)
                if isinstance(layer, nn.Conv2d):
                    spread = F.conv2d(radius, layer.weight.abs(), None, layer.stride, layer.padding)
                else:
                    spread = F.linear(radius, layer.weight.abs())
                low, high = middle - spread, middle + spread
        last = layers[-1]
        weight = last.weight[y].unsqueeze(1) - last.weight  # (B, K, F)
        bias = last.bias[y].unsqueeze(1) - last.bias
        centre, radius = (low + high) / 2, (high - low) / 2
        middle = torch.bmm(weight, centre.unsqueeze(2)).squeeze(2)
        return middle - torch.bmm(weight.abs(), radius.unsqueeze(2)).squeeze(2) + bias

    def step(batch: Tensor) -> Tensor:
        x, y = data.x_NCHW[batch], data.labels_N[batch]
        low, high = (x - EPSILON).clamp(0, 1), (x + EPSILON).clamp(0, 1)
        verified = F.cross_entropy(-margins(low, high, y), y)
        loss = 0.5 * F.cross_entropy(model(x), y) + 0.5 * verified
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.detach()

    return step


def compare(ours: Step, plain: Step, num_steps: int) -> float:
    """Median seconds of the plain step over those of ours, measured in turns."""
    order = torch.randperm(num_steps * BATCH, generator=torch.Generator().manual_seed(0))
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    for number, batch in enumerate(order.split(BATCH)):
        for side, step in (("ours", ours), ("plain", plain)):
            start = time.process_time()
            step(batch)
            if number >= NUM_WARM:  # the first steps build graphs and fill caches
                seconds[side].append(time.process_time() - start)
    ours_s, plain_s = (statistics.median(seconds[side]) for side in ("ours", "plain"))
    print(f"  {BATCH / ours_s:.0f} images/s against {BATCH / plain_s:.0f} images/s")
    return plain_s / ours_s


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--network", choices=("cnn-small", "cnn-large"), default="cnn-small")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--at-least", type=float, default=0.95)
    options = parser.parse_args()
    if options.steps <= NUM_WARM:
        parser.error(f"--steps: expected at least {NUM_WARM + 1}; {NUM_WARM} do not count")
    torch.set_num_threads(1)
    num_images = options.steps * BATCH
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((num_images, *SHAPE), generator=generator)
    labels = torch.randint(0, NUM_CLASSES, (num_images,), generator=generator)
    data = TrainingData(x, labels, x[:10], labels[:10], "canonical", "")
    ibp = Ibp(kappa_start=0.5, kappa_end=0.5)
    ratios = []
    for title, objective, plain in (
        ("PGD-7", PgdAt(num_steps=7), plain_pgd_step(options.network, data)),
        ("IBP", ibp, plain_ibp_step(options.network, data)),
    ):
        print(f"{title}, {options.network}")
        ours = trainer_step(options.network, objective, data)
        ratios.append(compare(ours, plain, options.steps))
    verdict(min(ratios), at_least=options.at_least)


if __name__ == "__main__":
    main()
