"""Space and time of coded adversarial images, against the same images in an npz file of float32.

    python perf/coded_images.py leaderboard/results [--data-root DIR] [--at-least 8] [--only digits]

Every stored result is read, coded or not, written in both ways in memory and decoded again; not a
bit may differ. The last line is the ratio of all sizes; exit code 1 below the bar.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from common import verdict

from corobench.benchmark.data import load_test
from corobench.benchmark.records.image_coding import encode
from corobench.benchmark.records.reading.coded_images import decoded, read_adversarial, read_coded
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.records.result_set import ADVERSARIAL, OUTCOMES
from corobench.benchmark.tracks import TRACKS, get_track


def measure(path: Path, data_root: Path | None) -> Counter[str]:
    """Bytes and processor seconds of one result."""
    table, run = read_outcomes(beside(path, OUTCOMES))
    dataset, shape = load_test(run.track, data_root), get_track(run.track).shape
    images = decoded(read_adversarial(beside(path, ADVERSARIAL), shape), dataset)
    plain = io.BytesIO()
    np.savez_compressed(plain, images=images)
    times = [time.process_time()]
    content = encode(images, table, run, dataset)
    times.append(time.process_time())
    with tempfile.TemporaryDirectory() as folder:
        coded = Path(folder) / "coded.npz"
        coded.write_bytes(content)
        found = read_coded(coded, shape).decode(dataset)
    times.append(time.process_time())
    if found.tobytes() != images.tobytes():
        raise SystemExit(f"{path}: other bits than before")
    return Counter(
        images=len(images),
        plain=len(plain.getvalue()),
        coded=len(content),
        encode_ms=round(1000 * (times[1] - times[0])),
        decode_ms=round(1000 * (times[2] - times[1])),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--at-least", type=float, default=8.0)
    parser.add_argument("--only", choices=sorted(TRACKS))
    options = parser.parse_args()
    whole: Counter[str] = Counter()
    for folder in sorted(one for one in options.results.glob("*/*") if one.name in TRACKS):
        if options.only not in (None, folder.name):
            continue
        here: Counter[str] = Counter()
        for path in sorted(folder.glob("*.json")):
            here += measure(path, options.data_root)
        print(
            f"{folder}: {here['images']} images, {here['plain'] / 1e6:.2f} MB to "
            f"{here['coded'] / 1e6:.2f} MB, coded in {here['encode_ms'] / 1e3:.1f} s, "
            f"decoded in {here['decode_ms'] / 1e3:.1f} s",
            flush=True,
        )
        whole += here
    verdict(whole["plain"] / max(1, whole["coded"]), at_least=options.at_least)


if __name__ == "__main__":
    main()
