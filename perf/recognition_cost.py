"""What the checks for cheaters cost, as a share of the whole evaluation.

    python perf/recognition_cost.py [ENTRY] [--n 500] [--at-most 0.02]

One entry is evaluated as `corobench evaluate --no-isolate` does it. Inside it every call of the
checks of `benchmark/evaluation/recognition.py` (with reading the unseen part of the training set)
and of `benchmark/attacks/gradients.py` is timed. The ratio is (those calls) / (whole evaluation) in
processor seconds of one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from common import cpu_timed, verdict

from corobench.benchmark.attacks import gradients
from corobench.benchmark.evaluation import evaluate, recognition
from corobench.benchmark.evaluation.settings import Settings

spent: dict[str, float] = {}
timed = partial(cpu_timed, spent)


def main() -> None:
    root = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    default = root / "submissions" / "digits-adv-lwm-10x"
    parser.add_argument("entry", type=Path, nargs="?", default=default)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--at-most", type=float, default=0.02)
    options = parser.parse_args()

    recognition.run_recognition_checks = timed("recognition", recognition.run_recognition_checks)
    evaluate.unseen_images = timed("reading unseen images", evaluate.unseen_images)
    gradients.doubtful = timed("gradients", gradients.doubtful)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as out:
        settings = Settings(n=options.n, data_root=options.data_root, out=Path(out))
        start = time.process_time()
        done = evaluate.evaluate(options.entry, settings)
        total = time.process_time() - start
    for name, seconds in sorted(spent.items()):
        print(f"{name}: {seconds:.3f} s")
    print(f"whole evaluation: {total:.1f} s, {done.result.entry}, n = {done.result.n}")
    verdict(sum(spent.values()) / total, at_most=options.at_most)


if __name__ == "__main__":
    main()
