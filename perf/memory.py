"""Peak memory of every stage on the largest networks, each stage in a process of its own.

    python perf/memory.py [--chunk 100] [--at-most 8]

VGG16-BN and WRN-28-4 with random weights on random images of 3x32x32, one chunk of the track
`cifar10`. The attacks take two steps instead of all, which changes the time and not the peak.
Certifiers that the protocol does not ask about such large networks are named. The last line is the
largest peak in GiB; exit code 1 above the bar.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from fractions import Fraction

import torch
from common import verdict

from corobench.benchmark.attacks.autoattack import AutoAttackStandard
from corobench.benchmark.attacks.pgd import PGD
from corobench.benchmark.evaluation.prepared import certifier_stages, prepare_certifiers
from corobench.benchmark.referee import threat
from corobench.benchmark.referee.judge import predict_one_by_one
from corobench.benchmark.submission.architectures import build
from corobench.benchmark.tracks import Protocol, get_track

NETWORKS = ("vgg16-bn", "wrn-28-4")
ATTACKS = ("clean", "PGD-50", "AutoAttack")
EPSILON = Fraction(8, 255)


def measure(network: str, stage: str, chunk: int) -> None:
    """Run one stage and print its peak in GiB, or why it is not asked."""
    track, protocol = get_track("cifar10"), Protocol()
    torch.manual_seed(0)
    model = build(network, track.shape, track.num_classes, {}).eval().requires_grad_(False)
    x = torch.rand(chunk, *track.shape)
    y = torch.zeros(chunk, dtype=torch.long)
    if stage == "clean":
        predict_one_by_one(model, x)
    elif stage == "PGD-50":
        PGD(2, 1).run(model, x, y, EPSILON, 0)
    elif stage == "AutoAttack":
        _short_autoattack(model, x, chunk)
    else:
        prover, not_asked = prepare_certifiers(
            model, None, track.shape, track.num_classes, protocol, torch.device("cpu")
        )
        not_asked |= dict.fromkeys(certifier_stages(prover, protocol)[1], "after the attacks")
        if stage in not_asked:
            print(f"not asked ({not_asked[stage].split(':')[0]})")
            return
        prover.prove(stage, *threat.box(x, EPSILON), y)
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2:.3f}")


def _short_autoattack(model: torch.nn.Module, x: torch.Tensor, chunk: int) -> None:
    """All four parts on the whole chunk: the labels are the network's own answers."""
    with torch.no_grad():
        y = torch.cat([model(part).argmax(dim=1) for part in x.split(20)])
    suite = AutoAttackStandard(10, chunk).build(model, Fraction(1, 10**6), 0, x.device)
    for part in (suite.apgd, suite.apgd_targeted, suite.fab):
        part.n_iter = 2
    suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = 1
    suite.square.n_queries = 2
    suite.run_standard_evaluation(x, y, batch_size=chunk)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--chunk", type=int, default=get_track("cifar10").chunk_size)
    parser.add_argument("--at-most", type=float, default=8.0)
    parser.add_argument("--only", nargs=2, metavar=("NETWORK", "STAGE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        measure(*options.only, options.chunk)
        return
    peaks = []
    for network in NETWORKS:
        for stage in (*ATTACKS, *Protocol().all_certifiers):
            command = [sys.executable, __file__, "--chunk", str(options.chunk)]
            done = subprocess.run(
                [*command, "--only", network, stage], capture_output=True, text=True, check=False
            )
            answer = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "failed"
            if done.returncode:
                print(done.stderr[-2000:], file=sys.stderr)
                sys.exit(f"{network} {stage}: exit code {done.returncode}")
            if not answer.startswith("not asked"):
                peaks.append(float(answer))
                answer += " GiB"
            print(f"{network:<10}{stage:<12}{answer}", flush=True)
    verdict(max(peaks), at_most=options.at_most)


if __name__ == "__main__":
    main()
