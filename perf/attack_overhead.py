"""The harness against the attack package alone, on a network that nothing can certify.

    python perf/attack_overhead.py [--network cnn-small] [--n 100] [--sparse]

Both run AutoAttack's standard suite with the protocol's settings on the same images, whose labels
are the network's own answers and whose radius is so small that no image breaks: every part of the
suite runs to its end on every image. The first goes through the harness (chunks, re-measurement,
search on the compacted equivalent where there is one), the second calls the package.

The network has random weights and images of 3x32x32. The ratio is (harness) / (package), at most
1.05. With --sparse a tenth of its filters is kept, by L1 norm as `filter-l1` does it, and the ratio
is (package) / (harness), at least 1.5. The smaller the network, the more of the time goes into the
package's own arithmetic on images, which no compaction saves.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import torch
from common import verdict
from torch import nn
from torch.nn import functional

from corobench.baselines.masks import Masks
from corobench.baselines.pruners import PRUNERS
from corobench.baselines.pruners.base import PruneContext
from corobench.benchmark.attacks.autoattack import AutoAttackStandard
from corobench.benchmark.evaluation.pipeline import Evaluation
from corobench.benchmark.evaluation.prepared import Prepared
from corobench.benchmark.files.chunks import ChunkStore
from corobench.benchmark.files.progress import Reporter
from corobench.benchmark.network.compaction import compacted
from corobench.benchmark.network.equivalent import SearchNetwork
from corobench.benchmark.submission.architectures import build
from corobench.benchmark.tracks import Protocol, derive_seed, get_track

EPSILON = "1/100000"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--network", default="cnn-small", choices=("cnn-small", "cnn-large"))
    parser.add_argument("--sparse", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)  # processor seconds of one thread do not depend on the machine's load
    track, protocol = get_track("cifar10"), Protocol()
    torch.manual_seed(0)
    model = build(options.network, track.shape, track.num_classes, {}).eval().requires_grad_(False)
    if options.sparse:
        _prune_filters(model)
    x = torch.rand(options.n, *track.shape)
    with torch.no_grad():
        y = model(x).argmax(dim=1)

    network = compacted(model, track.shape, x[:16])
    search = None if network is None else SearchNetwork(network, "compacted")
    with tempfile.TemporaryDirectory() as folder, Reporter("harness") as report:
        evaluation = Evaluation(
            Prepared(model, x, y, track, protocol=protocol, search=search),
            epsilons=(EPSILON,),
            seed=0,
            chunks=ChunkStore(Path(folder), {}),
            report=report,
        )
        start = time.process_time()
        evaluation.clean()
        evaluation.attack(evaluation.autoattack())
        harness = time.process_time() - start
    robust = evaluation.facts.correct & ~evaluation.facts.epsilons[EPSILON].broken["autoattack"]

    start = time.process_time()
    kept = []
    for number, rows in enumerate(torch.arange(options.n).split(track.chunk_size)):
        seed = derive_seed(0, track.name, f"autoattack:{EPSILON}", number)
        attack = AutoAttackStandard(track.num_classes, track.attack_batch, protocol.square_queries)
        suite = attack.build(model, Fraction(EPSILON), seed, x.device)
        adversarial, _ = suite.run_standard_evaluation(
            x[rows], y[rows], batch_size=track.attack_batch
        )
        with torch.no_grad():
            kept.append(model(adversarial).argmax(dim=1) == y[rows])
    package = time.process_time() - start
    same = torch.equal(torch.cat(kept), torch.from_numpy(robust))

    print(f"harness {harness:.1f} s, package alone {package:.1f} s, {options.n} images")
    print(f"robust {int(robust.sum())} of {options.n}, flags {'equal' if same else 'DIFFER'}")
    if not same:
        raise SystemExit(1)
    if options.sparse:
        verdict(package / harness, at_least=1.5)
    verdict(harness / package, at_most=1.05)


def _prune_filters(model: nn.Module) -> None:
    """Keep a tenth of the weights of every layer but the last, by whole filters."""
    unused = functional.cross_entropy
    context = PruneContext(Masks({}), torch.Generator(), unused, lambda: iter(()))
    masks = PRUNERS["filter-l1"]().masks(model, 0.1, context)
    with torch.no_grad():
        for name, kept in masks.items():
            model.get_parameter(name).mul_(kept)


if __name__ == "__main__":
    main()
